"""Tuning: what is faster in the network is kept, and used by the next compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgec import config
from mgec.compiler.api import compile_graph
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.kernels.region import Region
from mgec.compiler.kernels.select import candidates
from mgec.compiler.pipeline import run_phases
from mgec.compiler.targets import target_named
from mgec.compiler.tune import database, tuner
from mgec.compiler.tune.database import TunedKernel
from mgec.compiler.tune.network import Network, Variant
from mgec.compiler.tune.tuner import tune
from mgec.errors import CompileError, OptionError

HOST = target_named("host")
INPUT = np.random.default_rng(1).standard_normal((1, 6, 6, 16), np.float32)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "_RUN_SECONDS", 0.0)


@pytest.fixture
def network(net: GraphModule) -> Network:
    run_phases(net)
    return Network(net, HOST, 1, [INPUT])


def output(variant: Variant) -> np.ndarray[Any, Any]:
    """The result of the last run."""
    arrays: Any = variant.keep
    return arrays[-1].copy()


def conv_of(network: Network) -> tuple[str, list[str]]:
    """The text of the convolution, and the labels of its candidates."""
    kernel = next(k for k in network.kernels if "conv" in k.name)
    region = Region.of(kernel.op.body.block, kernel.constants)
    return kernel.text, [each.label for each in candidates(region, "k", HOST)]


def test_equal_kernels_are_one(network: Network) -> None:
    calls = {kernel.name: kernel.calls for kernel in network.kernels}
    assert calls["conv"] == 2
    assert len(network.kernels) == 3 or sum(calls.values()) == len(calls) + 1


def test_every_step_has_a_time_and_belongs_to_a_kernel(network: Network) -> None:
    variant = network.variant({})
    variant.run(0.0)
    assert len(variant.steps) == len(variant.bound.program.steps)
    times = variant.seconds()
    assert set(times) == {kernel.text for kernel in network.kernels}
    assert all(0 <= seconds < 1 for seconds in times.values())
    variant.forget()
    assert variant.runs == 0
    assert min(variant.best) == float("inf")


def test_variants_compute_the_same(network: Network) -> None:
    text, labels = conv_of(network)
    default = network.variant({})
    default.run(0.0)
    expected = output(default)
    largest = float(np.abs(expected).max())
    for label in labels[1:]:
        variant = network.variant({text: label})
        variant.run(0.0)
        # Two layers by F(6x6), whose error is up to 2e-5 of the largest value each.
        np.testing.assert_allclose(output(variant), expected, rtol=0, atol=5e-5 * largest)
    again = network.variant({})
    again.run(0.0)
    assert (output(again) == expected).all()


def pretend(monkeypatch: pytest.MonkeyPatch, text: str, seconds: dict[str, float]) -> list[str]:
    """Times of the kernel `text` come from a table by label; returns the labels as measured."""
    measured: list[str] = []
    real = Network.variant

    def variant(self: Network, labels: Any) -> Variant:
        made = real(self, labels)
        label = labels.get(text, "default")
        measured.append(label)

        def times() -> dict[str, float]:
            found = dict.fromkeys(made.steps, 1e-6)
            found[text] = seconds.get(label, 1.0)
            return found

        made.seconds = times  # type: ignore[method-assign]
        return made

    monkeypatch.setattr(Network, "variant", variant)
    return measured


def test_the_fastest_is_kept_and_used(
    network: Network, net: GraphModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, labels = conv_of(network)
    direct = next(label for label in labels[1:] if label.startswith("direct"))
    measured = pretend(monkeypatch, text, {"default": 0.5, direct: 0.25})
    found = list(tune(network, seconds=60, only="conv"))
    (finding,) = (each for each in found if each.default_label == labels[0])
    assert (finding.label, finding.seconds, finding.default_seconds) == (direct, 0.25, 0.5)
    assert finding.calls == 2
    assert set(labels[1:]) <= set(measured)
    assert (finding.tried, finding.offered) == (len(labels), len(labels))
    assert database.find(text, HOST) == TunedKernel(direct, 0.25, labels[0], 0.5, 1)

    network._forget_plan()
    used = compile_graph(net, since="kernels")
    assert direct in {kernel.label for kernel in used.kernels}
    network._forget_plan()
    with config.override(tune=False):
        without = compile_graph(net, since="kernels")
    assert direct not in {kernel.label for kernel in without.kernels}
    network._forget_plan()
    again = compile_graph(net, since="kernels")
    assert again.kernels == used.kernels
    assert bytes(again.weights) == bytes(used.weights)


def test_what_is_hardly_faster_is_noise(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    text, labels = conv_of(network)
    database.record(text, HOST, TunedKernel(labels[1], 0.1, labels[0], 0.2, 1))
    pretend(monkeypatch, text, {"default": 0.5, labels[1]: 0.495})
    (finding,) = (f for f in tune(network, seconds=60, only="conv") if f.calls == 2)
    assert finding.label == finding.default_label
    assert database.find(text, HOST) is None, "the earlier result is outdated"


def test_less_accurate_kernels_must_be_faster_by_more(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, labels = conv_of(network)
    wide = next(label for label in labels if label.startswith("winograd F(6x6)"))
    pretend(monkeypatch, text, {"default": 0.5, wide: 0.46})
    (finding,) = (f for f in tune(network, seconds=60, only="conv") if f.calls == 2)
    assert finding.label == finding.default_label


def test_the_time_is_bounded(network: Network) -> None:
    assert list(tune(network, seconds=0)) == []


def test_a_candidate_that_does_not_compile_is_left_out(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, labels = conv_of(network)
    real = tuner.compile_kernels

    def fail(ops: Any, target: Any, choose: Any) -> Any:
        if choose(text) == labels[1]:
            raise CompileError("no")
        return real(ops, target, choose)

    monkeypatch.setattr(tuner, "compile_kernels", fail)
    measured = pretend(monkeypatch, text, {"default": 0.5, labels[1]: 0.1, labels[2]: 0.2})
    (finding,) = (f for f in tune(network, seconds=60, only="conv") if f.calls == 2)
    assert labels[1] not in measured
    assert finding.label == labels[2]
    assert finding.tried == finding.offered - 1


def test_a_name_that_no_kernel_has(network: Network) -> None:
    with pytest.raises(OptionError, match="tune: no kernel has 'softmax' in its name"):
        list(tune(network, seconds=1, only="softmax"))


def test_without_a_cache(network: Network) -> None:
    with (
        config.override(cache=False),
        pytest.raises(OptionError, match="tune: MGEC_CACHE is off, and what is tried would be"),
    ):
        list(tune(network, seconds=1))


def test_results_survive_in_the_folder_of_the_cache(folder: Path) -> None:
    database.record("a", HOST, TunedKernel("x", 1.0, "y", 2.0, 1))
    assert [path.suffix for path in folder.iterdir()] == [".json"]
