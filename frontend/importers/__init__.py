"""Importers: model files of other frameworks as graphs of mge ops.

    net = mge.importers.from_onnx("resnet50.onnx")
    y = net(x)

The package `onnx` is needed for it (``pip install mgec[onnx]``) and imported on first use.
"""

from mgec.importers.onnx import ImportedModel, check_onnx, from_onnx

__all__ = ["ImportedModel", "check_onnx", "from_onnx"]
