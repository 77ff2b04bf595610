"""Every option of mgec: one table, read from the environment on first use.

    from mgec import config
    if config.debug >= 1: ...
    with config.override(debug=3, backend="reference"): ...

An option is an attribute of this module. The first read takes the environment variable, or the
default, checks it and keeps it; from then on a read is a plain module attribute. `override` changes
options for a while in the whole process (all threads), and `environment` carries the changes to a
child process. No other file of mgec reads the environment.

This module is a leaf: it imports the standard library and `mgec.errors` only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mgec.errors import OptionError

if TYPE_CHECKING:
    import logging

    debug: int
    dump: Path | None
    backend: Literal["native", "reference"]
    target: str
    num_threads: int
    cache: bool
    cache_dir: Path
    tune: bool
    log: str
    default_device: str
    disable_trace: bool
    peers_root: Path | None

__all__ = ["OPTIONS", "Option", "Row", "environment", "get_logger", "override", "reset", "table"]


@dataclass(frozen=True)
class Option:
    """One option: an environment variable, an attribute of this module, and an override.

    Attributes:
        name: The attribute: ``num_threads``.
        variable: The environment variable: ``MGEC_NUM_THREADS``.
        expects: The values allowed, in words.
        default: Makes the default value.
        parse: Makes a value from text.
        sentence: What the option does.
    """

    name: str
    variable: str
    expects: str
    default: Callable[[], object]
    parse: Callable[[str], object]
    sentence: str


class Row(NamedTuple):
    """One line of `table`: what ``mgec env`` prints about an option."""

    variable: str
    value: str
    default: str
    sentence: str


# Parsers turn text into a value, and raise ValueError or LookupError when it is not allowed.


def _boolean(text: str) -> bool:
    words = {"on": True, "true": True, "yes": True, "1": True}
    words |= {"off": False, "false": False, "no": False, "0": False}
    return words[text.lower()]


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        return names[names.index(text.lower())]

    return parse


def _level(text: str) -> int:
    return range(6).index(int(text))


def _text(text: str) -> str:
    if not text:
        raise ValueError("empty")
    return text


def _folder(text: str) -> Path:
    return Path(_text(text)).expanduser().absolute()


def _available_processors() -> int:
    """Processors this process may run on: a container or taskset may allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _thread_count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError("negative")
    return count or _available_processors()


def _user_cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("mgec", appauthor=False)


OPTIONS: dict[str, Option] = {
    option.name: option
    for option in (
        Option(
            "debug", "MGEC_DEBUG", "a level from 0 to 5", lambda: 0, _level,
            "How much to tell: 1 phases and times, 2 passes, 3 kernels and tiles, 4 IR after each "
            "phase, 5 IR after each pass.",
        ),
        Option(
            "dump", "MGEC_DUMP", "a folder", lambda: None, _folder,
            "Write numbered files for every phase, and the command that re-runs them, here.",
        ),
        Option(
            "backend", "MGEC_BACKEND", "native or reference", lambda: "native",
            _one_of("native", "reference"),
            "Run compiled kernels, or the NumPy reference rules: is the compiler at fault?",
        ),
        Option(
            "target", "MGEC_TARGET", "a target such as host or x86-64-v3", lambda: "host", _text,
            "Compile for this processor.",
        ),
        Option(
            "num_threads", "MGEC_NUM_THREADS", "a number, 0 for all processors",
            _available_processors, _thread_count,
            "Threads that one run may use.",
        ),
        Option(
            "cache", "MGEC_CACHE", "on or off", lambda: True, _boolean,
            "Keep compiled kernels on disk.",
        ),
        Option(
            "cache_dir", "MGEC_CACHE_DIR", "a folder", _user_cache_folder, _folder,
            "Where compiled kernels are kept.",
        ),
        Option(
            "tune", "MGEC_TUNE", "on or off", lambda: True, _boolean,
            "Use the kernels that mgec tune found to be the fastest.",
        ),
        Option(
            "log", "MGEC_LOG", "debug, info, warning or error", lambda: "warning",
            _one_of("debug", "info", "warning", "error"),
            "The least severe message to print to the standard error stream.",
        ),
        Option(
            "default_device", "MGE_DEFAULT_DEVICE", "a device such as xpux, cpux, cpu0, gpu0",
            lambda: "xpux", _text,
            "Where tensors live unless told otherwise.",
        ),
        Option(
            "disable_trace", "MGE_DISABLE_TRACE", "on or off", lambda: False, _boolean,
            "Run functions under jit.trace eagerly, one op at a time.",
        ),
        Option(
            "peers_root", "MGEC_PEERS_ROOT", "a folder", lambda: None, _folder,
            "Other frameworks and models that benchmarks/nets.py measures mgec beside.",
        ),
    )
}  # fmt: skip


