"""The benchmark of kernels: wrong results and missed goals are seen, the right ceiling counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernel_build import array_of, compile_case
from kernel_cases import Operand, all_cases, attention, conv, matmul
from kernels import Bench, Limit, Result, cells, error_of, missed
from torch_peer import FUNCTIONS, least_seconds, values

from mgec.compiler.targets import target_named
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.spec import BFLOAT16
from mgec.errors import CompileError

HOST = target_named("host")
V3 = target_named("x86-64-v3")
RATES = {"fma_16": 10.0, "fma_32": 100.0, "fma_64": 100.0, "dot_64": 200.0, "copy_16": 80.0,
         "copy_64": 40.0, "copy_65536": 20.0}  # fmt: skip
SMALL = matmul(8, 32, 16)


def bench(**options):
    return Bench(HOST, RATES, None, seconds=0.001, **options)


def test_rows_have_different_names_and_known_peers():
    cases = list(all_cases())
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.peer is None or case.peer.function in FUNCTIONS for case in cases)


@pytest.mark.parametrize("case", [SMALL, conv(16, 16, 3, 6, full=True)], ids=["matmul", "conv"])
def test_measures(case):
    result = bench().measure(case)
    assert result.error is not None and result.error < 1e-5
    assert result.microseconds > 0 and result.percent > 0 and result.kernel
    assert cells(result)[0] == case.name


def test_two_threads_have_a_scaling():
    assert bench(threads=2).measure(SMALL).scaling is not None


def test_run_time_sizes():
    assert bench(dynamic=True).measure(SMALL).error is not None


def test_a_wrong_result_is_an_error():
    def body(b, x, w):
        y = b.matmul(x, w)
        return b.mul(y, b.scalar(1.001, y)) if isinstance(b, IRBuilder) else y

    with pytest.raises(CompileError, match="the result is wrong, its error is"):
        bench().measure(replace(SMALL, body=body))


def test_a_result_that_is_not_a_number_is_wrong():
    x, w = (np.ones(each.shape, np.float32) for each in SMALL.operands)
    assert error_of(SMALL, [x, w], np.full((8, 32), 16.0)) == 0
    assert error_of(SMALL, [x, w], np.full((8, 32), np.nan)) == np.inf


def test_copies_of_weights_are_used_in_turn():
    """The second copy is read by the last steps: with other numbers in it the result is another."""
    rng = np.random.default_rng(0)
    x, w = (array_of(each, rng) for each in SMALL.operands)
    built = compile_case(SMALL, [w], HOST, tuned=False)
    bound = built.bind(1, copies=2)
    memory = bound._keep_alive
    memory[len(memory) // 2 :] = 0
    out = array_of(Operand((8, 32)), rng)
    bound.run([x.ctypes.data, out.ctypes.data])
    assert not out.any()


def test_the_ceiling_that_binds():
    light = replace(SMALL, flops=1)
    assert Limit.of(light, 0, 16 << 10, V3, RATES, 1).unit == "GB/s"
    heavy = replace(SMALL, flops=10**9)
    assert Limit.of(heavy, 0, 16 << 10, V3, RATES, 1).seconds == pytest.approx(0.01)
    assert Limit.of(heavy, 0, 16 << 10, V3, RATES, 2).seconds == pytest.approx(0.005)
    narrow = replace(matmul(8, 32, 16, dtype=BFLOAT16), flops=10**9)
    dot = replace(V3, has_bfloat16_dot=True)
    assert Limit.of(narrow, 0, 16 << 10, dot, RATES, 1).seconds == pytest.approx(0.005)


def test_bandwidth_between_sizes():
    case = replace(SMALL, flops=0, read=10**9)
    rate = 1 / Limit.of(case, 0, 32 << 10, V3, RATES, 1).seconds
    assert rate == pytest.approx(60)  # half-way between 80 and 40


def result_of(**figures):
    base = Result("x", [], 200.0, 1.0, "GB/s", 90.0, None, None, None, None, [], 0.0, 0, [])
    return replace(base, **figures)


def test_missed_goals():
    case = replace(SMALL, goal=95, peer_goal=1.4)
    assert missed(case, result_of(percent=95.0, ratio=1.4), 1) == []
    assert missed(case, result_of(), 1) == ["90.0% of the ceiling, not 95%"]
    slow = missed(case, result_of(percent=96.0, ratio=1.3), 1)
    assert slow == ["1.30 times as fast as torch, not 1.4"]
    assert missed(SMALL, result_of(scaling=1.5), 2) == [
        "1.50 times as fast as one thread, not 1.85"
    ]
    assert missed(SMALL, result_of(scaling=1.5, microseconds=20.0), 2) == []


def test_values():
    rng = np.random.default_rng(0)
    assert values((4, 3), "positive", 0, rng).min() >= 0
    index = values((100,), "index", 7, rng)
    assert index.dtype == np.int32 and index.min() >= 0 and index.max() < 7


def test_least_seconds():
    samples = iter([[3.0, 2.0], [5.0]])
    assert least_seconds(lambda seconds: next(samples), 0.0, 2) == 2.0


def test_causal_attention_has_half_of_the_products():
    whole, half = (attention("", 8, 2, 4, causal=causal).flops for causal in (False, True))
    assert whole == 2 * half
