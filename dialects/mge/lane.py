"""The language in which elementwise ops say what one element is.

A rule registered with `@lanes` computes with `Lane` values through a `LaneBuilder`. The
builder decides what a lane is: one scalar inside a `linalg.generic` (the lowering that
always works) or a whole vector register (the fast templates). Both come from the same
rule, so that an op's meaning is written once and eager, traced, scalar and vector code
round alike.

A lane's type is MLIR's: "f32", "f16", "i1", "i32", ... Integers are signless; a rule that
must know about signs looks at the dtype it is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mgec.dialects.mge.spec import BOOL, DType, is_float

CMPF = {"oeq": 1, "ogt": 2, "oge": 3, "olt": 4, "ole": 5, "one": 6, "ord": 7, "ueq": 8,
        "uge": 10, "une": 13, "uno": 14}  # fmt: skip
CMPI = {"eq": 0, "ne": 1, "slt": 2, "sle": 3, "sgt": 4, "sge": 5, "ult": 6, "ule": 7,
        "ugt": 8, "uge": 9}  # fmt: skip


class Lane(NamedTuple):
    """A value in flight: whatever the builder refers to it by, and its MLIR element type."""

    ref: Any
    ty: str

    @property
    def is_float(self) -> bool:
        """Whether the element type is a floating point type."""
        return self.ty[0] in "fb"

    @property
    def bits(self) -> int:
        """Width of the element type in bits."""
        return int(self.ty.lstrip("bfi"))


def lane_type(dtype: DType) -> str:
    """The MLIR type a lane of `dtype` computes in."""
    if dtype == BOOL:
        return "i1"
    if is_float(dtype):
        return {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}[
            dtype.name
        ]
    return f"i{dtype.itemsize * 8}"


def storage_type(dtype: DType) -> str:
    """The MLIR type of an element in memory: bool takes one byte, as in NumPy."""
    return "i8" if dtype == BOOL else lane_type(dtype)


class LaneBuilder(ABC):
    """Emits arithmetic on lanes. The subclasses say how; see the module docstring."""

    has_fma: bool = True
    """Whether the target multiplies and adds in one instruction."""

    @abstractmethod
    def op(self, name: str, operands: Sequence[Lane], ty: str, **properties: int) -> Lane:
        """Emits the upstream MLIR op `name` ("arith.addf") with one result of type `ty`."""

    @abstractmethod
    def constant(self, value: float, ty: str) -> Lane:
        """A constant in every element."""

    # -- sugar: every method below is one or two ops ------------------------------------

    def like(self, value: float, lane: Lane) -> Lane:
        """A constant of the type of `lane`."""
        return self.constant(value, lane.ty)

    def _same(self, name: str, a: Lane, b: Lane) -> Lane:
        return self.op(name, (a, b), a.ty)

    def add(self, a: Lane, b: Lane) -> Lane:
        """a + b; integers wrap."""
        return self._same("arith.addf" if a.is_float else "arith.addi", a, b)

    def sub(self, a: Lane, b: Lane) -> Lane:
        """a - b; integers wrap."""
        return self._same("arith.subf" if a.is_float else "arith.subi", a, b)

    def mul(self, a: Lane, b: Lane) -> Lane:
        """a * b; integers wrap."""
        return self._same("arith.mulf" if a.is_float else "arith.muli", a, b)

    def div(self, a: Lane, b: Lane) -> Lane:
        """a / b of floats."""
        return self._same("arith.divf", a, b)

    def fma(self, a: Lane, b: Lane, c: Lane) -> Lane:
        """a * b + c, rounded once where the target can."""
        if self.has_fma or a.ty == "f64":
            return self.op("math.fma", (a, b, c), a.ty)
        return self.add(self.mul(a, b), c)

    def neg(self, a: Lane) -> Lane:
        """-a."""
        return self.op("arith.negf", (a,), a.ty) if a.is_float else self.sub(self.like(0, a), a)

    def maximum(self, a: Lane, b: Lane) -> Lane:
        """The larger; NaN if either is NaN (floats)."""
        return self._same("arith.maximumf", a, b)

    def minimum(self, a: Lane, b: Lane) -> Lane:
        """The smaller; NaN if either is NaN (floats)."""
        return self._same("arith.minimumf", a, b)

    def cmpf(self, predicate: str, a: Lane, b: Lane) -> Lane:
        """Ordered ("olt") or unordered ("une") comparison of floats."""
        return self.op("arith.cmpf", (a, b), "i1", predicate=CMPF[predicate])

    def cmpi(self, predicate: str, a: Lane, b: Lane) -> Lane:
        """Signed ("slt") or unsigned ("ult") comparison of integers."""
        return self.op("arith.cmpi", (a, b), "i1", predicate=CMPI[predicate])

    def select(self, condition: Lane, a: Lane, b: Lane) -> Lane:
        """a where the condition (i1) holds, else b."""
        return self.op("arith.select", (condition, a, b), a.ty)

    def rarely(
        self, condition: Lane, then: Callable[[], Sequence[Lane]], otherwise: Sequence[Lane]
    ) -> list[Lane]:
        """`then()` where the condition (i1) holds, else `otherwise`.

        For conditions that seldom hold: a builder may branch past `then` where none does.
        """
        return [self.select(condition, a, b) for a, b in zip(then(), otherwise, strict=True)]

    def and_(self, a: Lane, b: Lane) -> Lane:
        """Bitwise and."""
        return self._same("arith.andi", a, b)

    def or_(self, a: Lane, b: Lane) -> Lane:
        """Bitwise or."""
        return self._same("arith.ori", a, b)

    def xor(self, a: Lane, b: Lane) -> Lane:
        """Bitwise exclusive or."""
        return self._same("arith.xori", a, b)

    def shl(self, a: Lane, b: Lane) -> Lane:
        """a shifted left."""
        return self._same("arith.shli", a, b)

    def shr(self, a: Lane, b: Lane, *, signed: bool = False) -> Lane:
        """a shifted right, arithmetically if `signed`."""
        return self._same("arith.shrsi" if signed else "arith.shrui", a, b)

    def bitcast(self, a: Lane, ty: str) -> Lane:
        """The same bits as another type of the same width."""
        return self.op("arith.bitcast", (a,), ty)

    def math(self, name: str, *operands: Lane) -> Lane:
        """An op of the math dialect on floats, e.g. "floor"."""
        return self.op(f"math.{name}", operands, operands[0].ty)

    def convert(self, a: Lane, source: DType, target: DType) -> Lane:
        """Converts between element types as NumPy's `astype` does.

        Float to integer truncates towards zero (out of range is undefined, as in C; NaN is
        not an integer); anything to bool is `!= 0`.
        """
        if source == target:
            return a
        ty = lane_type(target)
        if target == BOOL:
            zero = self.like(0, a)
            return self.cmpf("une", a, zero) if a.is_float else self.cmpi("ne", a, zero)
        if a.is_float and is_float(target):
            if a.bits == 16 and ty[-2:] == "16":  # f16 <-> bf16 go through f32
                return self.op("arith.truncf", (self.op("arith.extf", (a,), "f32"),), ty)
            if a.bits == 64 and ty[-2:] == "16":
                return self.op("arith.truncf", (self._round_to_odd(a),), ty)
            wider = target.itemsize * 8 > a.bits
            return self.op("arith.extf" if wider else "arith.truncf", (a,), ty)
        unsigned = source.kind in "ub"
        if is_float(target):
            to_float = "arith.uitofp" if unsigned else "arith.sitofp"
            if target.itemsize == 2:  # through float64, which holds all but the largest int64
                wide = self.op(to_float, (a,), "f64")
                return self.op("arith.truncf", (self._round_to_odd(wide),), ty)
            return self.op(to_float, (a,), ty)
        if a.is_float:
            if target.itemsize < 4:  # NumPy goes through a wider integer and wraps
                wide = self.op("arith.fptosi", (a,), "i32")
                return self.op("arith.trunci", (wide,), ty)
            return self.op("arith.fptoui" if target.kind == "u" else "arith.fptosi", (a,), ty)
        bits = target.itemsize * 8
        if bits == a.bits:
            return a
        if bits < a.bits:
            return self.op("arith.trunci", (a,), ty)
        return self.op("arith.extui" if unsigned else "arith.extsi", (a,), ty)

    def _round_to_odd(self, a: Lane) -> Lane:
        """float64 to float32 such that rounding again to 16 bits is as if rounded once.

        An inexact result gets an odd last bit, which no tie between 16-bit values has
        (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
        There is no instruction for the direct conversion, and its library call is not
        in every C library.
        """
        near = self.op("arith.truncf", (a,), "f32")
        back = self.op("arith.extf", (near,), "f64")
        away = self.cmpf("ogt", self.math("absf", back), self.math("absf", a))
        bits = self.bitcast(near, "i32")
        one = self.like(1, bits)
        bits = self.select(away, self.sub(bits, one), bits)
        bits = self.select(self.cmpf("one", back, a), self.or_(bits, one), bits)
        return self.bitcast(bits, "f32")

    def from_storage(self, a: Lane, dtype: DType) -> Lane:
        """A lane as loaded from memory (`storage_type`), ready to compute with."""
        return self.cmpi("ne", a, self.like(0, a)) if dtype == BOOL else a

    def to_storage(self, a: Lane, dtype: DType) -> Lane:
        """A lane as it is stored to memory."""
        return self.op("arith.extui", (a,), "i8") if dtype == BOOL else a
