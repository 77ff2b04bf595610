"""Kernels: groups of ops that are compiled to one function and run as one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from xdsl.dialects import builtin
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import HasParent, IsolatedFromAbove, IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from mgec.dialects.mge.op import MgeOp


@irdl_op_definition
class KernelOp(IRDLOperation):
    """One kernel: ops that kernel formation grouped, isolated from the rest of the graph.

        %y = mge.kernel "dense" template "contraction" in_place [0 = 2]
            (%a = %x : tensor<2x3xf32>, %b = %w : tensor<3x4xf32>, ...) -> tensor<2x4xf32> {
          %0 = mge.matmul %a, %b : ...
          mge.yield %0 : tensor<2x4xf32>
        }

    `template` names the code template that serves it. `in_place` says which result may take
    over the buffer of which operand: `[0 = 2]` puts result 0 where operand 2 was.
    """

    name = "mge.kernel"

    inputs = var_operand_def()
    outs = var_result_def()
    kernel_name = prop_def(builtin.StringAttr)
    template_attr = opt_prop_def(builtin.StringAttr, prop_name="template")
    in_place_attr = opt_prop_def(builtin.DenseArrayBase, prop_name="in_place")
    body = region_def("single_block")
    traits = traits_def(Pure(), IsolatedFromAbove())

    def __init__(
        self,
        kernel_name: str,
        inputs: Sequence[SSAValue],
        result_types: Sequence[Attribute],
        body: Region | Block | None = None,
        *,
        template: str | None = None,
        in_place: Mapping[int, int] | None = None,
    ) -> None:
        """Makes a kernel.

        Args:
            kernel_name: what reports and symbols call it; need not be unique.
            inputs: operands; the block has one argument for each.
            result_types: types of the results.
            body: the ops, ended by `mge.yield`; an empty block by default.
            template: the code template that serves it, if one is chosen.
            in_place: operand index by result index; see the class.
        """
        if body is None:
            body = Block(arg_types=[value.type for value in inputs])
        super().__init__(
            operands=[inputs],
            result_types=[result_types],
            properties={"kernel_name": builtin.StringAttr(kernel_name)},
            regions=[Region(body) if isinstance(body, Block) else body],
        )
        self.template = template
        self.in_place = in_place or {}

    @property
    def template(self) -> str | None:
        """The code template that serves the kernel, if one is chosen."""
        return None if self.template_attr is None else self.template_attr.data

    @template.setter
    def template(self, value: str | None) -> None:
        self.template_attr = None if value is None else builtin.StringAttr(value)

    @property
    def in_place(self) -> dict[int, int]:
        """Operand index by result index: that result takes over that operand's buffer."""
        if self.in_place_attr is None:
            return {}
        array = cast("builtin.DenseArrayBase[Any]", self.in_place_attr)
        flat = [int(v) for v in array.get_values()]
        return dict(zip(flat[::2], flat[1::2], strict=False))

    @in_place.setter
    def in_place(self, pairs: Mapping[int, int]) -> None:
        flat = [index for pair in sorted(pairs.items()) for index in pair]
        made = builtin.DenseArrayBase.from_list(builtin.i64, flat)
        self.in_place_attr = made if flat else None

    @property
    def yielded(self) -> tuple[SSAValue, ...]:
        """The values in the body that become the results."""
        terminator = self.body.block.last_op
        return tuple(terminator.operands) if terminator is not None else ()

    def verify_(self) -> None:
        block = self.body.block
        _check_types("block argument", [a.type for a in block.args], "operand", self.operand_types)
        if not isinstance(block.last_op, YieldOp):
            raise VerifyException("mge.kernel: the body does not end with mge.yield")
        yielded = [value.type for value in block.last_op.operands]
        _check_types("yielded value", yielded, "result", self.result_types)
        for op in block.ops:
            if op is not block.last_op and not isinstance(op, MgeOp):
                raise VerifyException(f"mge.kernel: {op.name} is not an mge op")
        self._verify_in_place()

    def _verify_in_place(self) -> None:
        array = cast("builtin.DenseArrayBase[Any] | None", self.in_place_attr)
        if array is not None and len(array.get_values()) != 2 * len(self.in_place):
            raise VerifyException("mge.kernel: in_place is not one pair for each result in it")
        taken: set[int] = set()
        for result, operand in self.in_place.items():
            if not (0 <= result < len(self.results) and 0 <= operand < len(self.operands)):
                raise VerifyException(
                    f"mge.kernel: in_place [{result} = {operand}] is out of range for "
                    f"{len(self.results)} results and {len(self.operands)} operands"
                )
            if self.results[result].type != self.operands[operand].type:
                raise VerifyException(
                    f"mge.kernel: result {result} of type {self.results[result].type} cannot take "
                    f"over operand {operand} of type {self.operands[operand].type}"
                )
            if operand in taken:
                raise VerifyException(f"mge.kernel: in_place takes over operand {operand} twice")
            taken.add(operand)

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_attribute(self.kernel_name)
        if self.template_attr is not None:
            printer.print_string(" template ")
            printer.print_attribute(self.template_attr)
        if self.in_place:
            pairs = ", ".join(f"{result} = {operand}" for result, operand in self.in_place.items())
            printer.print_string(f" in_place [{pairs}]")
        printer.print_string(" ")
        with printer.in_parens():
            for i, (argument, value) in enumerate(
                zip(self.body.block.args, self.operands, strict=True)
            ):
                printer.print_string(", " if i else "")
                printer.print_ssa_value(argument)
                printer.print_string(" = ")
                printer.print_operand(value)
                printer.print_string(" : ")
                printer.print_attribute(value.type)
        printer.print_string(" -> ")
        if len(self.results) == 1:
            printer.print_attribute(self.results[0].type)
        else:
            with printer.in_parens():
                printer.print_list(self.result_types, printer.print_attribute)
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)

    @classmethod
    def parse(cls, parser: Parser) -> KernelOp:
        kernel_name = parser.parse_str_literal(" for the name of the kernel")
        template = None
        if parser.parse_optional_keyword("template") is not None:
            template = parser.parse_str_literal(" for the name of the template")
        in_place: list[tuple[int, int]] = []
        if parser.parse_optional_keyword("in_place") is not None:
            in_place = parser.parse_comma_separated_list(
                parser.Delimiter.SQUARE, lambda: _parse_pair(parser)
            )
        bindings = parser.parse_comma_separated_list(
            parser.Delimiter.PAREN, lambda: _parse_binding(parser)
        )
        parser.parse_punctuation("->")
        results = parser.parse_optional_comma_separated_list(
            parser.Delimiter.PAREN, parser.parse_type
        )
        results = [parser.parse_type()] if results is None else results
        attributes = parser.parse_optional_attr_dict_with_keyword()
        body = parser.parse_region([argument for argument, _ in bindings])
        made = cls(
            kernel_name,
            [value for _, value in bindings],
            results,
            body,
            template=template,
            in_place=dict(in_place),
        )
        made.attributes = dict(attributes.data) if attributes else {}
        return made


