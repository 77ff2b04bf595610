"""Random graphs of mge ops, and what comparing two runs of one needs.

A graph is made so that it can be compiled and compared: no value is infinite or NaN unless the
inputs are, every value has a bound, and a running error analysis says how far two correct ways of
computing it may differ. Ops that jump (comparisons, floor, casts to integers) are applied only to
values that every correct way computes exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.builder import Builder, InsertPoint
from xdsl.dialects import func
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, ModuleOp, StringAttr
from xdsl.ir import Block, Region, SSAValue

from mgec.compiler.interpret import run_module
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.registry import all_ops
from mgec.dialects.mge.spec import (
    BFLOAT16,
    BOOL,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT8,
    INT32,
    INT64,
    UINT8,
    DType,
    TensorSpec,
    from_type,
    is_float,
    is_integer,
    to_type,
)

Array = np.ndarray[Any, Any]

INPUT_DTYPES = (FLOAT32, FLOAT32, FLOAT32, FLOAT64, FLOAT16, BFLOAT16, INT32, INT8, UINT8, BOOL)
CAST_DTYPES = (*INPUT_DTYPES, INT64)
EPSILON = {FLOAT16: 2.0**-10, BFLOAT16: 2.0**-7, FLOAT32: 2.0**-23, FLOAT64: 2.0**-52}
MAX_BOUND = 200.0
MAX_ERROR = 0.25
MAX_SIZE = 600


@dataclass(frozen=True)
class Value:
    """A value of the graph being made.

    Attributes:
        ssa: the value itself.
        bound: no element is larger in magnitude (integers that wrapped: the largest there is).
        error: two correct ways to compute an element differ by no more than this.
    """

    ssa: SSAValue
    bound: float
    error: float

    @property
    def spec(self) -> TensorSpec:
        return from_type(self.ssa.type)


@dataclass(frozen=True)
class Graph:
    """A random graph.

    Attributes:
        module: holds one function, "main".
        inputs: specs of its arguments.
        tolerances: for each result, by how much a right answer may differ from another;
            0.0 where all bits must agree.
    """

    module: ModuleOp
    inputs: tuple[TensorSpec, ...]
    tolerances: tuple[float, ...]


def random_graph(rng: np.random.Generator, n_ops: int | None = None) -> Graph:
    """Makes a function of random ops on random shapes and dtypes.

    Args:
        rng: decides everything.
        n_ops: how many ops to make, roughly (some steps make two or three); 3 to 20 by default.
    """
    n_ops = int(rng.integers(3, 21)) if n_ops is None else n_ops
    specs = tuple(_input_spec(rng) for _ in range(int(rng.integers(1, 5))))
    block = Block(arg_types=[to_type(s) for s in specs])
    maker = _Maker(rng, block)
    maker.pool = [
        Value(a, _input_bound(s.dtype), 0.0) for a, s in zip(block.args, specs, strict=True)
    ]
    for i in range(n_ops):
        maker.step(i)
    results = maker.results()
    function = func.FuncOp(
        "main", ([a.type for a in block.args], [v.ssa.type for v in results]), Region(block)
    )
    block.add_op(func.ReturnOp(*(v.ssa for v in results)))
    function.location = block.last_op.location = maker.location(0)  # type: ignore[union-attr]
    module = ModuleOp([function])
    module.verify()
    return Graph(module, specs, tuple(v.error for v in results))


def random_inputs(
    rng: np.random.Generator, specs: Sequence[TensorSpec], *, specials: bool = False
) -> list[Array]:
    """Inputs for a graph: quarters between -2 and 2, small integers, booleans.

    Args:
        rng: decides the values.
        specs: `Graph.inputs`.
        specials: sprinkle NaN, infinities and -0.0 over floats, extremes over integers; then
            the graph's tolerances mean nothing.
    """
    return [_input(rng, spec, specials) for spec in specs]


def interpret(module: ModuleOp, inputs: Sequence[Array]) -> list[Array]:
    """Runs "main" with the reference rules."""
    return run_module(module, inputs, function="main")


def assert_same_bits(actual: Sequence[Array], expected: Sequence[Array]) -> None:
    """Equal bit by bit, except that every NaN is like any other."""
    assert len(actual) == len(expected)
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert a.dtype == e.dtype and a.shape == e.shape, f"result {i}: {a.dtype}{a.shape}"
        a, e = np.ascontiguousarray(a), np.ascontiguousarray(e)
        if is_float(e.dtype):
            a, e = np.where(a != a, np.nan, a), np.where(e != e, np.nan, e)
            a, e = a.astype(np.float64), e.astype(np.float64)  # exact for every float dtype
        assert a.tobytes() == e.tobytes(), f"result {i}:\n{a}\nis not\n{e}"


def assert_within(
    actual: Sequence[Array], expected: Sequence[Array], tolerances: Sequence[float]
) -> None:
    """Equal within `Graph.tolerances`."""
    for i, (a, e, tolerance) in enumerate(zip(actual, expected, tolerances, strict=True)):
        assert a.dtype == e.dtype and a.shape == e.shape, f"result {i}: {a.dtype}{a.shape}"
        if not is_float(e.dtype) or tolerance == 0.0:
            np.testing.assert_array_equal(a, e, err_msg=f"result {i}")
            continue
        difference = np.abs(a.astype(np.float64) - e.astype(np.float64))
        worst = float(difference.max(initial=0.0))
        assert worst <= tolerance, f"result {i}: differs by {worst}, may by {tolerance}"


# -- inputs ----------------------------------------------------------------------------


def _shape(rng: np.random.Generator) -> tuple[int, ...]:
    rank = int(rng.choice([0, 1, 2, 2, 3, 3, 4]))
    sizes = rng.choice(
        [0, 1, 1, 2, 3, 4, 5, 7], size=rank, p=[0.02, 0.1, 0.1, 0.2, 0.2, 0.18, 0.1, 0.1]
    )
    return tuple(int(s) for s in sizes) if math.prod(map(int, sizes)) <= MAX_SIZE else (2, 3)


def _input_spec(rng: np.random.Generator) -> TensorSpec:
    return TensorSpec(_shape(rng), INPUT_DTYPES[int(rng.integers(len(INPUT_DTYPES)))])


def _input_bound(dtype: DType) -> float:
    return 1.0 if dtype == BOOL else 2.0 if is_float(dtype) else 8.0


def _input(rng: np.random.Generator, spec: TensorSpec, specials: bool) -> Array:
    dtype = spec.dtype
    if dtype == BOOL:
        return np.asarray(rng.integers(0, 2, spec.shape)).astype(np.bool_)
    if is_float(dtype):
        array = rng.integers(-8, 9, spec.shape) / 4.0
        array = np.where(rng.random(spec.shape) < 0.1, -0.0, array).astype(dtype)
        rare: list[Any] = [np.nan, np.inf, -np.inf, -0.0]
    else:
        low = 0 if dtype.kind == "u" else -8
        array = np.asarray(rng.integers(low, 9, spec.shape)).astype(dtype)
        rare = [np.iinfo(dtype).min, np.iinfo(dtype).max]
    if specials:
        chosen = np.array(rare)[rng.integers(0, len(rare), spec.shape)].astype(dtype)
        array = np.asarray(np.where(rng.random(spec.shape) < 0.25, chosen, array)).astype(dtype)
    return array


# -- ops -------------------------------------------------------------------------------


@dataclass
class _Maker:
    rng: np.random.Generator
    block: Block
    pool: list[Value] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.b: Any = IRBuilder(Builder(InsertPoint.at_end(self.block)))

    def location(self, line: int) -> FileLineColLoc:
        return FileLineColLoc(StringAttr("graph.py"), IntAttr(line), IntAttr(0))

    def step(self, line: int) -> None:
        """Adds one op; a kind that finds no operands to its taste gives way to another."""
        self.b.location = self.location(line)
        for _ in range(50):
            make = _KINDS[int(self.rng.integers(len(_KINDS)))]
            value = make(self)
            if value is not None:
                self.pool.append(value)
                return

    def results(self) -> list[Value]:
        """The last value, and most of the others that nothing uses."""
        unused = [v for v in self.pool[:-1] if not v.ssa.uses and self.rng.random() < 0.8]
        return [*unused, self.pool[-1]]

    def pick(self, allowed: Callable[[Value], bool] = lambda v: True) -> Value | None:
        """A value, rather a late one than an early one."""
        fitting = [v for v in self.pool if allowed(v)]
        if not fitting:
            return None
        late = fitting[-4:] if self.rng.random() < 0.7 else fitting
        return late[int(self.rng.integers(len(late)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def one_of(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def partner(self, x: Value, allowed: Callable[[Value], bool] = lambda v: True) -> Value:
        """A value that broadcasts with `x`, of its dtype: from the pool, or a new constant."""
        found = self.pick(
            lambda v: v.spec.dtype == x.spec.dtype and allowed(v) and _broadcasts(v, x)
        )
        return found if found is not None and self.chance(0.6) else self.constant(x)

    def constant(self, like: Value) -> Value:
        """A scalar or a part of a shape, often of one of the numbers that rewrites look for."""
        dtype, shape = like.spec.dtype, like.spec.shape
        shape = self.one_of((), shape[1:], tuple(1 for _ in shape), shape)
        if self.chance(0.7):
            array = np.full(shape, self.one_of(0.0, -0.0, 1.0, 1.0, 2.0, -1.0))
            array = np.abs(array) if dtype.kind == "u" else array
            array = np.asarray(array).astype(dtype)
        else:
            array = _input(self.rng, TensorSpec(shape, dtype), False)
        bound = float(np.abs(array.astype(np.float64)).max(initial=0.0))
        return Value(self.b.constant(array), bound, 0.0)

    def made(self, ssa: SSAValue, bound: float, error: float, steps: float = 0.0) -> Value | None:
        """A new value; `steps` rounding steps of its dtype are added to the error.

        The op stays in the graph, dead, if the value is not fit for further use.
        """
        dtype = from_type(ssa.type).dtype
        if is_float(dtype):
            error += steps * EPSILON[dtype] * max(bound, 2.0**-10)
        else:
            bound = min(bound, 1.0 if dtype == BOOL else float(np.iinfo(dtype).max))
            error = 0.0
        if is_float(dtype) and not (bound <= MAX_BOUND and error <= MAX_ERROR):
            return None
        return Value(ssa, bound, error)


_KINDS: list[Callable[[_Maker], Value | None]] = []


def _kind(weight: int) -> Callable[[Callable[[_Maker], Value | None]], Any]:
    def add(make: Callable[[_Maker], Value | None]) -> Any:
        _KINDS.extend([make] * weight)
        return make

    return add


def _is_float(v: Value) -> bool:
    return is_float(v.spec.dtype)


def _is_number(v: Value) -> bool:
    return v.spec.dtype != BOOL


def _is_exact(v: Value) -> bool:
    return v.error == 0.0


def _broadcasts(v: Value, x: Value) -> bool:
    try:
        shape = np.broadcast_shapes(v.spec.shape, x.spec.shape)
    except ValueError:
        return False
    return math.prod(shape) <= MAX_SIZE


@_kind(3)
def _unary_exact(m: _Maker) -> Value | None:
    x = m.pick(_is_number)
    if x is None:
        return None
    name = m.one_of("neg", "abs", "relu")
    if name == "neg" and x.spec.dtype.kind == "u":
        return m.made(m.b.neg(x.ssa), math.inf, 0.0)
    return m.made(getattr(m.b, name)(x.ssa), x.bound, x.error)


@_kind(1)
def _unary_jump(m: _Maker) -> Value | None:
    x = m.pick(lambda v: _is_float(v) and _is_exact(v))
    if x is None:
        return None
    name = m.one_of("floor", "ceil", "round", "round_even", "sign", "is_nan", "is_inf")
    return m.made(getattr(m.b, name)(x.ssa), math.ceil(x.bound), 0.0)


# bound -> (bound of the result, how much an error of the operand grows)
_SMOOTH: dict[str, Callable[[float], tuple[float, float]]] = {
    "exp": lambda a: (math.exp(min(a, 50.0)), math.exp(min(a, 50.0))),
    "tanh": lambda a: (1.0, 1.0),
    "sigmoid": lambda a: (1.0, 0.25),
    "sin": lambda a: (1.0, 1.0),
    "cos": lambda a: (1.0, 1.0),
    "atan": lambda a: (1.6, 1.0),
    "erf": lambda a: (1.0, 1.2),
}


@_kind(3)
def _unary_smooth(m: _Maker) -> Value | None:
    x = m.pick(_is_float)
    if x is None:
        return None
    name = m.one_of(*_SMOOTH)
    bound, growth = _SMOOTH[name](x.bound)
    if bound > MAX_BOUND:
        return None
    return m.made(getattr(m.b, name)(x.ssa), bound, growth * x.error, 8)


@_kind(2)
def _unary_above_one(m: _Maker) -> Value | None:
    """Functions that are steep near 0, of |x| + 1."""
    x = m.pick(_is_float)
    if x is None or x.bound + 1 > MAX_BOUND:
        return None
    shifted = m.made(m.b.add(m.b.abs(x.ssa), m.b.scalar(1, x.ssa)), x.bound + 1, x.error, 1)
    if shifted is None:
        return None
    name = m.one_of("log", "sqrt", "rsqrt")
    return m.made(getattr(m.b, name)(shifted.ssa), shifted.bound, shifted.error, 8)


@_kind(4)
def _add(m: _Maker) -> Value | None:
    x = m.pick(_is_number)
    if x is None:
        return None
    y = m.partner(x)
    operands = (x, y) if m.chance(0.5) else (y, x)
    ssa = getattr(m.b, m.one_of("add", "sub"))(*(v.ssa for v in operands))
    bound = math.inf if is_integer(x.spec.dtype) else x.bound + y.bound
    # With exact operands it is one IEEE operation; otherwise it may be half of a fused one.
    exact = _is_exact(x) and _is_exact(y)
    return m.made(ssa, bound, x.error + y.error, 0 if exact else 1)


@_kind(4)
def _mul(m: _Maker) -> Value | None:
    x = m.pick(_is_number)
    if x is None:
        return None
    y = m.partner(x)
    operands = (x, y) if m.chance(0.5) else (y, x)
    ssa = m.b.mul(*(v.ssa for v in operands))
    bound = math.inf if is_integer(x.spec.dtype) else x.bound * y.bound
    error = x.error * y.bound + y.error * x.bound + x.error * y.error
    return m.made(ssa, bound, error, 1)


@_kind(1)
def _div(m: _Maker) -> Value | None:
    """x / (|y| + 1), or x / 1."""
    x = m.pick(_is_float)
    if x is None:
        return None
    if m.chance(0.2):
        return m.made(m.b.div(x.ssa, m.b.scalar(1, x.ssa)), x.bound, x.error, 1)
    y = m.partner(x)
    below = m.made(m.b.add(m.b.abs(y.ssa), m.b.scalar(1, y.ssa)), y.bound + 1, y.error, 1)
    if below is None:
        return None
    return m.made(m.b.div(x.ssa, below.ssa), x.bound, x.error + x.bound * below.error, 1)


@_kind(2)
def _extremum(m: _Maker) -> Value | None:
    x = m.pick(_is_number)
    if x is None:
        return None
    y = m.partner(x)
    ssa = getattr(m.b, m.one_of("maximum", "minimum"))(x.ssa, y.ssa)
    return m.made(ssa, max(x.bound, y.bound), max(x.error, y.error))


@_kind(2)
def _bits(m: _Maker) -> Value | None:
    x = m.pick(lambda v: not _is_float(v))
    if x is None:
        return None
    y = m.partner(x)
    names = ["and", "or", "xor"]
    if is_integer(x.spec.dtype):
        names += ["floor_div", "mod", "shift_left", "shift_right"]
    if m.chance(0.2):
        return m.made(getattr(m.b, "not")(x.ssa), math.inf, 0.0)
    return m.made(getattr(m.b, m.one_of(*names))(x.ssa, y.ssa), math.inf, 0.0)


@_kind(2)
def _compare(m: _Maker) -> Value | None:
    x = m.pick(_is_exact)
    if x is None:
        return None
    y = m.partner(x, _is_exact)
    name = m.one_of("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
    return m.made(getattr(m.b, name)(x.ssa, y.ssa), 1.0, 0.0)


@_kind(3)
def _select(m: _Maker) -> Value | None:
    x = m.pick()
    if x is None:
        return None
    y = m.partner(x)
    shape = np.broadcast_shapes(x.spec.shape, y.spec.shape)
    condition = m.pick(
        lambda v: (
            v.spec.dtype == BOOL
            and len(v.spec.shape) <= len(shape)
            and all(d in (1, s) for d, s in zip(v.spec.shape[::-1], shape[::-1], strict=False))
        )
    )
    if condition is not None and m.chance(0.8):
        chosen = condition.ssa
    else:
        chosen = m.b.constant(np.array(m.chance(0.5)))
    ssa = m.b.select(chosen, x.ssa, y.ssa)
    return m.made(ssa, max(x.bound, y.bound), max(x.error, y.error))


@_kind(4)
def _cast(m: _Maker) -> Value | None:
    x = m.pick()
    if x is None:
        return None
    source, target = x.spec.dtype, CAST_DTYPES[int(m.rng.integers(len(CAST_DTYPES)))]
    if is_float(target):
        if x.bound > MAX_BOUND:
            return None
        # Quarters up to 32 and integers up to 256 are exact in every float.
        narrows = is_float(source) and EPSILON[target] > EPSILON[source]
        exact = _is_exact(x) and not (narrows and x.bound > 2.0) and x.bound <= 255
        return m.made(m.b.emit(all_ops()["mge.cast"], (x.ssa,), {"dtype": target})[0],
                      x.bound, x.error, 0 if exact else 1)  # fmt: skip
    ssa = x.ssa
    if is_float(source):
        if not _is_exact(x):
            return None
        if target != BOOL:  # out of range and NaN have no defined result
            ssa = m.b.select(m.b.is_nan(ssa), m.b.scalar(0, ssa), ssa)
            ssa = m.b.minimum(ssa, m.b.scalar(100, ssa))
            ssa = m.b.maximum(ssa, m.b.scalar(0 if target.kind == "u" else -100, ssa))
    bound = x.bound if target.kind == "i" and x.bound <= 127 else math.inf
    return m.made(m.b.emit(all_ops()["mge.cast"], (ssa,), {"dtype": target})[0], bound, 0.0)


@_kind(3)
def _reduce(m: _Maker) -> Value | None:
    x = m.pick(_is_number)
    if x is None:
        return None
    rank = x.spec.rank
    axes = tuple(i for i in range(rank) if m.chance(0.5))
    names = ["reduce_sum", "reduce_max", "reduce_min"]
    names += ["reduce_mean"] if _is_float(x) else ["reduce_prod"]
    name, attrs = m.one_of(*names), {"axes": axes, "keepdims": m.chance(0.5)}
    count = math.prod(x.spec.shape[i] for i in axes)
    if name in ("reduce_max", "reduce_min"):
        if count == 0:
            return None
        return m.made(getattr(m.b, name)(x.ssa, **attrs), x.bound, x.error)
    if name == "reduce_mean":
        if count == 0:
            return None
        return m.made(m.b.reduce_mean(x.ssa, **attrs), x.bound, x.error, 2 + count)
    ssa = getattr(m.b, name)(x.ssa, **attrs)
    if is_integer(x.spec.dtype):
        return m.made(ssa, math.inf, 0.0)
    return m.made(ssa, x.bound * max(count, 1), x.error * count, count)


@_kind(1)
def _argreduce(m: _Maker) -> Value | None:
    x = m.pick(lambda v: _is_number(v) and _is_exact(v) and v.spec.rank > 0)
    if x is None:
        return None
    axis = int(m.rng.integers(x.spec.rank))
    if x.spec.shape[axis] == 0:
        return None
    ssa = getattr(m.b, m.one_of("argmax", "argmin"))(x.ssa, axis=axis, keepdims=m.chance(0.5))
    return m.made(ssa, float(x.spec.shape[axis]), 0.0)


@_kind(3)
def _reshape(m: _Maker) -> Value | None:
    x = m.pick()
    if x is None:
        return None
    size, shape = x.spec.size, x.spec.shape
    options = [(size,), (1, *shape), (*shape, 1), tuple(d for d in shape if d != 1), shape]
    options += [(d, size // d) for d in (2, 3, 4) if size % d == 0]
    return m.made(_op(m, "reshape", x, shape=m.one_of(*options)), x.bound, x.error)


def _op(m: _Maker, name: str, x: Value, **attrs: Any) -> SSAValue:
    """Emits an op even where the builder would leave it out for doing nothing."""
    return m.b.emit(all_ops()[f"mge.{name}"], (x.ssa,), attrs)[0]


@_kind(4)
def _transpose(m: _Maker) -> Value | None:
    x = m.pick()
    if x is None:
        return None
    perm = tuple(int(i) for i in m.rng.permutation(x.spec.rank))
    return m.made(_op(m, "transpose", x, perm=perm), x.bound, x.error)


@_kind(3)
def _broadcast(m: _Maker) -> Value | None:
    x = m.pick()
    if x is None:
        return None
    shape = tuple(
        int(m.rng.integers(1, 5)) if d == 1 and m.chance(0.7) else d for d in x.spec.shape
    )
    shape = (int(m.rng.integers(1, 4)), *shape) if len(shape) < 4 and m.chance(0.4) else shape
    if math.prod(shape) > MAX_SIZE:
        return None
    return m.made(_op(m, "broadcast", x, shape=shape), x.bound, x.error)


@_kind(3)
def _slice(m: _Maker) -> Value | None:
    x = m.pick()
    if x is None:
        return None
    bounds: list[tuple[int, int, int]] = []
    for size in x.spec.shape:
        step = int(m.one_of(1, 1, 2, 3, -1, -2))
        low, high = sorted(int(i) for i in m.rng.integers(0, size + 1, 2))
        low, high = (0, size) if m.chance(0.4) else (low, high)
        bounds.append((low, high, step) if step > 0 else (high - 1, low - 1, step))
        if size == 0 or (step < 0 and high == 0):
            bounds[-1] = (0, 0, 1)
    starts, stops, steps = (tuple(b[i] for b in bounds) for i in range(3))
    return m.made(_op(m, "slice", x, starts=starts, stops=stops, steps=steps), x.bound, x.error)


@_kind(2)
def _pad(m: _Maker) -> Value | None:
    x = m.pick()
    if x is None or x.spec.rank == 0:
        return None
    low, high = (tuple(int(i) for i in m.rng.integers(0, 3, x.spec.rank)) for _ in range(2))
    if m.chance(0.2):
        low = high = (0,) * x.spec.rank
    shape = [a + d + c for a, d, c in zip(low, x.spec.shape, high, strict=True)]
    if math.prod(shape) > MAX_SIZE:
        return None
    value = m.one_of(0.0, 1.0)
    return m.made(_op(m, "pad", x, low=low, high=high, value=value), max(x.bound, 1.0), x.error)


@_kind(2)
def _move(m: _Maker) -> Value | None:
    x = m.pick(lambda v: v.spec.rank > 0 and v.spec.size * 3 <= MAX_SIZE)
    if x is None:
        return None
    axis, rank = int(m.rng.integers(x.spec.rank)), x.spec.rank
    name, attrs = m.one_of(
        ("reverse", {"axes": (axis,)}),
        ("repeat", {"repeats": int(m.rng.integers(1, 4)), "axis": axis}),
        (
            "tile",
            {"reps": tuple(int(m.rng.integers(1, 4)) if i == axis else 1 for i in range(rank))},
        ),
    )
    return m.made(_op(m, name, x, **attrs), x.bound, x.error)


@_kind(3)
def _concat(m: _Maker) -> Value | None:
    x = m.pick(lambda v: v.spec.rank > 0)
    if x is None:
        return None
    axis = int(m.rng.integers(x.spec.rank))

    def fits(v: Value) -> bool:
        a, b = v.spec, x.spec
        return a.dtype == b.dtype and a.rank == b.rank and all(
            p == q or i == axis for i, (p, q) in enumerate(zip(a.shape, b.shape, strict=True))
        )  # fmt: skip

    parts = [x]
    for _ in range(int(m.rng.integers(0, 3))):
        parts.append(m.pick(fits) or x)
    if sum(p.spec.size for p in parts) > MAX_SIZE:
        return None
    ssa = m.b.concat(*(p.ssa for p in parts), axis=axis)
    return m.made(ssa, max(p.bound for p in parts), max(p.error for p in parts))


@_kind(3)
def _matmul(m: _Maker) -> Value | None:
    x = m.pick(lambda v: _is_number(v) and v.spec.rank >= 2)
    if x is None:
        return None
    flip_x, flip_y = m.chance(0.3), m.chance(0.3)
    k = x.spec.shape[-2 if flip_x else -1]
    y = m.pick(
        lambda v: (
            v.spec.dtype == x.spec.dtype
            and v.spec.rank == 2
            and v.spec.shape[-1 if flip_y else -2] == k
        )
    )
    if y is None or m.chance(0.3):
        n = int(m.rng.integers(1, 5))
        spec = TensorSpec((n, k) if flip_y else (k, n), x.spec.dtype)
        array = _input(m.rng, spec, False)
        y = Value(m.b.constant(array), _input_bound(spec.dtype), 0.0)
    ssa = m.b.matmul(x.ssa, y.ssa, transpose_lhs=flip_x, transpose_rhs=flip_y)
    if is_integer(x.spec.dtype):
        return m.made(ssa, math.inf, 0.0)
    error = k * (x.error * y.bound + y.error * x.bound + x.error * y.error)
    return m.made(ssa, max(k, 1) * x.bound * y.bound, error, k + 1)


# Composites: name -> (bound of the operand -> bound, growth of an error), attributes.
_COMPOSITES: dict[str, tuple[Callable[[float], tuple[float, float]], dict[str, Any]]] = {
    "silu": (lambda a: (a, 1.2), {}),
    "gelu": (lambda a: (a, 1.2), {}),
    "softplus": (lambda a: (a + 1, 1.0), {}),
    "relu6": (lambda a: (min(a, 6.0), 1.0), {}),
    "hard_swish": (lambda a: (a, 1.6), {}),
    "leaky_relu": (lambda a: (a, 1.0), {"negative_slope": 0.1}),
    "clip": (lambda a: (1.5, 1.0), {"lower": -1.0, "upper": 1.5}),
}


@_kind(2)
def _composite(m: _Maker) -> Value | None:
    x = m.pick(_is_float)
    if x is None:
        return None
    name = m.one_of(*_COMPOSITES)
    rule, attrs = _COMPOSITES[name]
    bound, growth = rule(x.bound)
    # Its parts round one by one, and some are as large as the operand plus 3.
    error = growth * x.error + 16 * EPSILON[x.spec.dtype] * (x.bound + 3)
    return m.made(_op(m, name, x, **attrs), bound, error)


@_kind(2)
def _softmax(m: _Maker) -> Value | None:
    x = m.pick(lambda v: _is_float(v) and v.spec.rank > 0 and v.spec.size > 0)
    if x is None:
        return None
    axis = int(m.rng.integers(x.spec.rank))
    steps = 8 + 2 * x.bound + x.spec.shape[axis]
    if m.chance(0.5):
        return m.made(m.b.softmax(x.ssa, axis=axis), 1.0, 2 * x.error, steps)
    bound = 2 * x.bound + math.log(x.spec.shape[axis])
    return m.made(m.b.log_softmax(x.ssa, axis=axis), bound, 2 * x.error, steps)
