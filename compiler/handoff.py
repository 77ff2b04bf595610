"""The one crossing from xDSL to upstream MLIR.

Left of here everything is xDSL objects, right of here everything is `mlir.ir`. The text
carries locations, so upstream diagnostics still name the user's Python line.
"""

from __future__ import annotations

from io import StringIO

from xdsl.dialects.builtin import ModuleOp
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from mgec.errors import CompileError


def to_upstream_text(module: ModuleOp) -> str:
    """Generic-form MLIR text of a module that holds only upstream ops.

    Raises:
        CompileError: if the module does not verify. (Upstream code may abort the process
            on what our verifier would have caught.)
    """
    try:
        module.verify()
    except VerifyException as error:
        raise CompileError(f"lowering made an invalid module: {error}") from error
    stream = StringIO()
    Printer(stream, print_generic_format=True, print_debuginfo=True).print_op(module)
    return stream.getvalue()
