"""`mgec-opt`: runs passes by name on IR text, for writing and testing passes.

    mgec-opt net.mlir -p 'mge-canonicalize,mge-fold-constants{max-bytes=1024}'
    mgec-opt net.mlir --mge-canonicalize --mge-dce

It is `xdsl-opt` with the dialects that mgec uses, its passes, errors without traceback and
checks of expected errors: with `--verify-diagnostics`, every `// expected-error {{text}}` of
the input (of each piece, with `--split-input-file`) must be part of an error that the piece
gives, and an error that no comment expects is one of the command. A piece without such comments
prints its error, if there is one, as xDSL does.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import IO, TYPE_CHECKING, cast

from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    ParseError,
    ShrinkException,
    UnregisteredConstructException,
)
from xdsl.xdsl_opt_main import xDSLOptMain

from mgec import config
from mgec.compiler.loading import check_strings
from mgec.compiler.passes import all_passes
from mgec.errors import FileError, FileMissingError, IRError, MgecError, OptionError
from mgec.version import __version__

if TYPE_CHECKING:
    from xdsl.ir import Dialect

_DIALECTS = {
    "builtin": "xdsl.dialects.builtin:Builtin",
    "func": "xdsl.dialects.func:Func",
    "arith": "xdsl.dialects.arith:Arith",
    "math": "xdsl.dialects.math:Math",
    "linalg": "xdsl.dialects.linalg:Linalg",
    "tensor": "xdsl.dialects.tensor:Tensor",
    "memref": "xdsl.dialects.memref:MemRef",
    "bufferization": "xdsl.dialects.bufferization:Bufferization",
    "scf": "xdsl.dialects.scf:Scf",
    "cf": "xdsl.dialects.cf:Cf",
    "test": "xdsl.dialects.test:Test",
}
_EXPECTED = re.compile(r"//\s*expected-error\s*\{\{(.*?)\}\}")
_IR_ERRORS = (ParseError, DiagnosticException, UnregisteredConstructException, MgecError)


class OptMain(xDSLOptMain):
    """The command, set up from its arguments.

    Args:
        args: as on the command line, without the program's name; None takes sys.argv.
    """

    def __init__(self, args: Sequence[str] | None = None) -> None:
        names = set(all_passes())
        given = list(sys.argv[1:] if args is None else args)
        self._flags = [a for a in given if _pass_of(a) in names]
        super().__init__(
            "Runs passes of mgec on IR text. Every pass is also a flag, --mge-dce or "
            "--mge-decompose=keep=softmax; they run in the order given, after those of -p.",
            [a for a in given if _pass_of(a) not in names],
        )

    def register_all_dialects(self) -> None:
        for name, where in _DIALECTS.items():
            self.ctx.register_dialect(name, _lazy(where))
        self.ctx.register_dialect("mge", _mge)

    def register_all_passes(self) -> None:
        for name, factory in all_passes().items():
            self.register_pass(name, factory)

    def register_all_targets(self) -> None:
        from xdsl.targets.mlir import MLIRTarget

        self.available_targets["mlir"] = lambda: MLIRTarget

    def setup_pipeline(self) -> None:
        specs = [self.args.passes] if self.args.passes else []
        for flag in self._flags:
            options = flag.partition("=")[2]
            specs.append(_pass_of(flag) + (f"{{{options}}}" if options else ""))
        self.args.passes = ",".join(specs)
        try:
            super().setup_pipeline()
        except (ValueError, ArgSpecParseError) as error:
            raise OptionError(
                f"mgec-opt: the passes {self.args.passes!r} cannot be run: {error}",
                fix=f"passes are {', '.join(self.available_passes)}; options go in braces",
            ) from error

    def run(self) -> None:
        """Reads, runs the passes and writes, piece by piece."""
        try:
            chunks, extension = self.prepare_input()
        except FileNotFoundError as error:
            raise FileMissingError(
                f"mgec-opt: {self.args.input_file} does not exist", fix="check the path"
            ) from error
        except OSError as error:
            raise FileError(f"mgec-opt: cannot read {self.args.input_file}: {error}") from error
        except ValueError as error:
            raise OptionError(
                f"mgec-opt: {self.args.input_file} is not an .mlir file",
                fix="rename it, or give --frontend mlir",
            ) from error
        output = self.prepare_output()
        unmet: list[str] = []
        try:
            for i, (chunk, offset) in enumerate(chunks):
                if i > 0:
                    output.write("// -----\n")
                with chunk:
                    output.write(self._run_piece(chunk, extension, offset, unmet))
                output.flush()
        except ShrinkException:
            if not self.args.shrink:
                raise
            sys.stdout.write("Success, can shrink\n")
            return
        finally:
            if output is not sys.stdout:
                output.close()
        if self.args.shrink:
            sys.stdout.write("Failure, can't shrink\n")
            raise SystemExit(1)
        if unmet:
            raise IRError(
                "mgec-opt: the errors are not those expected:\n" + "\n".join(unmet),
                fix="mend the IR, the pass or the expected-error comment",
            )

    def prepare_output(self) -> IO[str]:
        try:
            return super().prepare_output()
        except OSError as error:
            raise FileError(f"mgec-opt: cannot write {self.args.output_file}: {error}") from error

    def _run_piece(self, chunk: IO[bytes], extension: str, offset: int, unmet: list[str]) -> str:
        """The output of one piece: the module, or the diagnostics that were asked for.

        Expectations that the piece does not meet are added to `unmet`.
        """
        expected: list[str] = []
        if chunk.seekable():
            data: bytes | str = chunk.read()  # text with xDSL 0.73
            text = data if isinstance(data, str) else data.decode(errors="replace")
            chunk.seek(0)
            check_strings(text, self.get_input_name())
            if self.args.verify_diagnostics:
                expected = _EXPECTED.findall(text)
        place = f"{self.get_input_name()}:{offset + 1}"
        try:
            module = self.parse_chunk(chunk, extension, offset)
            assert module is not None
            self.apply_passes(module)
            text = self.output_resulting_program(module)
        except _IR_ERRORS as error:
            if isinstance(error, ParseError):
                error.span = dataclasses.replace(error.span, line_offset=offset)
            message = _message(error)
            missing = [text for text in expected if text not in message]
            unmet += [f"{place}: {text!r} is not in the error:\n{message}" for text in missing]
            if expected:
                return ""
            asked = (
                self.args.parsing_diagnostics
                if isinstance(error, ParseError)
                else self.args.verify_diagnostics
            )
            if not asked:
                raise
            return f"{message}\n"
        unmet += [f"{place}: there is no error with {text!r}" for text in expected]
        return text


def _pass_of(argument: str) -> str:
    """`mge-decompose` for the flag `--mge-decompose=keep=softmax`; empty for another argument."""
    return argument[2:].partition("=")[0] if argument.startswith("--") else ""


def _lazy(where: str) -> Callable[[], Dialect]:
    module, _, name = where.partition(":")
    return lambda: getattr(import_module(module), name)


def _mge() -> Dialect:
    from mgec.dialects.mge.dialect import mge_dialect

    return mge_dialect()


def _message(error: Exception) -> str:
    if isinstance(error, MgecError):
        return error.render()
    notes = cast("list[str]", getattr(error, "__notes__", []))
    return "\n".join([str(error), *notes])


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        args: as on the command line; None takes sys.argv.

    Returns:
        The exit status: 0, 1 for an error in the input or a pass, 2 for a wrong option.
    """
    if "--version" in (sys.argv[1:] if args is None else args):
        sys.stdout.write(f"mgec-opt {__version__} (xdsl {version('xdsl')})\n")
        return 0
    try:
        OptMain(args).run()
    except SystemExit as error:  # argparse: 2 with its message printed, 0 for --help
        return error.code if isinstance(error.code, int) else 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OptionError as error:
        return _report(error, 2)
    except UnicodeDecodeError as error:
        return _report(IRError(f"mgec-opt: not MLIR text: {error}", fix="pass MLIR as text"), 1)
    except RecursionError:
        return _report(IRError("mgec-opt: the text is nested too deeply", fix="unnest it"), 1)
    except (*_IR_ERRORS, OSError) as error:
        return _report(error, 1)
    return 0


def _report(error: Exception, status: int) -> int:
    """Prints an error in a few lines; with MGEC_DEBUG the traceback as well."""
    if config.debug >= 1:
        import traceback

        traceback.print_exception(error)
    else:
        sys.stderr.write(f"{_message(error)}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
