"""Writes kernels as upstream MLIR text: SSA names, index arithmetic, loops, vectors.

A template is Python that runs once and leaves text behind. What is known when it runs is a
Python int, what only the kernel will know is the name of an SSA value of type `index`; both
are a `Dim`, and the arithmetic folds what it can, so that one template serves static and
run-time sizes.

Buffers are flat: `memref<2^40 x T>` behind a bare pointer. The extent is a fiction (nothing
is allocated, nothing is checked); templates compute linear indices themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from math import copysign, prod
from typing import NamedTuple, TypeAlias

import ml_dtypes
import numpy as np

from mgec.compiler.kernels.source import DimRef, KernelSource, Units
from mgec.compiler.targets import Target
from mgec.dialects.mge.lane import Lane, LaneBuilder, storage_type
from mgec.dialects.mge.spec import DType

Dim: TypeAlias = "int | str"
"""A size or an index: known now, or the name of an SSA `index`."""

Size: TypeAlias = "int | DimRef | tuple[int | DimRef, ...]"
"""A size as callers give it: known, an entry of the dims table, or a product of these."""

_EXTENT = 2**40


class Buffer(NamedTuple):
    """A pointer argument: its SSA name and the MLIR type of an element in memory."""

    name: str
    ty: str

    @property
    def memref(self) -> str:
        """The memref type of the argument."""
        return f"memref<{_EXTENT}x{self.ty}>"


class Value(NamedTuple):
    """An SSA value of any MLIR type, for values carried around loops."""

    ref: str
    type: str


class KernelEmitter:
    """The text of one kernel body under construction.

    Args:
        name: symbol of the kernel.
        target: what the kernel is for.
        num_dims: how many run-time sizes the kernel takes.
    """

    def __init__(self, name: str, target: Target, num_dims: int = 0) -> None:
        self.name = name
        self.target = target
        self.num_dims = num_dims
        self._buffers: list[Buffer] = []
        self._lines: list[str] = []
        self._depth = 1
        self._count = 0
        self._constants: dict[str, str] = {}

    # -- text -------------------------------------------------------------------------

    def fresh(self) -> str:
        """A new SSA name."""
        self._count += 1
        return f"%v{self._count}"

    def line(self, text: str) -> None:
        """Appends a line."""
        self._lines.append("  " * self._depth + text)

    def let(self, text: str) -> str:
        """Appends `%v = text` and returns the name."""
        name = self.fresh()
        self.line(f"{name} = {text}")
        return name

    def constant(self, text: str, ty: str) -> str:
        """An `arith.constant`, made once at the top of the function."""
        key = f"{text} : {ty}"
        return self._constants.setdefault(key, f"%c{len(self._constants)}")

    def buffer(self, dtype: DType | str) -> Buffer:
        """Declares the next pointer argument."""
        ty = dtype if isinstance(dtype, str) else storage_type(dtype)
        made = Buffer(f"%p{len(self._buffers)}", ty)
        self._buffers.append(made)
        return made

    def finish(
        self,
        units: Units,
        *,
        scratch_bytes: int = 0,
        template: str,
        flops: int = 0,
    ) -> KernelSource:
        """The finished kernel."""
        arguments = [f"{b.name}: {b.memref} {{llvm.noalias}}" for b in self._buffers]
        arguments += [f"%d{i}: index" for i in range(self.num_dims)]
        arguments += ["%begin: index", "%end: index"]
        lines = [f"func.func @{self.name}_body({', '.join(arguments)}) {{"]
        lines += [f"  {name} = arith.constant {text}" for text, name in self._constants.items()]
        lines += [*self._lines, "  return", "}"]
        return KernelSource(
            name=self.name,
            text="\n".join(lines) + "\n",
            num_buffers=len(self._buffers),
            num_dims=self.num_dims,
            units=units,
            scratch_bytes=scratch_bytes,
            stage="vector",
            template=template,
            flops=flops,
        )

    # -- index arithmetic ----------------------------------------------------------------

    def dim(self, size: Size) -> Dim:
        """A caller's size as a `Dim`."""
        if isinstance(size, tuple):
            return self.product([self.dim(s) for s in size])
        return f"%d{size.position}" if isinstance(size, DimRef) else size

    def index(self, dim: Dim) -> str:
        """`dim` as an SSA value."""
        return dim if isinstance(dim, str) else self.constant(str(dim), "index")

    def _index_op(self, op: str, a: Dim, b: Dim) -> str:
        return self.let(f"arith.{op} {self.index(a)}, {self.index(b)} : index")

    def add(self, *dims: Dim) -> Dim:
        """The sum of `dims`."""
        known = sum(d for d in dims if isinstance(d, int))
        total: Dim = 0
        for dim in dims:
            if isinstance(dim, str):
                total = dim if total == 0 else self._index_op("addi", total, dim)
        if isinstance(total, int):
            return known
        return total if known == 0 else self._index_op("addi", total, known)

    def sub(self, a: Dim, b: Dim) -> Dim:
        """a - b."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self._index_op("subi", a, b)

    def mul(self, a: Dim, b: Dim) -> Dim:
        """a * b."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1 or b == 1:
            return b if a == 1 else a
        return self._index_op("muli", a, b)

    def div(self, a: Dim, b: Dim) -> Dim:
        """a // b for a >= 0 and b > 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        return a if b == 1 else self._index_op("divui", a, b)

    def rem(self, a: Dim, b: Dim) -> Dim:
        """a % b for a >= 0 and b > 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        return 0 if b == 1 else self._index_op("remui", a, b)

    def ceildiv(self, a: Dim, b: Dim) -> Dim:
        """ceil(a / b)."""
        return self.div(self.add(a, self.sub(b, 1)), b)

    def min(self, a: Dim, b: Dim) -> Dim:
        """The smaller, signed."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return a if a == b else self._index_op("minsi", a, b)

    def max(self, a: Dim, b: Dim) -> Dim:
        """The larger, signed."""
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return a if a == b else self._index_op("maxsi", a, b)

    def product(self, dims: Sequence[Dim]) -> Dim:
        """The product of `dims`; 1 if there are none."""
        result: Dim = prod(d for d in dims if isinstance(d, int))
        for dim in dims:
            if isinstance(dim, str):
                result = self.mul(result, dim)
        return result

    def round_down(self, a: Dim, b: int) -> Dim:
        """The largest multiple of `b` not above a >= 0."""
        if isinstance(a, int):
            return a // b * b
        return self.sub(a, self.rem(a, b))

    def delinearize(self, index: Dim, sizes: Sequence[Dim]) -> list[Dim]:
        """The row-major coordinates of a flat index."""
        result: list[Dim] = []
        for size in reversed(sizes[1:]):
            result.append(self.rem(index, size))
            index = self.div(index, size)
        return [index, *reversed(result)] if sizes else []

    def dot(self, indices: Sequence[Dim], strides: Sequence[Dim]) -> Dim:
        """The sum of index times stride."""
        return self.add(*(self.mul(i, s) for i, s in zip(indices, strides, strict=True)))

    def select(self, condition: str, a: Dim, b: Dim) -> Dim:
        """a where the condition (i1) holds, else b."""
        return self.let(f"arith.select {condition}, {self.index(a)}, {self.index(b)} : index")

    def compare(self, predicate: str, a: Dim, b: Dim) -> str:
        """An i1: "slt", "ult", "eq", ..."""
        return self.let(f"arith.cmpi {predicate}, {self.index(a)}, {self.index(b)} : index")

    def both(self, a: str, b: str) -> str:
        """Conjunction of two i1."""
        return self.let(f"arith.andi {a}, {b} : i1")

    # -- control -------------------------------------------------------------------------

    @contextmanager
    def loop(self, low: Dim, high: Dim, step: int = 1) -> Generator[Dim]:
        """`for i in range(low, high, step)`; a loop of one known iteration is no loop."""
        if isinstance(low, int) and isinstance(high, int) and low < high <= low + step:
            yield low
            return
        iv = self.fresh()
        bounds = f"{self.index(low)} to {self.index(high)} step {self.index(step)}"
        self.line(f"scf.for {iv} = {bounds} {{")
        self._depth += 1
        yield iv
        self._depth -= 1
        self.line("}")

    def fold(
        self,
        low: Dim,
        high: Dim,
        step: int,
        init: Sequence[Value],
        body: Callable[[Dim, list[Value]], Sequence[Value]],
    ) -> list[Value]:
        """A loop that carries values; a loop of at most one known iteration is no loop."""
        if isinstance(low, int) and isinstance(high, int) and high <= low + step:
            return list(body(low, list(init))) if low < high else list(init)
        types = ", ".join(v.type for v in init)
        args = [self.fresh() for _ in init]
        carried = ", ".join(f"{a} = {v.ref}" for a, v in zip(args, init, strict=True))
        result, iv = self.fresh(), self.fresh()
        bounds = f"{self.index(low)} to {self.index(high)} step {self.index(step)}"
        self.line(
            f"{result}:{len(init)} = scf.for {iv} = {bounds} iter_args({carried}) -> ({types}) {{"
        )
        self._depth += 1
        inner = [Value(a, v.type) for a, v in zip(args, init, strict=True)]
        last = body(iv, inner)
        self.line(f"scf.yield {', '.join(v.ref for v in last)} : {types}")
        self._depth -= 1
        self.line("}")
        return [Value(f"{result}#{i}", v.type) for i, v in enumerate(init)]

    @contextmanager
    def when(self, condition: str) -> Generator[None]:
        """Runs the body where the condition (i1) holds."""
        self.line(f"scf.if {condition} {{")
        self._depth += 1
        yield
        self._depth -= 1
        self.line("}")

    @contextmanager
    def otherwise(self) -> Generator[None]:
        """The other branch of the `when` just closed."""
        assert self._lines[-1].strip() == "}"
        self._lines[-1] = "  " * self._depth + "} else {"
        self._depth += 1
        yield
        self._depth -= 1
        self.line("}")

    def choose(
        self,
        condition: str,
        then: Callable[[], Sequence[Value]],
        otherwise: Callable[[], Sequence[Value]],
    ) -> list[Value]:
        """Values from one of two branches."""
        mark = len(self._lines)
        self._depth += 1
        first = then()
        types = ", ".join(v.type for v in first)
        self.line(f"scf.yield {', '.join(v.ref for v in first)} : {types}")
        self._depth -= 1
        result = self.fresh()
        opening = f"{result}:{len(first)} = scf.if {condition} -> ({types}) {{"
        self._lines.insert(mark, "  " * self._depth + opening)
        self.line("} else {")
        self._depth += 1
        second = otherwise()
        self.line(f"scf.yield {', '.join(v.ref for v in second)} : {types}")
        self._depth -= 1
        self.line("}")
        return [Value(f"{result}#{i}", v.type) for i, v in enumerate(first)]

    # -- memory --------------------------------------------------------------------------

    def load_scalar(self, buffer: Buffer, at: Dim) -> Lane:
        """One element."""
        name = self.let(f"memref.load {buffer.name}[{self.index(at)}] : {buffer.memref}")
        return Lane(name, buffer.ty)

    def prefetch(self, buffer: Buffer, at: Dim, *, write: bool = False, near: bool = False) -> None:
        """Asks for the cache line of an element; it need not exist.

        Args:
            buffer: where.
            at: the element.
            write: whether it will be written.
            near: into the first-level cache rather than the second.
        """
        how, level = "write" if write else "read", 3 if near else 2
        where = f"{buffer.name}[{self.index(at)}]"
        self.line(f"memref.prefetch {where}, {how}, locality<{level}>, data : {buffer.memref}")

    def store_scalar(self, value: Lane, buffer: Buffer, at: Dim) -> None:
        """One element."""
        self.line(f"memref.store {value.ref}, {buffer.name}[{self.index(at)}] : {buffer.memref}")


def float_text(value: float, ty: str) -> str:
    """A floating point literal with exactly the bits of `value` in type `ty`."""
    if ty == "f64":
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    if ty == "f32":
        with np.errstate(over="ignore"):
            return f"0x{int(np.float32(value).view(np.uint32)):08X}"
    if ty == "f16":
        with np.errstate(over="ignore"):
            return f"0x{int(np.float16(value).view(np.uint16)):04X}"
    return f"0x{int(np.array(value, ml_dtypes.bfloat16).view(np.uint16)):04X}"


_VECTOR_MATH = frozenset(
    f"math.{name}"
    for name in ("absf", "ceil", "copysign", "floor", "fma", "round", "roundeven", "sqrt", "trunc")
)


class VectorLanes(LaneBuilder):
    """Lanes that are vector registers (or, with `width` 0, scalars) of a `KernelEmitter`.

    Args:
        emitter: where to emit.
        width: elements per lane value; several registers per value are fine.
    """

    def __init__(self, emitter: KernelEmitter, width: int) -> None:
        self.k = emitter
        self.width = width
        self._known: dict[str, float] = {}
        self.has_fma = emitter.target.has_fma

    def type(self, ty: str) -> str:
        """The MLIR type of a lane of element type `ty`."""
        return f"vector<{self.width}x{ty}>" if self.width else ty

    @property
    def mask_type(self) -> str:
        """The MLIR type of a mask."""
        return f"vector<{self.width}xi1>"

    def op(self, name: str, operands: Sequence[Lane], ty: str, **properties: int) -> Lane:
        if name in ("arith.maximumf", "arith.minimumf"):
            for x, bound in (operands, reversed(operands)):
                if (found := self._bounded(name, x, bound)) is not None:
                    return found
        if name.startswith("math.") and name not in _VECTOR_MATH and self.width:
            return self._one_by_one(name, operands, ty)
        return Lane(self._emit(name, operands, ty, properties, self.type), ty)

    def _bounded(self, name: str, x: Lane, bound: Lane) -> Lane | None:
        """`x` bounded by a known number: the same bits, in one instruction on x86 instead of three.

        Of the special cases of the op, a number leaves NaN, which a comparison keeps where it
        is, and zeros: 0.0 is larger than -0.0.
        """
        value = self._known.get(bound.ref)
        if value is None or value != value or bound.ref == x.ref:
            return None
        if name == "arith.maximumf":
            larger = self.select(self.cmpf("olt", x, bound), bound, x)
            return self.add(larger, bound) if value == 0 and copysign(1, value) > 0 else larger
        if value == 0 and copysign(1, value) < 0:
            return None
        return self.select(self.cmpf("ogt", x, bound), bound, x)

    def _emit(
        self,
        name: str,
        operands: Sequence[Lane],
        ty: str,
        properties: dict[str, int],
        type_of: Callable[[str], str],
    ) -> str:
        refs = ", ".join(o.ref for o in operands)
        types = ", ".join(type_of(o.ty) for o in operands)
        inner = ", ".join(f"{key} = {value} : i64" for key, value in properties.items())
        braces = f" <{{{inner}}}>" if inner else ""
        return self.k.let(f'"{name}"({refs}){braces} : ({types}) -> {type_of(ty)}')

    def _one_by_one(self, name: str, operands: Sequence[Lane], ty: str) -> Lane:
        """A function of the C library, element by element."""
        results: list[str] = []
        for i in range(self.width):
            scalars = [
                Lane(
                    self.k.let(f"vector.extract {o.ref}[{i}] : {o.ty} from {self.type(o.ty)}"), o.ty
                )
                for o in operands
            ]
            results.append(self._emit(name, scalars, ty, {}, lambda t: t))
        return Lane(self.k.let(f"vector.from_elements {', '.join(results)} : {self.type(ty)}"), ty)

    def constant(self, value: float, ty: str) -> Lane:
        if ty[0] in "fb":
            text = float_text(float(value), ty)
        elif ty == "i1":
            text = "true" if value else "false"
        else:
            bits = int(ty[1:])
            text = str((int(value) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1))
        full = f"dense<{text}>" if self.width else text
        if ty == "i1" and not self.width:
            return Lane(self.k.constant("true" if value else "false", "i1"), "i1")
        made = Lane(self.k.constant(full, self.type(ty)), ty)
        if made.is_float:
            self._known[made.ref] = float(value)
        return made

    def value(self, lane: Lane) -> Value:
        """A lane with its MLIR type, to carry around a loop."""
        return Value(lane.ref, self.type(lane.ty))

    def rarely(
        self, condition: Lane, then: Callable[[], Sequence[Lane]], otherwise: Sequence[Lane]
    ) -> list[Lane]:
        anywhere = condition.ref
        if self.width:
            kind = f"{self.type('i1')} into i1"
            anywhere = self.k.let(f"vector.reduction <or>, {condition.ref} : {kind}")
        chosen = self.k.choose(
            anywhere,
            lambda: [
                self.value(v) for v in super(VectorLanes, self).rarely(condition, then, otherwise)
            ],
            lambda: [self.value(v) for v in otherwise],
        )
        return [Lane(v.ref, o.ty) for v, o in zip(chosen, otherwise, strict=True)]

    def splat(self, scalar: Lane) -> Lane:
        """A scalar in every element."""
        if not self.width:
            return scalar
        ref = self.k.let(f"vector.broadcast {scalar.ref} : {scalar.ty} to {self.type(scalar.ty)}")
        return Lane(ref, scalar.ty)

    # -- memory --------------------------------------------------------------------------

    def mask(self, count: Dim) -> str:
        """A mask of the first `count` elements (any integer: it is clamped)."""
        return self.k.let(f"vector.create_mask {self.k.index(count)} : {self.mask_type}")

    def load(self, buffer: Buffer, at: Dim, mask: str | None = None) -> Lane:
        """Consecutive elements; where the mask is off, zeros."""
        k, ty = self.k, self.type(buffer.ty)
        where = f"{buffer.name}[{k.index(at)}]"
        if mask is None:
            return Lane(k.let(f"vector.load {where} : {buffer.memref}, {ty}"), buffer.ty)
        zero = self.constant(0, buffer.ty).ref
        types = f"{buffer.memref}, {self.mask_type}, {ty} into {ty}"
        return Lane(k.let(f"vector.maskedload {where}, {mask}, {zero} : {types}"), buffer.ty)

    def store(self, value: Lane, buffer: Buffer, at: Dim, mask: str | None = None) -> None:
        """Consecutive elements; where the mask is off, memory stays as it is."""
        k, ty = self.k, self.type(value.ty)
        where = f"{buffer.name}[{k.index(at)}]"
        if mask is None:
            k.line(f"vector.store {value.ref}, {where} : {buffer.memref}, {ty}")
        else:
            types = f"{buffer.memref}, {self.mask_type}, {ty}"
            k.line(f"vector.maskedstore {where}, {mask}, {value.ref} : {types}")

    def load_splat(self, buffer: Buffer, at: Dim) -> Lane:
        """One element of memory, in every element."""
        return self.splat(self.k.load_scalar(buffer, at))

    def iota(self, step: Dim = 1, ty: str = "i64") -> str:
        """The vector 0, step, 2 step, ... of integers."""
        if isinstance(step, int):
            text = ", ".join(str(i * step) for i in range(self.width))
            return self.k.constant(f"dense<[{text}]>", self.type(ty))
        wide = self.k.let(f"arith.index_cast {step} : index to {ty}")
        splat = self.k.let(f"vector.broadcast {wide} : {ty} to {self.type(ty)}")
        return self.k.let(f"arith.muli {splat}, {self.iota(1, ty)} : {self.type(ty)}")

    def gather(
        self, buffer: Buffer, at: Dim, offsets: str, mask: str | None = None, ty: str = "i64"
    ) -> Lane:
        """Elements at `at + offsets[i]`; where the mask is off, zeros."""
        k = self.k
        on = mask or k.constant("dense<true>", self.mask_type)
        zero = self.constant(0, buffer.ty).ref
        vector = self.type(buffer.ty)
        types = f"{buffer.memref}, {self.type(ty)}, {self.mask_type}, {vector} into {vector}"
        where = f"{buffer.name}[{k.index(at)}] [{offsets}], {on}, {zero}"
        return Lane(k.let(f"vector.gather {where} : {types}"), buffer.ty)

    def scatter(
        self, value: Lane, buffer: Buffer, at: Dim, offsets: str, mask: str | None = None
    ) -> None:
        """Stores element i at `at + offsets[i]`."""
        k = self.k
        on = mask or k.constant("dense<true>", self.mask_type)
        types = f"{buffer.memref}, {self.type('i64')}, {self.mask_type}, {self.type(value.ty)}"
        k.line(
            f"vector.scatter {buffer.name}[{k.index(at)}] [{offsets}], {on}, {value.ref} : {types}"
        )

    def reduce(self, kind: str, value: Lane) -> Lane:
        """All elements folded into one scalar: "add", "mul", "maxsi", "maximumf", ..."""
        if not self.width:
            return value
        text = f"vector.reduction <{kind}>, {value.ref} : {self.type(value.ty)} into {value.ty}"
        return Lane(self.k.let(text), value.ty)

    def shuffle(self, a: Lane, b: Lane, order: Sequence[int]) -> Lane:
        """Elements of a (0...) and b (width...) in the given order."""
        ty = self.type(a.ty)
        text = ", ".join(map(str, order))
        return Lane(self.k.let(f"vector.shuffle {a.ref}, {b.ref} [{text}] : {ty}, {ty}"), a.ty)
