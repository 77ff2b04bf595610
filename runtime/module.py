"""Loading an artifact and calling it like a function.

module = mgec.runtime.load("model.mge")
[logits] = module(image)
module(image=image)["logits"]
"""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mgec.errors import ArgumentError, ArtifactError, DeviceError, DTypeError, MgecError, ShapeError
from mgec.runtime import host
from mgec.runtime.artifact import Artifact, IOSpec, TargetInfo, read_artifact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall times of repeated runs.

    Attributes:
        seconds: One per run, in order.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, in seconds."""
        ordered = sorted(self.seconds)
        middle = len(ordered) // 2
        return (ordered[middle] + ordered[~middle]) / 2

    @property
    def minimum(self) -> float:
        """The shortest run, in seconds."""
        return min(self.seconds)

    def percentile(self, percent: float) -> float:
        """The time that `percent` of the runs do not exceed, in seconds.

        Args:
            percent: From 0 to 100.
        """
        ordered = sorted(self.seconds)
        return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


_DLCLOSE: Callable[[int], object] | None = getattr(_ctypes, "dlclose", None)  # not on Windows


class SharedObject:
    """Machine code loaded from memory; unloaded when the last reference is gone.

    Args:
        code: A shared object for this machine.
        name: For messages.

    Raises:
        ArtifactError: When the system cannot load it.
    """

    def __init__(self, code: memoryview | bytes, name: str) -> None:
        self._name = name
        self._library: ctypes.CDLL | None = None
        self._descriptor: int | None = None
        reasons: list[str] = []
        for load in (self._load_from_memory, self._load_from_file):
            try:
                self._library = load(code)
            except OSError as error:
                reasons.append(str(error))
            if self._library is not None:
                return
        raise ArtifactError(
            f"{name}: the machine code cannot be loaded: {'; '.join(reasons)}",
            fix="re-create it with mgec compile on, or for, this system",
        )

    def _load_from_memory(self, code: memoryview | bytes) -> ctypes.CDLL | None:
        if not hasattr(os, "memfd_create"):
            return None
        descriptor = os.memfd_create("mgec-code")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(code)
            library = ctypes.CDLL(f"/proc/{os.getpid()}/fd/{descriptor}")
        except OSError:
            os.close(descriptor)
            raise
        # The loader knows libraries by path: the descriptor stays open, so that no other library
        # gets this one.
        self._descriptor = descriptor
        return library

    def _load_from_file(self, code: memoryview | bytes) -> ctypes.CDLL:
        suffix = ".dll" if os.name == "nt" else ".so"
        descriptor, path = tempfile.mkstemp(prefix="mgec-code-", suffix=suffix)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(code)
            return ctypes.CDLL(path)
        finally:
            with contextlib.suppress(OSError):  # Windows keeps a loaded file
                Path(path).unlink()

    def address_of(self, symbol: str) -> int:
        """Where a function of the library begins.

        Raises:
            ArtifactError: When the library does not export it.
        """
        assert self._library is not None
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(self._library, symbol))
        except ValueError as error:
            raise ArtifactError(
                f"{self._name}: the machine code lacks the kernel {symbol!r}",
                fix="re-create it with mgec compile",
            ) from error

    def __del__(
        self,
        dlclose: Callable[[int], object] | None = _DLCLOSE,
        close: Callable[[int], None] = os.close,
    ) -> None:
        # The defaults are there also when the interpreter ends and has emptied this module.
        if self._library is not None and dlclose is not None:
            dlclose(self._library._handle)
        if self._descriptor is not None:
            close(self._descriptor)


def load(path: str | os.PathLike[str], threads: int | None = None) -> Module:
    """Loads an artifact to run it here.

    Args:
        path: A file made by ``mgec compile``.
        threads: How many threads one call may use. Default: ``config.num_threads``.

    Returns:
        The model, ready to be called from any number of threads.

    Raises:
        ArtifactError: When the file is damaged.
        DeviceError: When none of its targets runs on this machine.
        FileMissingError: When there is no such file.
    """
    return Module(read_artifact(path), threads)


def choose_target(artifact: Artifact) -> TargetInfo:
    """The first target of an artifact that this machine can run.

    Args:
        artifact: A checked artifact.

    Raises:
        DeviceError: When there is none; says what is missing for each.
    """
    reasons: list[tuple[str, str]] = []
    headline = ""
    for target in artifact.metadata.targets:
        if not host.triple_matches(target.triple):
            here = f"{host.architecture()} {host.operating_system()}"
            reason = f"compiled for {target.triple}, this machine is {here}"
        else:
            missing = host.missing_features(target.features)
            if not missing:
                return target
            lacks = "lacks it" if len(missing) == 1 else "lacks them"
            reason = f"compiled for {', '.join(missing)}, this CPU {lacks}"
        headline = headline or f"{artifact.path}: artifact was {reason}"
        reasons.append((target.name, reason))
    raise DeviceError(headline, values=reasons, fix=f"recompile with --target {host.best_target()}")


class Module:
    """A loaded model; made by `load`.

    Args:
        artifact: A checked artifact; its file stays mapped, and weights are used from there.
        threads: How many threads one call may use. Default: ``config.num_threads``.

    Attributes:
        artifact: The artifact.
        target: The target that was chosen for this machine.
        inputs: What a call takes, in order.
        outputs: What a call returns, in order.
    """

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        import numpy as np

        self.artifact = artifact
        self.target = choose_target(artifact)
        self.inputs: list[IOSpec] = list(artifact.metadata.inputs)
        self.outputs: list[IOSpec] = list(artifact.metadata.outputs)
        name = self.target.name
        code = SharedObject(artifact.code(name), f"{artifact.path}: CODE '{name}'")
        weights = np.frombuffer(artifact.weights(name), np.uint8)
        self._bound = artifact.program(name).bind(
            [code.address_of(symbol) for symbol in self.target.kernels],
            _slow_address(weights) if weights.size else 0,
            threads=threads,
            keep_alive=(code, weights, artifact),
        )
        self._run = self._bound.run
        self._address = _address_reader()
        self._ndarray = np.ndarray
        self._empty = np.empty
        self._input_checks = [(_numpy_dtype(spec.dtype), spec.shape) for spec in self.inputs]
        self._output_checks = [(_numpy_dtype(spec.dtype), spec.shape) for spec in self.outputs]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.artifact.metadata.name

    @property
    def threads(self) -> int:
        """How many threads one call may use."""
        return self._bound.threads

    def __call__(self, *arrays: Array, **named: Array) -> Any:
        """Runs the model.

        Args:
            *arrays: Inputs in order; the element type and the shape must be those of `inputs`. An
                array that is not contiguous, or not aligned to its elements, is copied.
            **named: The remaining inputs by name.

        Returns:
            A list of new arrays in the order of `outputs`; if inputs were given by name, a
            dictionary from the outputs' names to the arrays.

        Raises:
            ArgumentError: When an input is missing, unknown or given twice.
            DTypeError: When an input has another element type.
            ShapeError: When an input has another shape.
        """
        if named or len(arrays) != len(self._input_checks):
            arrays = self._in_order(arrays, named)
        ndarray, address, empty = self._ndarray, self._address, self._empty
        addresses: list[int] = []
        copies: list[Array] | None = None
        for array, (dtype, shape) in zip(arrays, self._input_checks):  # noqa: B905 (same length, and hot)
            if (
                type(array) is not ndarray
                or array.dtype is not dtype
                or array.shape != shape
                or not array.flags.carray
            ):
                array = self._checked_input(len(addresses), array)
                copies = [array] if copies is None else [*copies, array]
            addresses.append(address(array))
        results: list[Array] = []
        for dtype, shape in self._output_checks:
            result = empty(shape, dtype)
            results.append(result)
            addresses.append(address(result))
        self._run(addresses)
        if named:
            return {spec.name: array for spec, array in zip(self.outputs, results, strict=True)}
        return results

    def run_into(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Runs the model and writes its results into arrays that exist.

        Args:
            inputs: In order, as for a call.
            outputs: In order; contiguous and writable arrays with the element types and shapes of
                `outputs`.

        Raises:
            ArgumentError: When the number of arrays is wrong, or an output cannot be written.
            DTypeError: When an array has another element type.
            ShapeError: When an array has another shape.
        """
        self._run(self._addresses(inputs, outputs)[0])

    def bench(
        self,
        seconds: float = 1.0,
        inputs: Sequence[Array] | None = None,
        max_samples: int = 100_000,
    ) -> Timing:
        """Measures runs in native code, without Python in between.

        Args:
            seconds: How long to run.
            inputs: As for a call. Default: zeros.
            max_samples: Stop after this many runs.

        Returns:
            The wall time of each run.
        """
        addresses, _keep = self._addresses(*self._arrays(inputs))
        return Timing(tuple(self._bound.bench(addresses, seconds, max_samples)))

    def profile(self, inputs: Sequence[Array] | None = None) -> list[tuple[str, float]]:
        """Runs once with a clock around each step.

        Args:
            inputs: As for a call. Default: zeros.

        Returns:
            For each step, what it is and its wall seconds.
        """
        addresses, _keep = self._addresses(*self._arrays(inputs))
        seconds = self._bound.run_timed(addresses)
        steps = self.artifact.program(self.target.name).steps
        names = self.target.steps or [self.target.kernels[step.kernel] for step in steps]
        return list(zip(names, seconds, strict=True))

    def __repr__(self) -> str:
        inputs = ", ".join(f"{spec.name}: {spec}" for spec in self.inputs)
        outputs = ", ".join(f"{spec.name}: {spec}" for spec in self.outputs)
        return f"<mgec.runtime.Module {self.name}({inputs}) -> ({outputs}) for {self.target.name}>"

    # ---- Checks -----------------------------------------------------------------------------

    def _arrays(self, inputs: Sequence[Array] | None) -> tuple[Sequence[Array], Sequence[Array]]:
        import numpy as np

        if inputs is None:
            inputs = [np.zeros(shape, dtype) for dtype, shape in self._input_checks]
        return inputs, [np.empty(shape, dtype) for dtype, shape in self._output_checks]

    def _addresses(
        self, inputs: Sequence[Array], outputs: Sequence[Array]
    ) -> tuple[list[int], list[Array]]:
        """Checked addresses, and the arrays that must stay alive until they were used."""
        if len(inputs) != len(self.inputs):
            raise self._failure(
                ArgumentError,
                f"{len(inputs)} inputs were given, expected {len(self.inputs)}",
                "inputs",
            )
        if len(outputs) != len(self.outputs):
            raise self._failure(
                ArgumentError,
                f"{len(outputs)} output arrays were given, expected {len(self.outputs)}",
                "outputs",
            )
        keep = [self._checked_input(index, array) for index, array in enumerate(inputs)]
        for spec, (dtype, _), array in zip(self.outputs, self._output_checks, outputs, strict=True):
            self._check_array("output", spec, dtype, array)
            if not array.flags.carray:
                raise self._failure(
                    ArgumentError,
                    f"output {spec.name!r} must be contiguous, aligned and writable",
                    "outputs",
                    f"pass numpy.empty({spec.shape}, {spec.dtype!r})",
                )
            keep.append(array)
        return [self._address(array) for array in keep], keep

    def _in_order(self, arrays: tuple[Array, ...], named: Mapping[str, Array]) -> tuple[Array, ...]:
        names = [spec.name for spec in self.inputs]
        for name in named:
            if name not in names:
                raise self._failure(
                    ArgumentError,
                    f"there is no input {name!r}",
                    "inputs",
                    f"use {', '.join(names)}",
                )
            if name in names[: len(arrays)]:
                raise self._failure(
                    ArgumentError, f"input {name!r} was given twice", "inputs", "give it once"
                )
        given = len(arrays) + len(named)
        if given != len(names):
            missing = [name for name in names[len(arrays) :] if name not in named]
            what = f"{given} inputs were given, expected {len(names)}"
            fix = (
                f"add {', '.join(missing)}" if missing else "leave out what follows the last input"
            )
            raise self._failure(ArgumentError, what, "inputs", fix)
        return (*arrays, *(named[name] for name in names[len(arrays) :]))

    def _checked_input(self, index: int, value: Any) -> Array:
        """A dense array of the right type and shape: the value itself wherever possible."""
        import numpy as np

        spec, (dtype, _) = self.inputs[index], self._input_checks[index]
        try:
            array = np.asarray(value)
        except Exception as error:  # what a user's __array__ raises is up to the user
            raise self._failure(
                ArgumentError, f"input {spec.name!r} is not an array: {error}", "inputs"
            ) from error
        self._check_array("input", spec, dtype, array)
        if array.flags.c_contiguous and array.flags.aligned:
            return array
        return np.array(array, order="C", copy=True)

    def _check_array(self, role: str, spec: IOSpec, dtype: np.dtype[Any], array: Array) -> None:
        if array.dtype != dtype:
            raise self._failure(
                DTypeError,
                f"{role} {spec.name!r} is {array.dtype}, expected {spec.dtype}",
                f"{role}s",
                f"pass {spec.name}.astype({spec.dtype!r})",
            )
        if array.shape != spec.shape:
            raise self._failure(
                ShapeError,
                f"{role} {spec.name!r} has shape {list(array.shape)}, expected {list(spec.shape)}",
                f"{role}s",
                "reshape or pad the array, or compile the model for this shape",
            )

    def _failure(
        self, error: Callable[..., MgecError], what: str, role: str, fix: str = ""
    ) -> MgecError:
        specs = self.inputs if role == "inputs" else self.outputs
        values = [(spec.name, str(spec)) for spec in specs]
        return error(
            f"{self.name}: {what}",
            values=values,
            fix=fix or f"pass the {role} listed above, in order",
        )


def _numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's type object; the narrow floats come from `ml_dtypes`."""
    import numpy as np

    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def _slow_address(array: Array) -> int:
    return cast("int", array.__array_interface__["data"][0])


_POINTER_OFFSET = object.__basicsize__


def _fast_address(array: Array) -> int | None:
    """Reads the first field after the object's head: 0.1 us where the interface takes 1 us."""
    return ctypes.c_void_p.from_address(id(array) + _POINTER_OFFSET).value


def _address_reader() -> Callable[[Array], int]:
    """The fast way to an array's address if it tells the truth about this interpreter and NumPy."""
    import sys

    import numpy as np

    samples: list[Array] = [
        np.zeros((2, 3), np.float32),
        np.arange(9, dtype=np.int8)[4:],
        np.zeros(0),
    ]
    if sys.implementation.name == "cpython" and all(
        _fast_address(array) == _slow_address(array) for array in samples
    ):
        return cast("Callable[[Array], int]", _fast_address)
    return _slow_address
