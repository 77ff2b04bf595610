"""Candidates: which kernels there are for a region, under which names, and choosing one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xdsl.ir import Block

from mgec.compiler.assemble import constant_operands
from mgec.compiler.codegen.llvm_backend import compile_kernel
from mgec.compiler.kernels.attention_plan import AttentionTiles
from mgec.compiler.kernels.candidate import Candidate
from mgec.compiler.kernels.contraction import ContractionTiles
from mgec.compiler.kernels.conv_tiles import DirectConvTiles
from mgec.compiler.kernels.depthwise import DepthwiseTiles
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.region import Region
from mgec.compiler.kernels.select import candidates, select_kernel
from mgec.compiler.kernels.source import KernelSource, Tiles, named
from mgec.compiler.kernels.winograd_tiles import WinogradTiles
from mgec.compiler.pipeline import run_phases
from mgec.compiler.targets.target import TARGETS
from mgec.dialects.mge.constant import WeightOp
from mgec.dialects.mge.kernel import KernelOp

V3, V4 = TARGETS["x86-64-v3"], TARGETS["x86-64-v4"]


def weight(b: Any, shape: tuple[int, ...]) -> Any:
    """A weight, whose values do not matter here."""
    return b.emit(WeightOp, [], {"key": "w", "shape": shape, "dtype": np.dtype("float32")})[0]


def conv(shape: tuple[int, ...], **attrs: Any) -> Any:
    return lambda b, x: b.relu(b.conv(x, weight(b, shape), channels_last=True, **attrs))


REGIONS: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "elementwise": (lambda b, x: b.relu(x), ((4, 5),), "elementwise"),
    "matmul": (lambda b, x: b.matmul(x, weight(b, (64, 96))), ((24, 64),), "contraction mr="),
    "conv 3 x 3": (conv((32, 32, 3, 3), padding=(1, 1, 1, 1)), ((1, 28, 28, 32),), "winograd F("),
    "conv, stride 2": (
        conv((32, 32, 3, 3), stride=(2, 2)), ((1, 28, 28, 32),), "direct conv mr=",
    ),
    "conv 1 x 1": (conv((32, 48, 1, 1)), ((1, 14, 14, 48),), "contraction mr="),
    "conv 1 x 1, shallow": (
        conv((96, 16, 1, 1)), ((1, 28, 28, 16),), "direct conv mr=7 nv=1 ",
    ),
    "conv, first layer": (
        conv((32, 3, 3, 3), stride=(2, 2)), ((1, 33, 33, 3),), "direct conv mr=8 nv=1 ",
    ),
    "depthwise": (
        conv((32, 1, 3, 3), groups=32), ((1, 14, 14, 32),), "depthwise conv mr=",
    ),
    "attention": (
        lambda b, q, k, v: b.attention(q, k, v, scale=0.125),
        ((1, 32, 2, 64), (1, 32, 2, 64), (1, 32, 2, 64)),
        "attention mr=",
    ),
}  # fmt: skip


@pytest.fixture(params=REGIONS)
def region(request: pytest.FixtureRequest, build: Any) -> tuple[Block, tuple[int, ...], str]:
    """The block of the kernel, its constants, and how the default's label begins."""
    body, shapes, label = REGIONS[request.param]
    graph = build(body, *shapes)
    for op in graph.main.body.block.ops:
        if isinstance(op, WeightOp):
            graph.weights["w"] = np.zeros(op.result_specs[0].shape, np.float32)
    run_phases(graph)
    (kernel,) = (op for op in graph.main.body.block.ops if isinstance(op, KernelOp))
    return kernel.body.block, constant_operands(kernel), label


def listed(block: Block, constants: tuple[int, ...], target: Any = V4) -> list[Candidate]:
    return candidates(Region.of(block, constants), "k", target)


def test_the_default_comes_first(region: Any) -> None:
    block, constants, label = region
    offered = listed(block, constants)
    chosen = select_kernel(block, "k", V4, {}, constants)
    assert offered[0].label == chosen.label
    assert chosen.label.startswith(label)


def test_labels_are_stable_and_tell_candidates_apart(region: Any) -> None:
    block, constants, _ = region
    labels = [candidate.label for candidate in listed(block, constants)]
    assert len(set(labels)) == len(labels)
    assert labels == [candidate.label for candidate in listed(block, constants)]


