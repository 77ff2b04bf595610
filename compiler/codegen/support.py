"""Functions that LLVM calls for conversions of 16-bit floats its target has no instruction for.

Compilers link them from their own library; kernels bring them along, so that code loaded into a
process or linked into an artifact never looks for a symbol. Rounding is to nearest, ties to even.
"""

from __future__ import annotations

from mgec.compiler.targets import Target

_BFLOAT = """
define weak hidden bfloat @__truncsfbf2(float %x) {
  %bits = bitcast float %x to i32
  %isnan = fcmp uno float %x, %x
  %shifted = lshr i32 %bits, 16
  %odd = and i32 %shifted, 1
  %bias = add i32 %odd, 32767
  %rounded = add i32 %bits, %bias
  %quiet = or i32 %bits, 4194304
  %chosen = select i1 %isnan, i32 %quiet, i32 %rounded
  %high = lshr i32 %chosen, 16
  %half = trunc i32 %high to i16
  %result = bitcast i16 %half to bfloat
  ret bfloat %result
}
"""

_HALF = """
define weak hidden float @__extendhfsf2(half %x) {
  %bits = bitcast half %x to i16
  %wide = zext i16 %bits to i32
  %signbit = and i32 %wide, 32768
  %sign = shl i32 %signbit, 16
  %magnitude = and i32 %wide, 32767
  %moved = shl i32 %magnitude, 13
  %small = bitcast i32 %moved to float
  %scaled = fmul float %small, 0x46F0000000000000
  %finite = bitcast float %scaled to i32
  %special = or i32 %moved, 2139095040
  %isspecial = icmp uge i32 %magnitude, 31744
  %value = select i1 %isspecial, i32 %special, i32 %finite
  %signed = or i32 %value, %sign
  %result = bitcast i32 %signed to float
  ret float %result
}

define weak hidden half @__truncsfhf2(float %x) {
  %bits = bitcast float %x to i32
  %magnitude = and i32 %bits, 2147483647
  %top = lshr i32 %bits, 16
  %sign = and i32 %top, 32768
  %absolute = bitcast i32 %magnitude to float
  %aligned = fadd float %absolute, 5.000000e-01
  %alignedbits = bitcast float %aligned to i32
  %subnormal = sub i32 %alignedbits, 1056964608
  %shifted = lshr i32 %magnitude, 13
  %odd = and i32 %shifted, 1
  %biased = add i32 %magnitude, 3355447295
  %evened = add i32 %biased, %odd
  %normal = lshr i32 %evened, 13
  %istiny = icmp ult i32 %magnitude, 947912704
  %finite = select i1 %istiny, i32 %subnormal, i32 %normal
  %islarge = icmp uge i32 %magnitude, 1199570944
  %isnan = icmp ugt i32 %magnitude, 2139095040
  %special = select i1 %isnan, i32 32256, i32 31744
  %value = select i1 %islarge, i32 %special, i32 %finite
  %signed = or i32 %value, %sign
  %small = trunc i32 %signed to i16
  %result = bitcast i16 %small to half
  ret half %result
}
"""


def support_functions(text: str, target: Target) -> str:
    """LLVM IR of the functions that code with these types may call on `target`."""
    parts: list[str] = []
    if "bfloat" in text:
        parts.append(_BFLOAT)
    if " half" in text and not target.converts_half:
        parts.append(_HALF)
    return "".join(parts)