@irdl_op_definition
class YieldOp(IRDLOperation):
    """Ends the body of a kernel; its operands are the results."""

    name = "mge.yield"

    values = var_operand_def()
    traits = traits_def(IsTerminator(), HasParent(KernelOp), Pure())

    def __init__(self, *values: SSAValue | Operation) -> None:
        super().__init__(operands=[values])

    def print(self, printer: Printer) -> None:
        if self.operands:
            printer.print_string(" ")
            printer.print_list(self.operands, printer.print_operand)
            printer.print_string(" : ")
            printer.print_list(self.operand_types, printer.print_attribute)
        printer.print_op_attributes(self.attributes, print_keyword=True)

    @classmethod
    def parse(cls, parser: Parser) -> YieldOp:
        values: list[SSAValue] = []
        position = parser.pos
        unresolved = parser.parse_optional_undelimited_comma_separated_list(
            parser.parse_optional_unresolved_operand, parser.parse_unresolved_operand
        )
        if unresolved is not None:
            parser.parse_punctuation(":")
            types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
            values = list(parser.resolve_operands(unresolved, types, position))
        attributes = parser.parse_optional_attr_dict_with_keyword()
        made = cls(*values)
        made.attributes = dict(attributes.data) if attributes else {}
        return made


def _check_types(what: str, have: Sequence[Attribute], of: str, want: Sequence[Attribute]) -> None:
    if len(have) != len(want):
        raise VerifyException(f"mge.kernel: {len(have)} {what}s for {len(want)} {of}s")
    for i, (a, b) in enumerate(zip(have, want, strict=True)):
        if a != b:
            raise VerifyException(f"mge.kernel: {what} {i} is {a} but {of} {i} is {b}")


def _parse_pair(parser: Parser) -> tuple[int, int]:
    result = parser.parse_integer()
    parser.parse_punctuation("=")
    return result, parser.parse_integer()


def _parse_binding(parser: Parser) -> tuple[Parser.Argument, SSAValue]:
    argument = parser.parse_argument(expect_type=False)
    parser.parse_punctuation("=")
    value = parser.parse_unresolved_operand()
    parser.parse_punctuation(":")
    type_ = parser.parse_type()
    return argument.resolve(type_), parser.resolve_operand(value, type_)


OPS = (KernelOp, YieldOp)