def test_estimates_come_first_in_order(region: Any) -> None:
    _, *others = listed(*region[:2])
    seconds = [candidate.seconds or float("inf") for candidate in others]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("target", [V3, V4], ids=["v3", "v4"])
def test_each_candidate_is_made_under_its_label(region: Any, target: Any) -> None:
    block, constants, _ = region
    texts: dict[str, str] = {}
    for candidate in listed(block, constants, target):
        try:
            source = candidate.make()
        except NotApplicable:
            continue
        assert source.label == candidate.label
        chosen = select_kernel(block, "k", target, {}, constants, candidate.label)
        assert (chosen.text, chosen.units) == (source.text, source.units)
        texts[candidate.label] = "".join(stage.text for stage in source.stages)
    several = len(listed(block, constants, target)) > 1
    assert len(set(texts.values())) > several, "every candidate is the same kernel"


def test_a_label_that_is_not_offered_gives_the_default(region: Any) -> None:
    block, constants, _ = region
    chosen = select_kernel(block, "k", V4, {}, constants, "magic mr=7")
    default = select_kernel(block, "k", V4, {}, constants)
    assert chosen.text == default.text
    assert chosen.notes[0] == (
        "magic mr=7 was measured to be the fastest, but is not offered any more"
    )
    assert chosen.notes[1:] == default.notes


def _kernel(build: Any, name: str) -> KernelSource:
    body, shapes, _ = REGIONS[name]
    graph = build(body, *shapes)
    graph.weights["w"] = np.zeros((32, 32, 3, 3), np.float32)
    run_phases(graph)
    (op,) = (op for op in graph.main.body.block.ops if isinstance(op, KernelOp))
    return select_kernel(op.body.block, "k", V4, {}, constant_operands(op))


def test_notes_say_why(build: Any) -> None:
    notes = _kernel(build, "conv 3 x 3").notes
    assert notes[0] == "not elementwise: not every op is elementwise"
    estimates = [note for note in notes if "estimated" in note]
    assert [note.split(":")[0] for note in estimates[:2]] == ["winograd F(4x4)", "direct conv"]


def test_a_compiled_kernel_remembers(build: Any) -> None:
    source = _kernel(build, "conv 3 x 3")
    made = compile_kernel(source, V4)
    assert (made.label, made.notes) == (source.label, source.notes)
    assert made.performed_flops == source.performed_flops
    assert [stage.touched for stage in made.stages] == [stage.touched for stage in source.stages]


def test_stages_have_their_own_flops_and_bytes(build: Any) -> None:
    body = conv((64, 64, 3, 3), padding=(1, 1, 1, 1))
    graph = build(lambda b, x, r: b.add(body(b, x), r), (1, 7, 7, 64), (1, 7, 7, 64))
    graph.weights["w"] = np.zeros((64, 64, 3, 3), np.float32)
    run_phases(graph)
    (op,) = (op for op in graph.main.body.block.ops if isinstance(op, KernelOp))
    source = select_kernel(op.body.block, "k", V4, {}, constant_operands(op))
    transform, products = source.stages
    assert (transform.flops, products.flops) == (0, 2 * 49 * 64 * 64 * 9)
    image, filters, residual, out, workspace, scratch = range(6)
    constants = constant_operands(op)
    assert len(constants) == 1
    assert constants[0] in (filters, residual)  # whichever comes first in the region
    assert set(transform.touched or ()) == {image, workspace, scratch}
    assert set(products.touched or ()) == {filters, residual, out, workspace, scratch}


TILES: dict[str, Tiles] = {
    "contraction": ContractionTiles(8, 2),
    "direct conv": DirectConvTiles(8, 2, 7),
    "depthwise conv": DepthwiseTiles(8, 7, 4),
    "winograd": WinogradTiles(7, 2, 4, 28),
    "attention": AttentionTiles(8, 2, 2, 512),
}


@pytest.mark.parametrize("name", TILES)
def test_alternatives_are_other_tiles(name: str) -> None:
    labels = [other.label for other in TILES[name].alternatives(V4)]
    assert len(set(labels)) >= 4
    assert set(labels) - {TILES[name].label}


def test_named() -> None:
    assert named(mr=8, nv=0, ahead=True, by_panels=False) == "mr=8 nv=0 ahead"
