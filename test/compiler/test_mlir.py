"""The crossing to upstream MLIR and to llvmlite: what is refused, and what is rewritten."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import pytest

from mgec.compiler import mlir
from mgec.compiler.codegen.llvm_backend import (
    KernelLoader,
    compile_kernel,
    emit_object,
    for_llvmlite,
    to_llvm_ir,
)
from mgec.compiler.codegen.support import support_functions
from mgec.compiler.kernels.source import CompiledKernel, KernelSource, Units
from mgec.compiler.targets import Target
from mgec.compiler.targets.target import TARGETS
from mgec.errors import CompileError

BASELINE = TARGETS["x86-64"]
BFLOAT16 = ml_dtypes.bfloat16
LOADER = KernelLoader()

# -- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("func.func @f(", "MLIR does not accept the module"),
        ("func.func @f() { %0 = arith.addi %1, %1 : i32 return }", "undeclared SSA value"),
        ('func.func @f() { "moon.rise"() : () -> () return }', "unregistered dialect"),
        (
            "func.func @f(%a: i32, %b: f32) { %0 = arith.addi %a, %b : i32 return }",
            "expects different type than prior uses",
        ),
    ],
)
def test_invalid_text(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        mlir.parse(text)


def test_an_op_that_was_not_lowered() -> None:
    module = mlir.parse("func.func @f(%a: i32) -> i32 { return %a : i32 }")
    with pytest.raises(CompileError, match=r"func\.\w+ was not lowered to the llvm dialect"):
        mlir.to_llvm_ir(module)


def test_a_pass_that_fails() -> None:
    module = mlir.parse(
        """
        func.func private @g(tensor<4xf32>) -> tensor<4xf32>
        func.func @f(%t: tensor<4xf32>) -> !shape.size {
          %0 = func.call @g(%t) : (tensor<4xf32>) -> tensor<4xf32>
          %s = shape.shape_of %0 : tensor<4xf32> -> !shape.shape
          %1 = shape.rank %s : !shape.shape -> !shape.size
          return %1 : !shape.size
        }
        """
    )
    with pytest.raises(CompileError, match="an MLIR pass failed: .*not bufferized"):
        mlir.run_passes(module, "builtin.module(one-shot-bufferize)")


def test_a_pass_that_does_not_exist() -> None:
    module = mlir.parse("func.func @f() { return }")
    with pytest.raises(CompileError, match="'no-such-pass' does not refer to a registered pass"):
        mlir.run_passes(module, "builtin.module(no-such-pass)")


def test_llvm_text_that_is_not() -> None:
    with pytest.raises(CompileError, match="LLVM does not accept the kernel"):
        emit_object("define void @f( {", BASELINE, optimize=False)


def test_a_kernel_that_cannot_be_compiled() -> None:
    with pytest.raises(CompileError):
        compile_kernel(KernelSource("k", "func.func @k_body(", 0), BASELINE)


# -- copies ----------------------------------------------------------------------------


def test_copies_become_loops() -> None:
    module = mlir.parse(
        """
        func.func @f(%a: memref<4xf32>, %b: memref<4xf32>) {
          memref.copy %a, %b : memref<4xf32> to memref<4xf32> loc("net.py":3:0)
          return
        }
        """
    )
    mlir.copies_to_loops(module)
    text = module.operation.get_asm(enable_debug_info=True)
    assert "memref.copy" not in text
    assert "linalg.copy" in text
    assert '"net.py":3:0' in text


def test_a_strided_copy_needs_no_library() -> None:
    """`memref.copy` of a view would call `memrefCopy`, which nothing provides."""
    source = KernelSource(
        "k",
        """
        func.func @k_body(%a: memref<4x4xf32>, %b: memref<2x4xf32>, %i: index, %j: index) {
          %v = memref.subview %a[0, 0] [2, 4] [2, 1] : memref<4x4xf32> to memref<2x4xf32, strided<[8, 1]>>
          memref.copy %v, %b : memref<2x4xf32, strided<[8, 1]>> to memref<2x4xf32>
          return
        }
        """,  # noqa: E501
        2,
        stage="linalg",
    )
    assert "memrefCopy" not in to_llvm_ir(source, BASELINE)
    a, b = np.arange(16, dtype=np.float32).reshape(4, 4), np.zeros((2, 4), np.float32)
    call(LOADER.load(compile_kernel(source, BASELINE)), a, b)
    np.testing.assert_array_equal(b, a[::2])


# -- version skew ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("%1 = fadd float %0, 1.000000e+00", "%1 = fadd float %0, 0x3FF0000000000000"),
        ("%1 = fadd float %0, 0.1", "%1 = fadd float %0, 0x3FB99999A0000000"),
        ("%1 = fadd double %0, 0.1", "%1 = fadd double %0, 0x3FB999999999999A"),
        ("%1 = fadd double %0, -2.5e-3", "%1 = fadd double %0, 0xBF647AE147AE147B"),
        ("%1 = fadd half %0, 1.5", "%1 = fadd half %0, 0xH3E00"),
        ("%1 = fadd bfloat %0, -3.0", "%1 = fadd bfloat %0, 0xRC040"),
        ("%1 = fadd float %0, f0x3F800000", "%1 = fadd float %0, 0x3FF0000000000000"),
        ("%1 = fadd half %0, f0x3C00", "%1 = fadd half %0, 0xH3C00"),
        ("%1 = fadd bfloat %0, f0x3F80", "%1 = fadd bfloat %0, 0xR3F80"),
        (
            "%1 = fadd double %0, f0x3FF0000000000000",
            "%1 = fadd double %0, 0x3FF0000000000000",
        ),
        ("store float +inf, ptr %p", "store float 0x7FF0000000000000, ptr %p"),
        ("store float -inf, ptr %p", "store float 0xFFF0000000000000, ptr %p"),
        ("store double +inf, ptr %p", "store double 0x7FF0000000000000, ptr %p"),
        ("store half -inf, ptr %p", "store half 0xHFC00, ptr %p"),
        ("store float +qnan, ptr %p", "store float 0x7FF8000000000000, ptr %p"),
        ("store bfloat +qnan, ptr %p", "store bfloat 0xR7FC0, ptr %p"),
        (
            "store <2 x float> <float 0.1, float -0.0>, ptr %p",
            "store <2 x float> <float 0x3FB99999A0000000, float 0x8000000000000000>, ptr %p",
        ),
        (
            "%1 = select i1 %c, float 1.0, float %x, !dbg !7",
            "%1 = select i1 %c, float 0x3FF0000000000000, float %x, !dbg !7",
        ),
        # Not constants: names, comments, integers.
        ("%1 = fadd float %a.1, %b1.5", "%1 = fadd float %a.1, %b1.5"),
        ("; float 0.1", "; float 0.1"),
        ("%1 = add i32 %0, 10", "%1 = add i32 %0, 10"),
    ],
)
def test_constants(given: str, expected: str) -> None:
    assert for_llvmlite(given) == expected


def test_what_llvmlite_must_set_itself_goes() -> None:
    text = 'source_filename = "x"\ntarget triple = "a"\ntarget datalayout = "b"\nret void'
    assert for_llvmlite(text) == "ret void"


@pytest.mark.parametrize("kind", ["float", "double", "half", "bfloat"])
def test_constants_keep_their_bits(kind: str) -> None:
    """From MLIR through the rewriting and LLVM into memory."""
    dtype = {"float": np.float32, "double": np.float64, "half": np.float16, "bfloat": BFLOAT16}
    mlir_type = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16"}[kind]
    bits = np.dtype(f"u{np.dtype(dtype[kind]).itemsize}")
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, np.iinfo(bits).max, 40, bits, endpoint=True)
    tiny = [0, 1, 1 << (bits.itemsize * 8 - 1)]
    patterns = np.concatenate([patterns, np.array(tiny, bits)])
    values = patterns.view(dtype[kind])
    with np.errstate(invalid="ignore"):
        patterns = patterns[~np.isnan(values.astype(np.float64))]  # a NaN's payload may go
    special = np.array([np.inf, -np.inf, 0.1, 1 / 3, 1e-3], np.float64).astype(dtype[kind])
    patterns = np.concatenate([patterns, special.view(bits)])
    width = bits.itemsize * 2
    stores = "\n".join(
        f"%i{i} = arith.constant {i} : index\n"
        f"%c{i} = arith.constant 0x{int(p):0{width}X} : {mlir_type}\n"
        f"memref.store %c{i}, %out[%i{i}] : memref<{patterns.size}x{mlir_type}>"
        for i, p in enumerate(patterns)
    )
    text = (
        f"func.func @k_body(%out: memref<{patterns.size}x{mlir_type}>, %a: index, %b: index) "
        f"{{\n{stores}\nreturn\n}}"
    )
    address = LOADER.load(compile_kernel(KernelSource("k", text, 1), BASELINE))
    out = np.zeros(patterns.size, bits)
    call(address, out)
    np.testing.assert_array_equal(out, patterns)


# -- 16-bit conversions ----------------------------------------------------------------


def call(address: int, *arrays: np.ndarray) -> None:
    function = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    )(address)
    buffers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
    function(buffers, None, 0, 1)


def converted(function: str, x: np.ndarray, result: type, target: Target) -> np.ndarray:
    """Calls one support function for every element."""
    names = {np.float32: "float", np.float16: "half", BFLOAT16: "bfloat"}
    source, dest = names[x.dtype.type], names[result]
    body = support_functions(" half bfloat", target).replace("weak hidden", "internal")
    text = (
        body
        + f"""
