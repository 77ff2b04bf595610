"""Handlers of ONNX ops, one file per family; importing this package registers all of them."""

from importlib import import_module

FAMILIES = (
    "elementwise",
    "activation",
    "reduce",
    "shape",
    "padding",
    "indexing",
    "contraction",
    "einsum",
    "convolution",
    "pooling",
    "normalization",
    "attention",
    "recurrent",
    "quantization",
    "resize",
    "grid_sample",
    "signal",
    "control_flow",
    "sequence",
)
"""Modules that register handlers, in the order of the documentation."""

for _family in FAMILIES:
    import_module(f"mgec.importers.onnx_ops.{_family}")