def _check(option: Option, value: object, source: str) -> Any:
    """Turns text, or a value of the option's type, into a checked value.

    A value goes the way of its own text, so there is one set of rules for both.
    """
    if value is None and option.default() is None:
        return None
    text = value.strip() if isinstance(value, str) else str(value)
    if isinstance(value, bool) and option.parse is not _boolean:
        text = repr(value)  # True is not debug level 1
    try:
        return option.parse(text)
    except (ValueError, LookupError):
        raise OptionError(
            f"{source}: {value!r} is not {option.expects}",
            values=[("default", _show(option.default())), ("meaning", option.sentence)],
            fix=f"set {option.variable} to {option.expects}, or leave it unset",
        ) from None


def _known(name: str) -> Option:
    if name not in OPTIONS:
        raise OptionError(
            f"config: there is no option {name!r}", fix=f"use one of {', '.join(OPTIONS)}"
        )
    return OPTIONS[name]


def __getattr__(name: str) -> Any:
    """Runs on the first read of an option only; the value then is a module attribute."""
    option = OPTIONS.get(name)
    if option is None:
        raise AttributeError(f"module 'mgec.config' has no attribute {name!r}")
    text = os.environ.get(option.variable, "").strip()
    value = _check(option, text, option.variable) if text else option.default()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *OPTIONS})


@contextlib.contextmanager
def override(**values: object) -> Iterator[None]:
    """Changes options inside a ``with`` block, in all threads of this process.

    Args:
        **values: Option name to value; text is read like the environment variable.

    Raises:
        OptionError: For an unknown name or a value that is not allowed; nothing is changed then.

    Example:
        >>> from mgec import config
        >>> with config.override(debug=2):
        ...     config.debug
        2
    """
    checked = {
        name: _check(_known(name), value, f"config.{name}") for name, value in values.items()
    }
    module = globals()
    before = {name: module[name] for name in checked if name in module}
    module.update(checked)
    try:
        yield
    finally:
        reset(*checked)
        module.update(before)


def reset(*names: str) -> None:
    """Forgets values, so that the next read looks at the environment again.

    Args:
        *names: Options; none means all.
    """
    for name in names or OPTIONS:
        globals().pop(_known(name).name, None)


def environment(**values: object) -> dict[str, str]:
    """The environment for a child process: this one's, with the options as they stand now.

    Args:
        **values: Option name to value, for the child only.

    Returns:
        A new dictionary for ``subprocess.run(..., env=...)``.
    """
    with override(**values):
        environ = dict(os.environ)
        for name, option in OPTIONS.items():
            if name in globals():
                value = globals()[name]
                environ[option.variable] = "" if value is None else _show(value)
    return environ


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "unset" if value is None else str(value)


def table() -> list[Row]:
    """What every option is now, in the order of `OPTIONS`.

    Raises:
        OptionError: When a variable of the environment holds a value that is not allowed.
    """
    return [
        Row(
            option.variable,
            _show(globals()[name] if name in globals() else __getattr__(name)),
            _show(option.default()),
            option.sentence,
        )
        for name, option in OPTIONS.items()
    ]


_level_set = 0
"""The level that `get_logger` gave the logger last; 0 before."""


def get_logger(name: str | None = None) -> logging.Logger:
    """The logger of mgec, or a child of it.

    Applies ``MGEC_LOG`` (and ``MGEC_DEBUG``, which lets informative messages through) as they stand
    now, and prints to the standard error stream unless the program configured logging itself.

    Args:
        name: Suffix for a child logger: ``"compiler"`` gives ``mgec.compiler``.
    """
    import logging

    global _level_set
    root = logging.getLogger("mgec")
    if root.level in (logging.NOTSET, _level_set):  # else the program has chosen one
        level = __getattr__("log") if "log" not in globals() else globals()["log"]
        wanted = logging.getLevelName(str(level).upper())
        verbose = globals()["debug"] if "debug" in globals() else __getattr__("debug")
        _level_set = min(wanted, logging.INFO) if verbose >= 1 else wanted
        root.setLevel(_level_set)
        if _level_set < logging.WARNING and not (root.handlers or logging.getLogger().handlers):
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
            root.addHandler(handler)
    return root.getChild(name) if name else root
