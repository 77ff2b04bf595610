"""mgec: a deep-learning compiler toolchain with a MegEngine-style API.

    import mgec as mge
    import mgec.functional as F
    import mgec.module as M

Names are imported on first use: ``import mgec`` costs milliseconds, and ``import mgec.runtime``
loads neither xDSL nor MLIR. To add a public name, add a row to `_ATTRIBUTES` or `_SUBMODULES`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "mgec":
    raise ImportError(
        f"this folder is the package 'mgec', but imported as {__name__!r}, which would "
        "make a second copy of every class: install the project, then import 'mgec'"
    )

if TYPE_CHECKING:
    from mgec import (
        amp,
        autodiff,
        compiler,
        config,
        core,
        data,
        device,
        dialects,
        errors,
        functional,
        hub,
        importers,
        jit,
        module,
        optimizer,
        random,
        runtime,
        serialization,
        tools,
    )
    from mgec import optimizer as optim
    from mgec.config import get_logger
    from mgec.core.tensor import Parameter, Tensor, tensor
    from mgec.device import (
        get_default_device,
        get_device_count,
        is_cuda_available,
        set_default_device,
    )
    from mgec.errors import (
        ArgumentError,
        ArtifactError,
        AxisError,
        CompileError,
        DeviceError,
        DTypeError,
        FileError,
        FileMissingError,
        GradientError,
        IRError,
        MgecError,
        ModelError,
        OptionError,
        RuntimeFailure,
        SerializationError,
        ShapeError,
        TraceError,
        UnsupportedModelError,
    )
    from mgec.serialization import load, save
    from mgec.version import __version__

# Public name -> "module:attribute".
_ATTRIBUTES = {
    "__version__": "mgec.version:__version__",
    # Tensors
    "Parameter": "mgec.core.tensor:Parameter",
    "Tensor": "mgec.core.tensor:Tensor",
    "tensor": "mgec.core.tensor:tensor",
    # Files
    "load": "mgec.serialization:load",
    "save": "mgec.serialization:save",
    # Devices
    "get_default_device": "mgec.device:get_default_device",
    "get_device_count": "mgec.device:get_device_count",
    "is_cuda_available": "mgec.device:is_cuda_available",
    "set_default_device": "mgec.device:set_default_device",
    # Messages
    "get_logger": "mgec.config:get_logger",
    # Errors
    "ArgumentError": "mgec.errors:ArgumentError",
    "ArtifactError": "mgec.errors:ArtifactError",
    "AxisError": "mgec.errors:AxisError",
    "CompileError": "mgec.errors:CompileError",
    "DTypeError": "mgec.errors:DTypeError",
    "DeviceError": "mgec.errors:DeviceError",
    "FileError": "mgec.errors:FileError",
    "FileMissingError": "mgec.errors:FileMissingError",
    "GradientError": "mgec.errors:GradientError",
    "IRError": "mgec.errors:IRError",
    "MgecError": "mgec.errors:MgecError",
    "ModelError": "mgec.errors:ModelError",
    "OptionError": "mgec.errors:OptionError",
    "RuntimeFailure": "mgec.errors:RuntimeFailure",
    "SerializationError": "mgec.errors:SerializationError",
    "ShapeError": "mgec.errors:ShapeError",
    "TraceError": "mgec.errors:TraceError",
    "UnsupportedModelError": "mgec.errors:UnsupportedModelError",
}

# Public name -> module.
_SUBMODULES = {
    "amp": "mgec.amp",
    "autodiff": "mgec.autodiff",
    "compiler": "mgec.compiler",
    "config": "mgec.config",
    "core": "mgec.core",
    "data": "mgec.data",
    "device": "mgec.device",
    "dialects": "mgec.dialects",
    "errors": "mgec.errors",
    "functional": "mgec.functional",
    "hub": "mgec.hub",
    "importers": "mgec.importers",
    "jit": "mgec.jit",
    "module": "mgec.module",
    "optim": "mgec.optimizer",
    "optimizer": "mgec.optimizer",
    "random": "mgec.random",
    "runtime": "mgec.runtime",
    "serialization": "mgec.serialization",
    "tools": "mgec.tools",
}


def __getattr__(name: str) -> Any:
    if name in _ATTRIBUTES:
        module, _, attribute = _ATTRIBUTES[name].partition(":")
        value = getattr(importlib.import_module(module), attribute)
    elif name in _SUBMODULES:
        value = importlib.import_module(_SUBMODULES[name])
    else:
        raise AttributeError(f"module 'mgec' has no attribute {name!r}")
    globals()[name] = value  # the next access is a plain lookup
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ATTRIBUTES, *_SUBMODULES})