define void @k(ptr %buffers, ptr %dims, i64 %begin, i64 %end) {{
entry:
  %pp = getelementptr ptr, ptr %buffers, i64 1
  %in = load ptr, ptr %buffers
  %out = load ptr, ptr %pp
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %pi = getelementptr {source}, ptr %in, i64 %i
  %x = load {source}, ptr %pi
  %y = call {dest} @{function}({source} %x)
  %po = getelementptr {dest}, ptr %out, i64 %i
  store {dest} %y, ptr %po
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, {x.size}
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""
    )
    code = emit_object(text, target, optimize=False)
    address = LOADER.load(CompiledKernel("k", code, 2, 0, Units(), 0, "test", 0))
    out = np.zeros(x.size, result)
    call(address, x, out)
    return out


def floats() -> np.ndarray:
    """float32 values: a sample of all bits, every float16 and bfloat16, and what lies between."""
    bits = np.arange(0, 2**32, 10007, dtype=np.uint64).astype(np.uint32)
    every = np.arange(2**16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        exact = [every.view(np.float16).astype(np.float32).view(np.uint32)]
    exact.append(every.astype(np.uint32) << 16)
    near = [np.clip(e.astype(np.int64) + d, 0, 2**32 - 1) for e in exact for d in (-1, 1)]
    halfway16 = exact[0] + np.uint32(0x1000)  # ties between neighbouring float16 values
    halfwayb = exact[1] | np.uint32(0x8000)
    parts = [bits, *exact, *(n.astype(np.uint32) for n in near), halfway16, halfwayb]
    return np.concatenate(parts).view(np.float32)


def assert_same_float(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal bit by bit; a NaN is any NaN of the same sign."""
    bits = np.dtype(f"u{expected.itemsize}")
    nan = np.isnan(expected.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(actual.astype(np.float32)), nan)
    np.testing.assert_array_equal(actual.view(bits)[~nan], expected.view(bits)[~nan])
    signs = bits.itemsize * 8 - 1
    np.testing.assert_array_equal(
        actual.view(bits)[nan] >> signs, expected.view(bits)[nan] >> signs
    )


def test_float16_to_float32_exhaustively() -> None:
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):
        assert_same_float(converted("__extendhfsf2", x, np.float32, BASELINE), x.astype(np.float32))


def test_float32_to_float16() -> None:
    x = floats()
    with np.errstate(all="ignore"):
        assert_same_float(converted("__truncsfhf2", x, np.float16, BASELINE), x.astype(np.float16))


def test_float32_to_bfloat16() -> None:
    x = floats()
    with np.errstate(all="ignore"):
        assert_same_float(converted("__truncsfbf2", x, BFLOAT16, BASELINE), x.astype(BFLOAT16))


def test_support_functions_come_where_they_are_called() -> None:
    assert support_functions("fadd float", BASELINE) == ""
    assert "__truncsfbf2" in support_functions("fptrunc float %x to bfloat", BASELINE)
    assert "__truncsfhf2" in support_functions("fptrunc float %x to half", BASELINE)
    assert support_functions("fptrunc float %x to half", TARGETS["x86-64-v3"]) == ""
