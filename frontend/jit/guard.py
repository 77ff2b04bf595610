"""What the Python of a traced function read, remembered and compared at the next call.

Followed are the function's closure and globals, those of the Python functions and methods it can
reach through them, plain attributes of objects, classes and modules, and the items of lists and
dicts, two levels deep. Modules of layers count their own changes (`state_epoch`). Not followed:
values behind C code, arrays above `SMALL_ARRAY_BYTES`, which count by identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from mgec.core import dispatch

PLAIN = (bool, int, float, complex, str, bytes, type(None))
SMALL_ARRAY_BYTES = 4096
_PLAIN_SET = frozenset(PLAIN)
_MAX_ITEMS = 1000
_UNASSIGNED = object()
_ARRAYS = (np.ndarray, np.generic)
_opaque_kinds: dict[type, bool] = {}


def identity(value: Any, depth: int = 2) -> Any:
    """What must not change about a Python value, as something to compare.

    Args:
        value: any value.
        depth: how many levels of attributes and items are looked into.
    """
    kind = value.__class__
    if _opaque_kinds.get(kind):  # layers, tensors, functions: the usual case
        return id(value)
    if kind is float:
        return repr(value)  # 0.0 and -0.0 are equal; NaN is not
    if kind in _PLAIN_SET or isinstance(value, PLAIN):
        return kind, value
    if isinstance(value, _ARRAYS):
        small = value.nbytes <= SMALL_ARRAY_BYTES
        return kind, value.shape, value.tobytes() if small else id(value)
    if not depth or _is_opaque(kind):
        return id(value)
    if kind is list or kind is tuple:
        if len(value) > _MAX_ITEMS:
            return id(value), len(value)
        return kind, tuple([identity(v, depth - 1) for v in value])
    attributes = value if kind is dict else getattr(value, "__dict__", None)
    if attributes is None or len(attributes) > _MAX_ITEMS:
        return id(value)
    items = [(k, identity(v, depth - 1)) for k, v in attributes.items()]
    return (kind, tuple(items)) if kind is dict else (id(value), tuple(items))


def _is_opaque(kind: type) -> bool:
    """Whether values of a class are compared by identity alone."""
    known = _opaque_kinds.get(kind)
    if known is None:
        known = kind in (FunctionType, MethodType, ModuleType) or issubclass(kind, type)
        known = known or any(_is_ours(base) for base in type.mro(kind))
        _opaque_kinds[kind] = known
    return known


def _is_ours(item: Any) -> bool:
    return str(getattr(item, "__module__", "")).split(".")[0] == "mgec"


class Guard:
    """The Python values that a function may have read.

    Args:
        function: the traced function.
        arguments: its arguments that are neither tensors nor plain values. They are held, so
            that their identity stays theirs.
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any] = ()) -> None:
        self._cells: list[Any] = []
        self._reads: list[tuple[dict[str, Any], str]] = []
        self._arguments = list(arguments)
        self._held: list[Any] = []
        self._values: list[Any] = []
        self._epoch = -1
        names: set[str] = set()
        functions: dict[int, FunctionType] = {}
        seen: dict[int, Any] = {}
        pending: list[Any] = [function, *arguments]
        while pending:
            item = pending.pop()
            if id(item) in seen:
                continue
            seen[id(item)] = item
            if isinstance(item, FunctionType):
                functions[id(item)] = item
                names.update(code_names(item.__code__))
                pending += self._follow(item)
            else:
                pending += _functions_of(item)
        for item in seen.values():  # SETTINGS.scale, settings.SCALE
            if isinstance(item, ModuleType | type) and not _is_ours_or_numpy(item):
                space: dict[str, Any] = vars(item)  # type: ignore[assignment]
                found = [n for n in names if isinstance(space.get(n, _UNASSIGNED), PLAIN)]
                self._reads += [(space, n) for n in sorted(found)]
        self._depths = [2] * len(self.objects())
        self._values = self._read()

    def _follow(self, function: FunctionType) -> Iterator[Any]:
        """Notes the closure and the globals of a function, and yields what they refer to."""
        for cell in function.__closure__ or ():
            self._cells.append(cell)
            try:
                yield cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        space = function.__globals__
        for name in sorted(code_names(function.__code__)):
            if name in space:
                self._reads.append((space, name))
                yield space[name]

    def objects(self) -> list[Any]:
        """What the closures and global names refer to, and the arguments."""
        values = self._contents()
        if self._reads:
            values += [space.get(name, _UNASSIGNED) for space, name in self._reads]
        return values + self._arguments if self._arguments else values

    def snapshot(self) -> None:
        """Remembers the values as they are now, after the function ran.

        A list or an object that the function changed itself (`history.append(...)`) is where it
        writes to: from now on it counts by identity.
        """
        before, after = self._values, self._read()
        self._held = self.objects()
        for i, value in enumerate(self._held):
            if before[i] != after[i] and not isinstance(value, PLAIN):
                self._depths[i] = 0
        self._values = self._read()
        self._epoch = dispatch.state.module_epoch

    def holds(self) -> bool:
        """Whether they are still the same."""
        if self._epoch != dispatch.state.module_epoch:
            return False
        return self._values == self._read()

    def _contents(self) -> list[Any]:
        try:
            return [cell.cell_contents for cell in self._cells]
        except ValueError:  # one is not assigned yet
            return list(map(_content, self._cells))

    def _read(self) -> list[Any]:
        return list(map(identity, self.objects(), self._depths))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _UNASSIGNED


def code_names(code: CodeType) -> set[str]:
    """Names that a function's code, and the functions defined in it, look up."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= code_names(constant)
    return names


def _functions_of(item: Any) -> Iterable[Any]:
    """Python functions that a call of `item`, or of its methods, may run; not mgec's own."""
    if isinstance(item, MethodType):
        return [item.__func__, item.__self__]
    wrapped = getattr(item, "__wrapped__", None)
    if isinstance(wrapped, FunctionType):
        return [wrapped]
    if isinstance(item, ModuleType | type) or not hasattr(item, "__dict__"):
        return []
    members: list[Any] = [item]
    submodules: Any = getattr(item, "modules", None)  # a layer brings its layers along
    if callable(submodules) and _is_opaque(item.__class__):
        members = list(submodules())  # type: ignore[arg-type]
    classes = {base for member in members for base in type(member).__mro__}
    return [
        value
        for base in classes
        if not _is_ours(base) and base.__module__ != "builtins"
        for value in vars(base).values()
        if isinstance(value, FunctionType)
    ]


def _is_ours_or_numpy(item: Any) -> bool:
    name = item.__name__ if isinstance(item, ModuleType) else str(item.__module__)
    return name.split(".")[0] in ("mgec", "numpy", "builtins")
