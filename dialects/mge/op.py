"""How an op of the mge dialect is defined: one class, whose `infer` is its signature.

    @mge_op
    class SoftmaxOp(MgeOp):
        \"\"\"Softmax along one axis...\"\"\"

        name = "mge.softmax"

        @staticmethod
        def infer(inp: TensorSpec, *, axis: int) -> TensorSpec: ...

The positional parameters of `infer` are the operands (`*inputs` is variadic, a default of
None makes an operand optional), the keyword-only parameters are the attributes, with their
Python types and defaults. The IRDL definition, the assembly format, the verifier, the
builders and the documentation are derived from that signature, so it is the only place
that says which operands, attributes, shapes and dtypes are legal.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar, cast

import numpy as np
from xdsl.dialects import builtin
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AnyAttr,
    AttrSizedOperandSegments,
    IRDLOperation,
    OpDef,
    get_accessors_from_op_def,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from mgec.dialects.mge.spec import DYNAMIC, DType, TensorSpec, dtype_of, element_type, from_type
from mgec.dialects.mge.spec import to_type as spec_to_type
from mgec.errors import ArgumentError, MgecError, Value

Plain: TypeAlias = (
    "bool | int | float | str | tuple[int, ...] | DType | np.ndarray[Any, Any] | None"
)
"""An attribute as Python code sees it."""


@dataclass(frozen=True)
class AttrParam:
    """One attribute of an op: its name, annotated Python type and default."""

    name: str
    type_name: str
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """Whether the op cannot be built without it."""
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class OperandParam:
    """One operand of an op; `kind` is "one", "optional" or "variadic"."""

    name: str
    kind: str


@dataclass(frozen=True)
class Signature:
    """Operands and attributes of an op, read off its `infer`."""

    operands: tuple[OperandParam, ...]
    attrs: tuple[AttrParam, ...]

    @staticmethod
    def of(infer: Callable[..., Any]) -> Signature:
        """Reads the signature of an `infer` function."""
        operands: list[OperandParam] = []
        attrs: list[AttrParam] = []
        for parameter in inspect.signature(infer).parameters.values():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                attrs.append(
                    AttrParam(parameter.name, str(parameter.annotation), parameter.default)
                )
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                operands.append(OperandParam(parameter.name, "variadic"))
            else:
                optional = parameter.default is None
                operands.append(OperandParam(parameter.name, "optional" if optional else "one"))
        return Signature(tuple(operands), tuple(attrs))


Op = TypeVar("Op", bound="MgeOp")


class MgeOp(IRDLOperation):
    """Base of every op in the dialect; see the module docstring for how to define one."""

    name: ClassVar[str]  # pyright: ignore[reportIncompatibleVariableOverride]
    results_names: ClassVar[tuple[str, ...]] = ("out",)
    """Names of the results; ("outs",) with `variadic_results` when infer decides how many."""
    variadic_results: ClassVar[bool] = False
    runtime_attrs: ClassVar[tuple[str, ...]] = ()
    """Integer attributes that eager kernels take at run time, so that no value of them
    makes a new kernel (the start of a slice, the padding)."""
    family: ClassVar[str] = ""
    signature: ClassVar[Signature]
    infer: ClassVar[Callable[..., TensorSpec | tuple[TensorSpec, ...]]]

    @classmethod
    def build_op(
        cls, operands: Sequence[SSAValue | None], attrs: Mapping[str, Plain] | None = None
    ) -> MgeOp:
        """Builds the op with inferred result types.

        Args:
            operands: one value per operand of the signature; None for an absent optional one.
            attrs: plain Python attributes; missing ones take their defaults.

        Raises:
            MgecError: whatever `infer` finds wrong.
        """
        full = cls.complete_attrs(attrs or {})
        specs = [None if v is None else from_type(v.type) for v in operands]
        results = cls.infer_specs(specs, full)
        return cls.create_with_types(operands, full, [spec_to_type(s) for s in results])

    @classmethod
    def create_with_types(
        cls,
        operands: Sequence[SSAValue | None],
        attrs: Mapping[str, Plain],
        result_types: Sequence[Attribute],
    ) -> MgeOp:
        """Builds the op with given result types (for kernels over run-time shapes)."""
        properties = {k: to_attribute(v) for k, v in attrs.items() if v is not None}
        if cls.has_optional_operands():
            properties["operandSegmentSizes"] = builtin.DenseArrayBase.from_list(
                builtin.i32, _segments(cls.signature, operands)
            )
        return cls.create(
            operands=[v for v in operands if v is not None],
            result_types=list(result_types),
            properties=properties,
        )

    @classmethod
    def complete_attrs(cls, attrs: Mapping[str, Plain]) -> dict[str, Plain]:
        """Fills in defaults and puts attributes into the order of the signature.

        Raises:
            ArgumentError: for an unknown or missing attribute.
        """
        params = cls.signature.attrs
        if unknown := set(attrs) - {p.name for p in params}:
            raise ArgumentError(
                f"{cls.name}: unknown attribute {', '.join(sorted(unknown))}",
                fix=f"{cls.name} takes {', '.join(p.name for p in params) or 'no attributes'}",
            )
        full: dict[str, Plain] = {}
        for p in params:
            if p.name in attrs:
                full[p.name] = _normalize(attrs[p.name], p.type_name)
            elif p.required:
                raise ArgumentError(
                    f"{cls.name}: attribute {p.name} is missing", fix=f"give {p.name}=..."
                )
            else:
                full[p.name] = p.default
        return full

    @classmethod
    def infer_specs(
        cls, specs: Sequence[TensorSpec | None], attrs: Mapping[str, Plain]
    ) -> tuple[TensorSpec, ...]:
        """Result specs; `infer` with its single result put into a tuple.

        An error of `infer` that lists no values gets the operands.
        """
        try:
            result = cls.infer(*specs, **attrs)
        except MgecError as error:
            if not error.values:
                names = _operand_names(cls.signature, len(specs))
                pairs = zip(names, specs, strict=True)
                error.values = tuple(Value(n, str(s)) for (n, _), s in pairs if s is not None)
            raise
        return (result,) if isinstance(result, TensorSpec) else tuple(result)

    @classmethod
    def has_optional_operands(cls) -> bool:
        """Whether the op needs operand segment sizes in the IR."""
        return any(p.kind == "optional" for p in cls.signature.operands)

    @property
    def attrs(self) -> dict[str, Plain]:
        """The attributes as plain Python values, defaults included."""
        return {
            p.name: from_attribute(self.properties[p.name])
            if p.name in self.properties
            else (None if p.required else p.default)
            for p in self.signature.attrs
        }

    @property
    def operand_list(self) -> list[SSAValue | None]:
        """One entry per operand of the signature (variadic ones spread), None if absent."""
        if "operandSegmentSizes" not in self.properties:
            return list(self.operands)
        segments = cast("builtin.DenseArrayBase[Any]", self.properties["operandSegmentSizes"])
        values = iter(self.operands)
        result: list[SSAValue | None] = []
        for param, count in zip(self.signature.operands, segments.get_values(), strict=True):
            if param.kind == "optional":
                result.append(next(values) if count else None)
            else:
                result.extend(next(values) for _ in range(int(count)))
        return result

    @property
    def operand_specs(self) -> list[TensorSpec | None]:
        """Specs of `operand_list`."""
        return [None if v is None else from_type(v.type) for v in self.operand_list]

    @property
    def result_specs(self) -> tuple[TensorSpec, ...]:
        """Specs of the results."""
        return tuple(from_type(r.type) for r in self.results)

    def verify_(self) -> None:
        try:
            operands, results = self.operand_specs, self.result_specs
            if not all(s is None or s.is_static for s in (*operands, *results)):
                return
            expected = self.infer_specs(operands, self.attrs)
        except MgecError as error:
            raise VerifyException(error.headline) from error
        if expected != results:
            raise VerifyException(
                f"{self.name}: result type is {_types(results)}, expected {_types(expected)}"
            )

    # -- assembly format -----------------------------------------------------------
    #   %r = mge.conv %x, %w, bias = %b {stride = [1, 1]} : (tensor<..>, ...) -> tensor<..>

    def print(self, printer: Printer) -> None:
        operands = self.operand_list
        names = _operand_names(self.signature, len(operands))
        shown = [
            (f"{name} = " if kind == "optional" else "", value)
            for (name, kind), value in zip(names, operands, strict=True)
            if value is not None
        ]
        for i, (prefix, value) in enumerate(shown):
            printer.print_string(", " if i else " ")
            printer.print_string(prefix)
            printer.print_operand(value)
        given = [
            (p, self.properties[p.name]) for p in self.signature.attrs if p.name in self.properties
        ]
        given = [(p, a) for p, a in given if p.required or not _is_default(p, a)]
        if given:
            printer.print_string(" {")
            for i, (p, attribute) in enumerate(given):
                printer.print_string(", " if i else "")
                printer.print_string(f"{p.name} = ")
                _print_plain(printer, attribute)
            printer.print_string("}")
        if self.attributes:
            printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" : ")
        printer.print_function_type(self.operand_types, self.result_types)

    @classmethod
    def parse(cls, parser: Parser) -> MgeOp:
        unresolved: list[tuple[str | None, UnresolvedOperand]] = []
        while True:
            keyword = _parse_operand_keyword(parser, cls.signature)
            operand = parser.parse_optional_unresolved_operand()
            if operand is None:
                if keyword is not None or unresolved:
                    parser.raise_error(f"{cls.name}: expected an operand")
                break
            unresolved.append((keyword, operand))
            if parser.parse_optional_punctuation(",") is None:
                break
        properties: dict[str, Attribute] = {}
        if parser.parse_optional_punctuation("{") is not None:
            while True:
                name = parser.parse_identifier()
                param = next((p for p in cls.signature.attrs if p.name == name), None)
                if param is None:
                    known = ", ".join(p.name for p in cls.signature.attrs) or "no attributes"
                    parser.raise_error(f"{cls.name}: unknown attribute {name}; it takes {known}")
                parser.parse_punctuation("=")
                properties[name] = _parse_plain(parser, param)
                if parser.parse_optional_punctuation(",") is None:
                    break
            parser.parse_punctuation("}")
        for p in cls.signature.attrs:
            if p.name not in properties:
                if p.required:
                    parser.raise_error(f"{cls.name}: attribute {p.name} is missing")
                if p.default is not None:
                    properties[p.name] = to_attribute(p.default)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        parser.parse_punctuation(":")
        position = parser.pos
        type_ = parser.parse_function_type()
        values = parser.resolve_operands(
            [operand for _, operand in unresolved], type_.inputs.data, position
        )
        keywords = [keyword for keyword, _ in unresolved]
        if cls.has_optional_operands():
            sizes = _segment_sizes(cls, keywords)
            properties["operandSegmentSizes"] = builtin.DenseArrayBase.from_list(builtin.i32, sizes)
        return cls.create(
            operands=values,
            result_types=list(type_.outputs.data),
            properties=properties,
            attributes=attributes.data if attributes else {},
        )


def mge_op(cls: type[Op]) -> type[Op]:
    """Class decorator: derives the IRDL definition from the signature of `infer`."""
    cls.signature = signature = Signature.of(cls.infer)
    cls.family = cls.__module__.rpartition(".")[2]
    clash = {p.name for p in signature.operands} & set(cls.results_names)
    assert not clash, f"{cls.name}: {clash} is both an operand and a result"
    fields: dict[str, Any] = {"name": cls.name, "traits": traits_def(Pure())}
    make_operand = {"one": operand_def, "optional": opt_operand_def, "variadic": var_operand_def}
    for operand in signature.operands:
        fields[operand.name] = make_operand[operand.kind](AnyAttr())
    for attr in signature.attrs:
        make_prop = opt_prop_def if not attr.required and attr.default is None else prop_def
        fields[f"{attr.name}_attr"] = make_prop(Attribute, prop_name=attr.name)
    for result in cls.results_names:
        fields[result] = (var_result_def if cls.variadic_results else result_def)(AnyAttr())
    if cls.has_optional_operands():
        fields["irdl_options"] = (AttrSizedOperandSegments(as_property=True),)
    definition = OpDef.from_pyrdl(type(cls.__name__, (IRDLOperation,), fields))
    for name, value in get_accessors_from_op_def(definition, cls.verify_).items():
        setattr(cls, name, value)
    return cls


# -- plain Python <-> IR attributes --------------------------------------------------


def to_attribute(value: Plain) -> Attribute:
    """The IR attribute of a plain Python value."""
    if isinstance(value, bool):
        return builtin.IntegerAttr(int(value), 1)
    if isinstance(value, int):
        return builtin.IntegerAttr(value, 64)
    if isinstance(value, float):
        return builtin.FloatAttr(value, 64)
    if isinstance(value, str):
        return builtin.StringAttr(value)
    if isinstance(value, tuple):
        return builtin.DenseArrayBase.from_list(builtin.i64, value)
    if isinstance(value, np.dtype):
        return element_type(value)
    if isinstance(value, np.ndarray):
        return dense(value)
    raise ArgumentError(f"{value!r} of type {type(value).__name__} cannot be an attribute")


def from_attribute(attribute: Attribute) -> Plain:
    """The plain Python value of an IR attribute; inverse of `to_attribute`."""
    if isinstance(attribute, builtin.IntegerAttr):
        value = cast("builtin.IntegerAttr[Any]", attribute)
        return bool(value.value.data) if value.type == builtin.i1 else value.value.data
    if isinstance(attribute, builtin.FloatAttr):
        return cast("builtin.FloatAttr[Any]", attribute).value.data
    if isinstance(attribute, builtin.StringAttr):
        return attribute.data
    if isinstance(attribute, builtin.DenseArrayBase):
        return tuple(int(v) for v in cast("builtin.DenseArrayBase[Any]", attribute).get_values())
    if isinstance(attribute, builtin.DenseIntOrFPElementsAttr):
        return dense_value(cast("builtin.DenseIntOrFPElementsAttr[Any]", attribute))
    return dtype_of(attribute)


def dense(value: np.ndarray[Any, Any]) -> Attribute:
    """A dense elements attribute holding `value` (shape and dtype kept)."""
    dtype = cast("DType", value.dtype)
    type_ = builtin.TensorType(element_type(dtype), value.shape)
    storage = value.astype(np.int8) if dtype.kind == "b" else value
    data = builtin.BytesAttr(np.ascontiguousarray(storage).tobytes())
    return builtin.DenseIntOrFPElementsAttr(cast("Any", type_), data)


def dense_value(attribute: builtin.DenseIntOrFPElementsAttr[Any]) -> np.ndarray[Any, Any]:
    """The array held by a dense elements attribute (a splat is expanded)."""
    type_ = cast("builtin.TensorType[Any]", attribute.type)
    dtype = dtype_of(type_.get_element_type())
    stored = np.dtype(np.int8) if dtype.kind == "b" else dtype
    flat = np.frombuffer(attribute.data.data, dtype=stored)
    shape = type_.get_shape()
    if flat.size == 1:
        flat = np.full(shape, flat[0], dtype=stored)
    return flat.reshape(shape).astype(dtype)


def _normalize(value: Any, type_name: str) -> Plain:
    """Accepts what users pass for an attribute of the annotated type: lists, NumPy scalars."""
    if value is None:
        return None
    if "DType" in type_name:
        return cast("DType", np.dtype(value))
    if isinstance(value, (np.ndarray, str)):
        return cast("Plain", value)
    if "tuple" in type_name:
        return tuple(int(v) for v in value)
    if type_name.startswith("float"):
        return float(value)
    if type_name.startswith("bool"):
        return bool(value)
    if type_name.startswith("int"):
        return int(value)
    return value


def _is_default(param: AttrParam, attribute: Attribute) -> bool:
    value = from_attribute(attribute)
    return not isinstance(value, np.ndarray) and bool(value == param.default)


def _print_plain(printer: Printer, attribute: Attribute) -> None:
    value = from_attribute(attribute)
    if isinstance(value, tuple):
        printer.print_string(f"[{', '.join(map(str, value))}]")
    elif isinstance(value, bool):
        printer.print_string("true" if value else "false")
    elif isinstance(value, int):
        printer.print_string(str(value))
    elif isinstance(value, float):
        printer.print_string(_float_text(value))
    else:
        printer.print_attribute(attribute)


def _float_text(value: float) -> str:
    """Decimal text that parses back to the same double; words for the others."""
    if value != value:
        return '"nan"'
    if value in (float("inf"), float("-inf")):
        return '"inf"' if value > 0 else '"-inf"'
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text


def _parse_plain(parser: Parser, param: AttrParam) -> Attribute:
    if "tuple" in param.type_name:
        numbers = parser.parse_comma_separated_list(
            parser.Delimiter.SQUARE, lambda: parser.parse_integer()
        )
        return to_attribute(tuple(numbers))
    if param.type_name.startswith("bool"):
        return to_attribute(parser.parse_boolean())
    if param.type_name.startswith("int"):
        return to_attribute(parser.parse_integer())
    if param.type_name.startswith("float"):
        text = parser.parse_optional_str_literal()
        return to_attribute(float(text) if text is not None else float(parser.parse_number()))
    if "DType" in param.type_name:
        return parser.parse_type()
    return parser.parse_attribute()


def _parse_operand_keyword(parser: Parser, signature: Signature) -> str | None:
    for operand in signature.operands:
        if operand.kind == "optional" and parser.parse_optional_keyword(operand.name) is not None:
            parser.parse_punctuation("=")
            return operand.name
    return None


def _operand_names(signature: Signature, count: int) -> list[tuple[str, str]]:
    names: list[tuple[str, str]] = []
    fixed = sum(p.kind != "variadic" for p in signature.operands)
    for p in signature.operands:
        repeat = count - fixed if p.kind == "variadic" else 1
        names += [(p.name, p.kind)] * repeat
    return names


def _segments(signature: Signature, operands: Sequence[SSAValue | None]) -> list[int]:
    sizes: list[int] = []
    index = 0
    fixed = sum(p.kind != "variadic" for p in signature.operands)
    for p in signature.operands:
        count = len(operands) - fixed if p.kind == "variadic" else 1
        sizes.append(sum(v is not None for v in operands[index : index + count]))
        index += count
    return sizes


def _segment_sizes(cls: type[MgeOp], keywords: list[str | None]) -> list[int]:
    plain = sum(k is None for k in keywords)
    required = sum(p.kind == "one" for p in cls.signature.operands)
    return [
        1
        if p.kind == "one"
        else (plain - required if p.kind == "variadic" else keywords.count(p.name))
        for p in cls.signature.operands
    ]


def _types(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(spec_to_type(s)) for s in specs)


def abstract(spec: TensorSpec) -> TensorSpec:
    """`spec` with sizes forgotten, except size 1, which decides broadcasting."""
    return TensorSpec(tuple(1 if d == 1 else DYNAMIC for d in spec.shape), spec.dtype)
