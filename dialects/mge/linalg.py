"""Lowering to linalg on tensors: the form every op has, fast or not.

A rule registered with `@lowering` receives a `LinalgBuilder` and the `LoweringCall`, and
returns one tensor per result. Four shapes of loop nest cover the dialect:

* `map`: output[i...] = f(inputs[...]), with the operands read through affine maps;
* `reduce`: output[...] = fold of f over some axes of one input, read in its own order;
* `loops`: output[p...] = fold of f over the reduction indices, reading anything anywhere;
* `serial`: loops in order, each step of which may store anywhere in a tensor.

Dimensions are Python ints where the shape is static and SSA `index` values where only run
time knows them; the helpers fold what is known, so one rule serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias, cast

from xdsl.builder import Builder
from xdsl.dialects import arith, builtin, scf, tensor
from xdsl.dialects import math as math_dialect
from xdsl.dialects.linalg.attrs import IteratorTypeAttr
from xdsl.dialects.linalg.ops import GenericOp, IndexOp, YieldOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.ir.affine import AffineExpr, AffineMap
from xdsl.rewriter import InsertPoint

from mgec.dialects.mge.lane import Lane, LaneBuilder, storage_type
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.spec import DYNAMIC, INT64, DType, TensorSpec

Dim: TypeAlias = "int | SSAValue"
"""A size or index: a Python int, or an SSA value of type `index`."""

ElementBody: TypeAlias = "Callable[[list[SSAValue]], Lane]"
FoldBody: TypeAlias = "Callable[[list[SSAValue], Lane], Lane]"
LoopBody: TypeAlias = "ElementBody | FoldBody"
"""The body of `LinalgBuilder.loops`, without and with an accumulator."""

_OPS: dict[str, type[Operation]] = {
    op.name: op for dialect in (arith.Arith, math_dialect.Math) for op in dialect.operations
}
_TYPES: dict[str, Attribute] = {
    "f16": builtin.f16, "bf16": builtin.bf16, "f32": builtin.f32, "f64": builtin.f64,
    "i1": builtin.i1, "i8": builtin.i8, "i16": builtin.IntegerType(16), "i32": builtin.i32,
    "i64": builtin.i64, "index": builtin.IndexType(),
}  # fmt: skip


def mlir_type(ty: str) -> Attribute:
    """The xDSL type called `ty`."""
    return _TYPES[ty]


def storage_tensor(spec: TensorSpec) -> builtin.TensorType[Attribute]:
    """The tensor type `spec` has after lowering: signless, bool as i8."""
    return builtin.TensorType(_TYPES[storage_type(spec.dtype)], spec.shape)


@dataclass(frozen=True)
class LoweringCall:
    """What a lowering rule is asked to lower.

    Attributes:
        op: the op's class.
        inputs: operand tensors in storage types; None for an absent optional operand.
        specs: specs of `inputs`.
        output_specs: specs of the results.
        attrs: plain attributes; run-time attributes may hold SSA index values.
        output_dims: for each result, its dimensions.
    """

    op: type[MgeOp]
    inputs: tuple[Any, ...]
    specs: tuple[Any, ...]
    output_specs: tuple[TensorSpec, ...]
    attrs: Mapping[str, Any]
    output_dims: tuple[tuple[Dim, ...], ...]


class ScalarLanes(LaneBuilder):
    """Lanes that are scalars in the body of a loop nest."""

    def __init__(self, owner: LinalgBuilder, has_fma: bool = True) -> None:
        self._owner = owner
        self.has_fma = has_fma

    def op(self, name: str, operands: Sequence[Lane], ty: str, **properties: int) -> Lane:
        cls = _OPS.get(name) or builtin.UnregisteredOp.with_name(name)
        attributes: dict[str, Attribute] = {
            key: builtin.IntegerAttr(value, 64) for key, value in properties.items()
        }
        new = cls.create(
            operands=[o.ref for o in operands], result_types=[_TYPES[ty]], properties=attributes
        )
        self._owner.insert(new)
        return Lane(new.results[0], ty)

    def constant(self, value: float, ty: str) -> Lane:
        type_ = _TYPES[ty]
        if ty[0] in "fb":
            attribute: Attribute = builtin.FloatAttr(float(value), cast("Any", type_))
        else:
            attribute = builtin.IntegerAttr(int(value), cast("Any", type_))
        new = arith.ConstantOp.create(result_types=[type_], properties={"value": attribute})
        self._owner.insert(new)
        return Lane(new.results[0], ty)


class LinalgBuilder:
    """Builds linalg on tensors; see the module docstring.

    Args:
        builder: where to insert.
        location: location given to every op.
        has_fma: whether lanes may use fused multiply-add.
    """

    def __init__(self, builder: Builder, location: Attribute | None, has_fma: bool = True) -> None:
        self._builders = [builder]
        self.location = location
        self.lanes = ScalarLanes(self, has_fma)
        self._dims: dict[SSAValue, tuple[Dim, ...]] = {}

    def insert(self, op: Operation) -> None:
        """Inserts `op` at the current point, with the location of the op being lowered."""
        if self.location is not None:
            op.location = cast("Any", self.location)
        self._builders[-1].insert(op)

    # -- sizes and indices --------------------------------------------------------------

    def index(self, dim: Dim) -> SSAValue:
        """`dim` as an SSA value."""
        if isinstance(dim, SSAValue):
            return dim
        return self.lanes.constant(dim, "index").ref

    def _index_op(self, name: str, a: Dim, b: Dim) -> SSAValue:
        lanes = [Lane(self.index(x), "index") for x in (a, b)]
        return self.lanes.op(name, lanes, "index").ref

    def add(self, a: Dim, b: Dim) -> Dim:
        """a + b."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if b == 0 or a == 0:
            return a if b == 0 else b
        return self._index_op("arith.addi", a, b)

    def sub(self, a: Dim, b: Dim) -> Dim:
        """a - b."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self._index_op("arith.subi", a, b)

    def mul(self, a: Dim, b: Dim) -> Dim:
        """a * b."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 1 or b == 1:
            return b if a == 1 else a
        return self._index_op("arith.muli", a, b)

    def floordiv(self, a: Dim, b: Dim) -> Dim:
        """a // b for a >= 0 and b > 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        return a if b == 1 else self._index_op("arith.divui", a, b)

    def mod(self, a: Dim, b: Dim) -> Dim:
        """a % b for a >= 0 and b > 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        return 0 if b == 1 else self._index_op("arith.remui", a, b)

    def product(self, dims: Sequence[Dim]) -> Dim:
        """The product of `dims`; 1 if there are none."""
        known = prod(d for d in dims if isinstance(d, int))
        result: Dim = known
        for dim in dims:
            if not isinstance(dim, int):
                result = self.mul(result, dim)
        return result

    def maximum(self, a: Dim, b: Dim) -> Dim:
        """The larger of a and b, which may be negative."""
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self._index_op("arith.maxsi", a, b)

    def minimum(self, a: Dim, b: Dim) -> Dim:
        """The smaller of a and b, which may be negative."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self._index_op("arith.minsi", a, b)

    def log2_ceil(self, size: Dim) -> Dim:
        """How often 1 must be doubled to reach `size`; 0 for sizes 0 and 1."""
        if isinstance(size, int):
            return max(size - 1, 0).bit_length()
        last = Lane(self.index(self.maximum(self.sub(size, 1), 0)), "index")
        wide = self.lanes.op("arith.index_cast", [last], "i64")
        zeros = self.lanes.op("math.ctlz", [wide], "i64")
        bits = self.lanes.sub(self.lanes.constant(64, "i64"), zeros)
        return self.lanes.op("arith.index_cast", [bits], "index").ref

    def clamp(self, index: Dim, size: Dim) -> Dim:
        """`index` moved into [0, size), so that a masked read stays inside its buffer."""
        low = self._index_op("arith.maxsi", index, 0)
        return self._index_op("arith.minsi", low, self.sub(size, 1))

    def in_range(self, index: Dim, low: Dim, high: Dim) -> Lane:
        """Whether low <= index < high, as an i1 lane."""
        i, lo, hi = (Lane(self.index(x), "index") for x in (index, low, high))
        return self.lanes.and_(self.lanes.cmpi("sge", i, lo), self.lanes.cmpi("slt", i, hi))

    def delinearize(self, index: Dim, dims: Sequence[Dim]) -> list[Dim]:
        """The row-major coordinates of a flat index."""
        result: list[Dim] = []
        for dim in reversed(dims[1:]):
            result.append(self.mod(index, dim))
            index = self.floordiv(index, dim)
        return [index, *reversed(result)] if dims else []

    def linearize(self, indices: Sequence[Dim], dims: Sequence[Dim]) -> Dim:
        """The flat row-major index of coordinates; inverse of `delinearize`."""
        flat: Dim = 0
        for index, dim in zip(indices, dims, strict=True):
            flat = self.add(self.mul(flat, dim), index)
        return flat

    def index_to_lane(self, index: Dim, dtype: DType) -> Lane:
        """An index as a lane of an integer or float dtype."""
        wide = self.lanes.op("arith.index_cast", [Lane(self.index(index), "index")], "i64")
        return self.lanes.convert(wide, INT64, dtype)

    def lane_to_index(self, lane: Lane, dtype: DType) -> SSAValue:
        """An integer lane as an index (sign- or zero-extended by its dtype)."""
        name = "arith.index_castui" if dtype.kind == "u" else "arith.index_cast"
        if name not in _OPS:  # xDSL has no index_castui: widen first
            if dtype.kind == "u" and lane.bits < 64:
                lane = self.lanes.op("arith.extui", [lane], "i64")
            name = "arith.index_cast"
        return self.lanes.op(name, [lane], "index").ref

    # -- tensors --------------------------------------------------------------------------

    def set_dims(self, value: SSAValue, dims: Sequence[Dim]) -> None:
        """Records the dimensions of a tensor that comes from outside."""
        self._dims[value] = tuple(dims)

    def dims(self, value: SSAValue) -> tuple[Dim, ...]:
        """The dimensions of a tensor."""
        if (known := self._dims.get(value)) is None:
            type_ = cast("builtin.TensorType[Attribute]", value.type)
            known = tuple(type_.get_shape())
            assert DYNAMIC not in known, "dimensions of a dynamic tensor must be recorded"
        return known

    def empty(self, dims: Sequence[Dim], ty: str) -> SSAValue:
        """An uninitialized tensor of element type `ty`."""
        shape = [d if isinstance(d, int) else DYNAMIC for d in dims]
        dynamic = [d for d in dims if not isinstance(d, int)]
        new = tensor.EmptyOp(dynamic, builtin.TensorType(_TYPES[ty], shape))
        self.insert(new)
        self._dims[new.tensor] = tuple(dims)
        return new.tensor

    def load(self, value: SSAValue, indices: Sequence[Dim], dtype: DType) -> Lane:
        """One element of a tensor, inside a loop body."""
        new = tensor.ExtractOp.create(
            operands=[value, *(self.index(i) for i in indices)],
            result_types=[_TYPES[storage_type(dtype)]],
        )
        self.insert(new)
        return self.lanes.from_storage(Lane(new.results[0], storage_type(dtype)), dtype)

    def map(
        self,
        inputs: Sequence[tuple[SSAValue, DType, AffineMap]],
        dims: Sequence[Dim],
        dtype: DType,
        body: Callable[..., Lane],
    ) -> SSAValue:
        """output[i...] = body(input elements), all loops parallel.

        Args:
            inputs: each operand with its dtype and the map from loop indices to its own.
            dims: dimensions of the output, one loop each.
            dtype: dtype of the output.
            body: called with one lane per input; returns the output lane.
        """
        ty = storage_type(dtype)
        out = self.empty(dims, ty)
        block_types = [_TYPES[storage_type(d)] for _, d, _ in inputs] + [_TYPES[ty]]
        block = Block(arg_types=block_types)
        with self._inside(block):
            lanes = [
                self.lanes.from_storage(Lane(argument, storage_type(d)), d)
                for argument, (_, d, _) in zip(block.args, inputs, strict=False)
            ]
            result = self.lanes.to_storage(body(*lanes), dtype)
            self.insert(YieldOp(result.ref))
        maps = [m for _, _, m in inputs] + [AffineMap.identity(len(dims))]
        return self._generic([v for v, _, _ in inputs], out, block, maps, len(dims), 0, dims)

    def loops(
        self,
        dims: Sequence[Dim],
        dtype: DType,
        body: LoopBody,
        reduce: Sequence[Dim] = (),
        init: Callable[[LaneBuilder], Lane] | None = None,
        accumulate: DType | None = None,
        finish: Callable[[Lane], Lane] | None = None,
    ) -> SSAValue:
        """output[p...] = fold of `body` over the reduction loops.

        Args:
            dims: dimensions of the output: the parallel loops.
            dtype: dtype of the output.
            body: called as body(indices) without a reduction, else body(indices, accumulator);
                `indices` lists parallel then reduction indices. May read with `load`.
            reduce: extents of the reduction loops.
            init: value the accumulator starts from; needed with `reduce`.
            accumulate: dtype of the accumulator, if wider than `dtype`.
            finish: applied to the accumulator before it is stored.
        """
        acc_dtype = accumulate or dtype
        ty = storage_type(acc_dtype if reduce else dtype)
        out = self.empty(dims, ty)
        rank, extra = len(dims), len(reduce)
        inputs: list[SSAValue] = []
        maps: list[AffineMap] = []
        if reduce:
            assert init is not None
            start = init
            out = self.fill(dims, acc_dtype, start)
            # An operand nobody reads gives the reduction loops their extents.
            inputs = [self.empty(reduce, "i8")]
            folded = tuple(AffineExpr.dimension(rank + i) for i in range(extra))
            maps = [AffineMap(rank + extra, 0, folded)]
        maps.append(AffineMap(rank + extra, 0, tuple(AffineExpr.dimension(i) for i in range(rank))))
        block = Block(arg_types=[*(builtin.i8 for _ in inputs), _TYPES[ty]])
        with self._inside(block):
            indices: list[SSAValue] = []
            for i in range(rank + extra):
                new = IndexOp(i)
                self.insert(new)
                indices.append(new.result)
            if reduce:
                acc = self.lanes.from_storage(Lane(block.args[-1], ty), acc_dtype)
                value = self.lanes.to_storage(cast("FoldBody", body)(indices, acc), acc_dtype)
            else:
                value = self.lanes.to_storage(cast("ElementBody", body)(indices), dtype)
            self.insert(YieldOp(value.ref))
        result = self._generic(inputs, out, block, maps, rank, extra, dims)
        if reduce and (finish is not None or acc_dtype != dtype):
            done = finish or same

            def narrow(lane: Lane) -> Lane:
                return self.lanes.convert(done(lane), acc_dtype, dtype)

            result = self.map([(result, acc_dtype, AffineMap.identity(rank))], dims, dtype, narrow)
        return result

    def reduce(
        self,
        value: SSAValue,
        dtype: DType,
        axes: Sequence[int],
        dims: Sequence[Dim],
        body: Callable[[Lane, Lane], Lane],
        init: Callable[[LaneBuilder], Lane],
        accumulate: DType | None = None,
    ) -> SSAValue:
        """Folds `value` over `axes`; the loops run in the order of the input's axes.

        Args:
            value: the tensor to reduce.
            dtype: dtype of its elements, and of the output.
            axes: the axes to fold.
            dims: dimensions of the output, with or without a 1 for each folded axis.
            body: called as body(accumulator, element), both of dtype `accumulate`.
            init: value the accumulator starts from.
            accumulate: dtype of the accumulator, if wider than `dtype`.
        """
        acc_dtype = accumulate or dtype
        ty = storage_type(acc_dtype)
        rank = len(self.dims(value))
        kept: list[int | None] = [None if i in axes else i for i in range(rank)]
        if len(dims) < rank:
            kept = [i for i in kept if i is not None]
        out_map = AffineMap(rank, 0, tuple(
            AffineExpr.constant(0) if i is None else AffineExpr.dimension(i) for i in kept
        ))  # fmt: skip
        start = self.fill(dims, acc_dtype, init)
        block = Block(arg_types=[_TYPES[storage_type(dtype)], _TYPES[ty]])
        with self._inside(block):
            element = self.lanes.from_storage(Lane(block.args[0], storage_type(dtype)), dtype)
            acc = self.lanes.from_storage(Lane(block.args[1], ty), acc_dtype)
            result = body(acc, self.lanes.convert(element, dtype, acc_dtype))
            self.insert(YieldOp(self.lanes.to_storage(result, acc_dtype).ref))
        iterators = [
            IteratorTypeAttr.reduction() if i in axes else IteratorTypeAttr.parallel()
            for i in range(rank)
        ]
        maps = [builtin.AffineMapAttr(m) for m in (AffineMap.identity(rank), out_map)]
        new = GenericOp([value], [start], Region(block), maps, iterators, [start.type])
        self.insert(new)
        self._dims[new.results[0]] = tuple(dims)
        return self.convert(new.results[0], acc_dtype, dtype)

    def convert(self, value: SSAValue, source: DType, target: DType) -> SSAValue:
        """`value` converted to another dtype, or itself if it has that dtype already."""
        return value if source == target else self.copy(value, source, target)

    def copy(self, value: SSAValue, source: DType, target: DType | None = None) -> SSAValue:
        """A new tensor with the elements of `value`, that `serial` may then write into."""
        dims = self.dims(value)
        result = target or source

        def element(lane: Lane) -> Lane:
            return self.lanes.convert(lane, source, result)

        return self.map([(value, source, AffineMap.identity(len(dims)))], dims, result, element)

    def store(self, lane: Lane, value: SSAValue, indices: Sequence[Dim], dtype: DType) -> SSAValue:
        """`value` with one element replaced, inside a body of `serial`."""
        stored = self.lanes.to_storage(lane, dtype)
        new = tensor.InsertOp(stored.ref, value, [self.index(i) for i in indices])
        self.insert(new)
        self._dims[new.result] = self.dims(value)
        return new.result

    def serial(
        self,
        extents: Sequence[Dim],
        value: SSAValue,
        body: Callable[[list[SSAValue], SSAValue], SSAValue],
    ) -> SSAValue:
        """Runs `body` once for each index, in row-major order, on a tensor it may change.

        Bufferization updates the tensor in place as long as each step hands on what it was
        given, with elements replaced by `store`.

        Args:
            extents: sizes of the nested loops.
            value: the tensor to start from; a new one (`fill`, `copy`, `empty`).
            body: called as body(indices, tensor); returns the tensor for the next step.
        """
        zero, one = self.index(0), self.index(1)

        def nest(indices: list[SSAValue], current: SSAValue) -> SSAValue:
            if len(indices) == len(extents):
                return body(indices, current)
            bound = self.index(extents[len(indices)])
            block = Block(arg_types=[_TYPES["index"], current.type])
            self._dims[block.args[1]] = self.dims(current)
            with self._inside(block):
                result = nest([*indices, block.args[0]], block.args[1])
                self.insert(scf.YieldOp(result))
            loop = scf.ForOp(zero, bound, one, [current], Region(block))
            self.insert(loop)
            self._dims[loop.results[0]] = self.dims(current)
            return loop.results[0]

        return nest([], value)

    def iterate(
        self,
        count: Dim,
        lanes: Sequence[Lane],
        body: Callable[[list[Lane]], Sequence[Lane]],
    ) -> list[Lane]:
        """Runs `body` `count` times on lanes, inside the body of another loop.

        Args:
            count: number of steps.
            lanes: the values of the first step.
            body: called as body(lanes); returns the lanes of the next step.
        """
        types = [_TYPES[lane.ty] for lane in lanes]
        block = Block(arg_types=[_TYPES["index"], *types])
        zero, bound, one = self.index(0), self.index(count), self.index(1)
        with self._inside(block):
            current = [Lane(a, x.ty) for a, x in zip(block.args[1:], lanes, strict=True)]
            following = body(current)
            self.insert(scf.YieldOp(*(lane.ref for lane in following)))
        loop = scf.ForOp(zero, bound, one, [lane.ref for lane in lanes], Region(block))
        self.insert(loop)
        return [Lane(r, x.ty) for r, x in zip(loop.results, lanes, strict=True)]

    def place(
        self,
        source: SSAValue,
        target: SSAValue,
        dtype: DType,
        where: Callable[[list[SSAValue]], Sequence[Dim]],
    ) -> SSAValue:
        """`target` with the element at `where(i)` replaced by source[i], for each index i."""

        def body(indices: list[SSAValue], current: SSAValue) -> SSAValue:
            lane = self.load(source, indices, dtype)
            return self.store(lane, current, where(indices), dtype)

        return self.serial(self.dims(source), target, body)

    def fold(
        self,
        inputs: Sequence[tuple[SSAValue, DType, AffineMap]],
        dims: Sequence[Dim],
        reductions: int,
        dtype: DType,
        body: Callable[..., Lane],
        init: Callable[[LaneBuilder], Lane],
        accumulate: DType,
    ) -> SSAValue:
        """output[p...] = fold of body over reduction loops, with operands read through maps.

        Args:
            inputs: each operand with its dtype and the map from loop indices, parallel then
                reduction, to its own; together they must name every reduction loop.
            dims: dimensions of the output: the parallel loops.
            reductions: number of reduction loops.
            dtype: dtype of the output.
            body: called with one lane per input and the accumulator.
            init: value the accumulator starts from.
            accumulate: dtype of the accumulator.
        """
        ty = storage_type(accumulate)
        out = self.fill(dims, accumulate, init)
        block = Block(arg_types=[*(_TYPES[storage_type(d)] for _, d, _ in inputs), _TYPES[ty]])
        with self._inside(block):
            lanes = [
                self.lanes.from_storage(Lane(argument, storage_type(d)), d)
                for argument, d in zip(
                    block.args, [*(d for _, d, _ in inputs), accumulate], strict=True
                )
            ]
            self.insert(YieldOp(self.lanes.to_storage(body(*lanes), accumulate).ref))
        rank = len(dims)
        kept = AffineMap(rank + reductions, 0, tuple(AffineExpr.dimension(i) for i in range(rank)))
        maps = [*(m for _, _, m in inputs), kept]
        values = [v for v, _, _ in inputs]
        result = self._generic(values, out, block, maps, rank, reductions, dims)
        return self.convert(result, accumulate, dtype)

    def fill(
        self, dims: Sequence[Dim], dtype: DType, value: Callable[[LaneBuilder], Lane]
    ) -> SSAValue:
        """A tensor with one value in every element."""
        lane = self.lanes.to_storage(value(self.lanes), dtype)
        out = self.empty(dims, storage_type(dtype))
        block = Block(arg_types=[_TYPES[storage_type(dtype)]])
        with self._inside(block):
            self.insert(YieldOp(lane.ref))
        return self._generic([], out, block, [AffineMap.identity(len(dims))], len(dims), 0, dims)

    def _generic(
        self,
        inputs: Sequence[SSAValue],
        out: SSAValue,
        block: Block,
        maps: Sequence[AffineMap],
        parallel: int,
        reduction: int,
        dims: Sequence[Dim],
    ) -> SSAValue:
        kinds = [IteratorTypeAttr.parallel()] * parallel
        kinds += [IteratorTypeAttr.reduction()] * reduction
        new = GenericOp(
            inputs,
            [out],
            Region(block),
            [builtin.AffineMapAttr(m) for m in maps],
            kinds,
            [out.type],
        )
        self.insert(new)
        self._dims[new.results[0]] = tuple(dims)
        return new.results[0]

    def _inside(self, block: Block) -> _Inside:
        return _Inside(self._builders, Builder(InsertPoint.at_end(block)))


class _Inside:
    """Redirects insertion into a block for the length of a with statement."""

    def __init__(self, stack: list[Builder], builder: Builder) -> None:
        self._stack, self._builder = stack, builder

    def __enter__(self) -> None:
        self._stack.append(self._builder)

    def __exit__(self, *_: object) -> None:
        self._stack.pop()


def same(lane: Lane) -> Lane:
    """The lane itself: the body of a `map` that only moves data."""
    return lane


def broadcast_map(shape: Sequence[int], rank: int) -> AffineMap:
    """Map from the loops over a broadcast result to an operand of `shape` (1s read index 0)."""
    lead = rank - len(shape)
    exprs = (
        AffineExpr.constant(0) if size == 1 else AffineExpr.dimension(lead + i)
        for i, size in enumerate(shape)
    )
    return AffineMap(rank, 0, tuple(exprs))


def lower_elementwise(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    """The lowering of every op that has a `@lanes` rule."""
    from mgec.dialects.mge.elementwise import apply

    (out,) = call.output_specs
    rank = out.rank
    inputs = [
        (value, spec.dtype, broadcast_map(spec.shape, rank))
        for value, spec in zip(call.inputs, call.specs, strict=True)
    ]
    dtypes = [spec.dtype for spec in call.specs]
    return b.map(
        inputs,
        call.output_dims[0],
        out.dtype,
        lambda *xs: apply(call.op, b.lanes, xs, dtypes, call.attrs, out.dtype),
    )
