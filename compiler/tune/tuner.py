"""Tuning a network: its kernels' candidates are tried in it, and the fastest are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import inf

from mgec import config
from mgec.compiler.assemble import compile_kernels
from mgec.compiler.kernels.candidate import Candidate
from mgec.compiler.kernels.region import Region
from mgec.compiler.kernels.select import candidates
from mgec.compiler.tune import database
from mgec.compiler.tune.database import TunedKernel
from mgec.compiler.tune.network import Network, NetworkKernel, Variant
from mgec.errors import CompileError, OptionError

_TOGETHER = 8
"""Kernels that are varied in the same runs: enough for the compiler's processes."""

_RUN_SECONDS = 0.15
"""How long a set of candidates runs."""

_FINAL_ROUNDS = 4
"""How often the defaults and the best are compared in turn, so that both see the same noise."""

_LEAST_GAIN, _LEAST_SECONDS = 0.98, 1e-7
"""A candidate must take at most this part of the default's time, and save so much per call:
less is noise, and the grain of the clock."""


@dataclass
class Finding:
    """What was found for one kernel.

    Attributes:
        name: of the kernel.
        calls: steps that call it.
        default_label: of what is chosen without a measurement.
        default_seconds: its time in one run of the network, all calls together.
        label: of the fastest; the default's if no other is clearly faster.
        seconds: its time.
        tried: how many candidates were timed, the default among them.
        offered: how many there are.
    """

    name: str
    calls: int
    default_label: str
    default_seconds: float
    label: str
    seconds: float
    tried: int
    offered: int


@dataclass
class _Trial:
    """The state of one kernel."""

    kernel: NetworkKernel
    finding: Finding
    candidates: list[Candidate]
    best: Candidate
    best_score: float


def tune(
    network: Network,
    *,
    seconds: float,
    only: str = "",
    observe: Callable[[str], None] = lambda name: None,
) -> Iterator[Finding]:
    """Tries the candidates of a network's kernels, the most expensive kernels first.

    Results are written to the database when they are yielded.

    Args:
        network: what to tune.
        seconds: for all of it; a set of candidates that has begun is finished.
        only: a part of the names of kernels to tune.
        observe: called with the name of the kernel whose candidates are tried.

    Yields:
        One finding for each kernel that leaves a choice and was reached in time.

    Raises:
        OptionError: if the cache is off, or no kernel has such a name.
    """
    if not config.cache:
        raise OptionError(
            "tune: MGEC_CACHE is off, and what is tried would be compiled again and again",
            fix="set MGEC_CACHE to on",
        )
    names = {kernel.name for kernel in network.kernels}
    if not any(only in name for name in names):
        raise OptionError(
            f"tune: no kernel has {only!r} in its name",
            fix=f"use a part of one of {', '.join(sorted(names))}",
        )
    end = time.perf_counter() + seconds
    observe("the defaults")
    defaults = network.variant({})
    defaults.run(_RUN_SECONDS)
    cost = defaults.seconds()
    wanted = [kernel for kernel in network.kernels if only in kernel.name]
    wanted.sort(key=lambda kernel: -cost[kernel.text])
    remaining = iter(wanted)
    while trials := list(islice(_trials(network, remaining, end), _TOGETHER)):
        yield from _tune_group(network, trials, defaults, end, observe)


def _trials(network: Network, kernels: Iterator[NetworkKernel], end: float) -> Iterator[_Trial]:
    """What there is to try, for kernels that leave a choice, while there is time."""
    while time.perf_counter() < end and (kernel := next(kernels, None)) is not None:
        region = Region.of(kernel.op.body.block, kernel.constants)
        offered = candidates(region, "candidate", network.target)
        if len(offered) > 1:
            yield _trial(kernel, offered)


def _trial(kernel: NetworkKernel, offered: list[Candidate]) -> _Trial:
    label = offered[0].label
    finding = Finding(kernel.name, kernel.calls, label, 0.0, label, 0.0, 1, len(offered))
    return _Trial(kernel, finding, offered[1:], offered[0], inf)


def _tune_group(
    network: Network,
    trials: Sequence[_Trial],
    defaults: Variant,
    end: float,
    observe: Callable[[str], None],
) -> Iterator[Finding]:
    """Tries one candidate after the other, of all kernels of the group in the same runs."""
    defaults.run(_RUN_SECONDS)
    times = defaults.seconds()
    for trial in trials:
        trial.best_score = times[trial.kernel.text] * trial.best.price
    for number in range(max(len(trial.candidates) for trial in trials)):
        if time.perf_counter() >= end:
            break
        tried = [trial for trial in trials if number < len(trial.candidates)]
        observe(tried[0].kernel.name)
        _try(network, tried, number)
    _confirm(network, trials, defaults)
    for trial in trials:
        found, text = trial.finding, trial.kernel.text
        if found.label == found.default_label:
            database.forget(text, network.target)
        else:
            result = TunedKernel(
                found.label,
                found.seconds,
                found.default_label,
                found.default_seconds,
                network.threads,
            )
            database.record(text, network.target, result)
        yield found


def _try(network: Network, trials: Sequence[_Trial], number: int) -> None:
    """Times the network with candidate `number` of each kernel."""
    chosen = {trial.kernel.text: trial.candidates[number] for trial in trials}
    labels = {text: candidate.label for text, candidate in chosen.items()}
    for text in _not_compiled(network, trials, labels):
        del labels[text]
    if not labels:
        return
    variant = network.variant(labels)
    variant.run(_RUN_SECONDS)
    times = variant.seconds()
    for trial in trials:
        text = trial.kernel.text
        if text not in labels:
            continue
        trial.finding.tried += 1
        score = times[text] * chosen[text].price
        if score < trial.best_score:
            trial.best, trial.best_score = chosen[text], score


def _not_compiled(
    network: Network, trials: Sequence[_Trial], labels: dict[str, str]
) -> Iterator[str]:
    """Compiles candidates, and names the kernels whose candidate a template cannot make."""
    ops = [trial.kernel.op for trial in trials]
    with suppress(CompileError):  # then each is compiled alone, to know which one it was
        compile_kernels(ops, network.target, labels.get)
    for trial in trials:
        try:
            _, made, _ = compile_kernels([trial.kernel.op], network.target, labels.get)
        except CompileError:
            yield trial.kernel.text
            continue
        (kernel,) = made.values()
        if kernel.label != labels[trial.kernel.text]:
            yield trial.kernel.text


def _confirm(network: Network, trials: Sequence[_Trial], defaults: Variant) -> None:
    """Compares the best with the defaults, in turn, and keeps what is clearly faster."""
    changed = [trial for trial in trials if trial.best.label != trial.finding.default_label]
    others = network.variant({trial.kernel.text: trial.best.label for trial in changed})
    before, after = _in_turn(defaults, others)
    for trial in trials:
        found, text = trial.finding, trial.kernel.text
        found.default_seconds = found.seconds = before[text]
        noise = max(before[text] * (1 - _LEAST_GAIN), _LEAST_SECONDS * found.calls)
        if trial in changed and after[text] * trial.best.price < before[text] - noise:
            found.label, found.seconds = trial.best.label, after[text]


def _in_turn(one: Variant, other: Variant) -> tuple[dict[str, float], dict[str, float]]:
    """Times of both, from the same stretch of time."""
    for variant in (one, other):
        variant.forget()
    for _ in range(_FINAL_ROUNDS):
        one.run(_RUN_SECONDS)
        other.run(_RUN_SECONDS)
    return one.seconds(), other.seconds()
