"""The kernels that may serve a region: what templates offer, and one kernel to choose."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.source import KernelSource, Tiles
from mgec.compiler.targets import Target


@dataclass(frozen=True)
class Candidate:
    """One kernel for a region.

    Attributes:
        label: the template and its numbers: stable text, different for each candidate.
        seconds: how long it should take, if that can be said before it is measured.
        make: writes it; raises `NotApplicable` if the template cannot with these numbers.
        price: what its time is to be multiplied by in comparisons, for results that are
            less accurate.
    """

    label: str
    seconds: float | None
    make: Callable[[], KernelSource]
    price: float = 1.0


@dataclass(frozen=True)
class Offer:
    """What a template offers for a region.

    Attributes:
        name: of the template, as far as it is known before anything is made.
        make: writes the kernel with the given numbers, or with those the template would take;
            raises `NotApplicable` if the template cannot serve the region.
        seconds: how long it should take, if that can be said.
        price: see `Candidate`.
        refit: adapts alternative numbers to the region, where they have to be.
    """

    name: str
    make: Callable[[Tiles | None], KernelSource]
    seconds: float | None = None
    price: float = 1.0
    refit: Callable[[Tiles], Tiles] = lambda tiles: tiles

    def default(self) -> KernelSource:
        """The kernel with the numbers that the template takes.

        Raises:
            NotApplicable: if the template cannot serve the region.
        """
        return self.make(None)

    def candidates(self, target: Target, *, alternatives: bool = True) -> Iterator[Candidate]:
        """The default, then others with other numbers; nothing if the template cannot.

        Args:
            target: what the kernel is for.
            alternatives: whether there shall be others.
        """
        try:
            source = self.default()
        except NotApplicable:
            return
        yield Candidate(source.label, self.seconds, lambda: source, self.price)
        if source.tiles is None or not alternatives:
            return
        for tiles in source.tiles.alternatives(target):
            fitted = self.refit(tiles)
            label = f"{source.template} {fitted.label}"
            yield Candidate(label, None, lambda tiles=fitted: self.make(tiles), self.price)


def described(offers: Sequence[Offer]) -> list[str]:
    """The estimates of several offers, for notes."""
    return [
        f"{offer.name}: estimated {offer.seconds * 1e6:.0f} us"
        for offer in offers
        if offer.seconds is not None
    ]


def with_touched(source: KernelSource) -> KernelSource:
    """A kernel of several stages, each with the entries of the table that it uses."""
    if source.then is None and source.touched is None:
        return source
    # Functions of a kernel name their buffers alike, and pass all of them on.
    lines = (line for line in source.text.splitlines() if "func." not in line)
    used = {int(i) for line in lines for i in re.findall(r"%p(\d+)\b", line)}
    order = source.order or tuple(range(source.num_buffers))
    touched = tuple(sorted(order[i] for i in used))
    then = source.then and with_touched(replace(source.then, touched=()))
    return replace(source, touched=touched, then=then)
