"""Programs: the list of kernel calls that one run makes, as data.

The compiler builds a `Program`; binding it to kernel addresses gives a `BoundProgram` that runs.
The addresses come from a JIT in the compiling process, and from ``dlsym`` when an artifact is
loaded.

    program = Program(steps=(Step(kernel=0, units=8, slots=(Slot.io(0, 64), Slot.io(1, 64))),),
                      num_kernels=1, num_io=2)
    bound = program.bind([address_of_kernel])
    bound.run([address_of_input, address_of_output])
"""

from __future__ import annotations

import ctypes
import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from mgec import config
from mgec.errors import ArgumentError
from mgec.runtime import native

MAX_BYTES = 1 << 48
"""No arena, scratch or constant pool is larger: more than a process can address."""

# The tables have the same layout in a file and in memory: little-endian C structures of mgec.h.
_HEADER = struct.Struct("<6I3Q16x")
_STEP = struct.Struct("<6Iq")
_SLOT = struct.Struct("<2I2Q")
_MAX_U32 = (1 << 32) - 1


class SlotKind(enum.IntEnum):
    """Where the pointer of a slot comes from."""

    ARENA = 0
    IO = 1
    CONSTANT = 2
    SCRATCH = 3


@dataclass(frozen=True, slots=True)
class Slot:
    """One entry of a kernel's pointer table.

    Attributes:
        kind: The memory that it points into.
        offset: Bytes from the beginning of that memory.
        nbytes: How many bytes the kernel may touch from there.
        index: For `SlotKind.IO`: which input, or number of inputs + which output; else 0.
    """

    kind: SlotKind
    offset: int
    nbytes: int
    index: int = 0

    @classmethod
    def arena(cls, offset: int, nbytes: int) -> Slot:
        """Points into the activations of the run; multiples of 64 are aligned offsets."""
        return cls(SlotKind.ARENA, offset, nbytes)

    @classmethod
    def io(cls, index: int, nbytes: int, offset: int = 0) -> Slot:
        """Points into an input or an output, which are aligned to their element only."""
        return cls(SlotKind.IO, offset, nbytes, index)

    @classmethod
    def constant(cls, offset: int, nbytes: int) -> Slot:
        """Points into the weights, which kernels must not write."""
        return cls(SlotKind.CONSTANT, offset, nbytes)

    @classmethod
    def scratch(cls, offset: int, nbytes: int) -> Slot:
        """Points into memory that every thread has for itself, and that is lost after the step."""
        return cls(SlotKind.SCRATCH, offset, nbytes)


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call; a step begins when the one before has ended.

    Attributes:
        kernel: Index into the program's kernels.
        units: How many units of work; more than one may be split over threads, zero does nothing.
        slots: The kernel's pointer table.
        dims: The kernel's int64 sizes and parameters.
        serial: Never split the units.
    """

    kernel: int
    units: int
    slots: tuple[Slot, ...]
    dims: tuple[int, ...] = ()
    serial: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """Everything that a run does, but for the machine code and the weights.

    Attributes:
        steps: The kernel calls in order.
        num_kernels: How many kernels the steps refer to.
        num_io: How many inputs and outputs a run is given: all inputs, then all outputs.
        arena_bytes: Memory for activations, per run.
        scratch_bytes: Memory for each thread of a run.
        constants_bytes: Size of the weights.
    """

    steps: tuple[Step, ...]
    num_kernels: int
    num_io: int
    arena_bytes: int = 0
    scratch_bytes: int = 0
    constants_bytes: int = 0

    def check(self, io_nbytes: Sequence[int] | None = None) -> None:
        """Checks that every index and every range is inside what it refers to.

        Args:
            io_nbytes: Sizes of the inputs and outputs; None leaves them unchecked.

        Raises:
            ArgumentError: Naming the step, the slot, and what was expected.
        """
        sizes = {
            SlotKind.ARENA: self.arena_bytes,
            SlotKind.CONSTANT: self.constants_bytes,
            SlotKind.SCRATCH: self.scratch_bytes,
        }
        for kind, nbytes in sizes.items():
            if not 0 <= nbytes <= MAX_BYTES:
                raise _defect(f"{kind.name.lower()} has {nbytes} bytes, expected 0 to 2**48")
        for name in ("num_kernels", "num_io"):
            if not 0 <= getattr(self, name) <= _MAX_U32:
                raise _defect(f"{name} is {getattr(self, name)}, expected 0 to 2**32 - 1")
        if io_nbytes is not None and len(io_nbytes) != self.num_io:
            raise _defect(f"it has {self.num_io} inputs and outputs, expected {len(io_nbytes)}")
        for number, step in enumerate(self.steps):
            if not 0 <= step.kernel < self.num_kernels:
                raise _defect(
                    f"step {number} calls kernel {step.kernel}, "
                    f"expected 0 to {self.num_kernels - 1}"
                )
            if not 0 <= step.units < 1 << 63:
                raise _defect(f"step {number} has {step.units} units, expected 0 to 2**63 - 1")
            if any(not -(1 << 63) <= dim < 1 << 63 for dim in step.dims):
                raise _defect(f"step {number} has a dim outside int64")
            for position, slot in enumerate(step.slots):
                place = f"step {number} slot {position}"
                room = sizes.get(slot.kind, MAX_BYTES)
                if slot.kind is SlotKind.IO:
                    if not 0 <= slot.index < self.num_io:
                        raise _defect(
                            f"{place} names input or output {slot.index}, "
                            f"expected 0 to {self.num_io - 1}"
                        )
                    if io_nbytes is not None:
                        room = io_nbytes[slot.index]
                elif slot.index != 0:
                    raise _defect(f"{place} has index {slot.index}, expected 0")
                if slot.offset < 0 or slot.nbytes < 0 or slot.offset + slot.nbytes > room:
                    raise _defect(
                        f"{place} covers bytes {slot.offset} to {slot.offset + slot.nbytes} of "
                        f"{slot.kind.name.lower()}, expected at most {room}"
                    )

    def tables(self) -> tuple[bytes, bytes, bytes]:
        """The steps, slots and dims as C structures: ``mgec_step``, ``mgec_slot``, ``int64_t``."""
        steps = bytearray()
        slots = bytearray()
        dims: list[int] = []
        num_slots = 0
        for step in self.steps:
            flags = native.STEP_SERIAL if step.serial else 0
            steps += _STEP.pack(
                step.kernel,
                flags,
                num_slots,
                len(step.slots),
                len(dims),
                len(step.dims),
                step.units,
            )
            for slot in step.slots:
                slots += _SLOT.pack(slot.kind, slot.index, slot.offset, slot.nbytes)
            num_slots += len(step.slots)
            dims += step.dims
        return bytes(steps), bytes(slots), struct.pack(f"<{len(dims)}q", *dims)

    def encode(self) -> bytes:
        """The program as the PROGRAM section of an artifact.

        Raises:
            ArgumentError: When the program is not consistent.
        """
        self.check()
        steps, slots, dims = self.tables()
        header = _HEADER.pack(
            self.num_kernels,
            len(self.steps),
            len(slots) // _SLOT.size,
            len(dims) // 8,
            self.num_io,
            0,
            self.arena_bytes,
            self.scratch_bytes,
            self.constants_bytes,
        )
        return header + steps + slots + dims

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Program:
        """Reads what `encode` wrote, and accepts nothing else.

        Args:
            data: The whole section.

        Returns:
            A program whose indices and ranges are not checked yet: see `check`.

        Raises:
            ArgumentError: When the bytes are not a program.
        """
        data = bytes(data)
        if len(data) < _HEADER.size:
            raise _defect(f"it has {len(data)} bytes, expected at least {_HEADER.size}")
        fields = _HEADER.unpack_from(data)
        num_kernels, num_steps, num_slots, num_dims, num_io, reserved, arena, scratch, constants = (
            fields
        )
        if reserved != 0 or any(data[_HEADER.size - 16 : _HEADER.size]):
            raise _defect("a reserved field is not zero")
        slots_begin = _HEADER.size + num_steps * _STEP.size
        dims_begin = slots_begin + num_slots * _SLOT.size
        end = dims_begin + num_dims * 8
        if len(data) != end:
            raise _defect(f"it has {len(data)} bytes, expected {end} for its tables")

        slots: list[Slot] = []
        for kind, index, offset, nbytes in _SLOT.iter_unpack(data[slots_begin:dims_begin]):
            if kind > SlotKind.SCRATCH:
                raise _defect(f"slot {len(slots)} of the table has kind {kind}, expected 0 to 3")
            slots.append(Slot(SlotKind(kind), offset, nbytes, index))
        dims = struct.unpack(f"<{num_dims}q", data[dims_begin:])

        steps: list[Step] = []
        slot, dim = 0, 0
        for kernel, flags, first_slot, slot_count, first_dim, dim_count, units in _STEP.iter_unpack(
            data[_HEADER.size : slots_begin]
        ):
            if flags > native.STEP_SERIAL:
                raise _defect(f"step {len(steps)} has flags {flags}, expected 0 or 1")
            if (first_slot, first_dim) != (slot, dim):
                raise _defect(
                    f"step {len(steps)} begins at slot {first_slot} and dim {first_dim}, "
                    f"expected {slot} and {dim}"
                )
            slot, dim = slot + slot_count, dim + dim_count
            if slot > num_slots or dim > num_dims:
                raise _defect(f"step {len(steps)} uses slots or dims past the end of their tables")
            steps.append(
                Step(kernel, units, tuple(slots[first_slot:slot]), dims[first_dim:dim], flags != 0)
            )
        if (slot, dim) != (num_slots, num_dims):
            raise _defect(
                f"the steps use {slot} slots and {dim} dims, expected {num_slots} and {num_dims}"
            )
        return cls(tuple(steps), num_kernels, num_io, arena, scratch, constants)

    def bind(
        self,
        kernel_addresses: Sequence[int],
        constants_address: int = 0,
        *,
        threads: int | None = None,
        keep_alive: object = None,
    ) -> BoundProgram:
        """Joins the program with machine code and weights.

        Args:
            kernel_addresses: Functions of the kernel ABI, `num_kernels` of them.
            constants_address: The weights, aligned to 64 bytes and at least `constants_bytes` long.
            threads: How many threads one run may use. Default: ``config.num_threads``.
            keep_alive: The owner of code and weights; lives as long as the bound program.

        Returns:
            A program that can run.

        Raises:
            ArgumentError: When the program is not consistent, or a kernel or weights are missing.
            RuntimeFailure: When memory runs out or the system refuses a thread.
        """
        self.check()
        if len(kernel_addresses) != self.num_kernels:
            raise _defect(
                f"it was bound to {len(kernel_addresses)} kernels, expected {self.num_kernels}"
            )
        if not all(kernel_addresses):
            raise _defect(f"kernel {list(kernel_addresses).index(0)} was bound to address 0")
        if self.constants_bytes and (not constants_address or constants_address % native.ALIGNMENT):
            raise _defect(
                f"weights were bound to address {constants_address:#x}, "
                f"expected a multiple of {native.ALIGNMENT}"
            )
        return BoundProgram(self, kernel_addresses, constants_address, threads, keep_alive)


def _defect(what: str) -> ArgumentError:
    return ArgumentError(f"program: {what}", fix="this is a defect of what made the program")


class _Context:
    """The memory of one run, and the table of input and output addresses for it."""

    __slots__ = ("_destroy", "handle", "io", "io_address")

    def __init__(self, bound: BoundProgram) -> None:
        self.handle = 0
        self._destroy = native.library().context_destroy
        self.io = (ctypes.c_void_p * bound.program.num_io)()
        self.io_address = ctypes.addressof(self.io)
        pool = native.shared_pool(bound.threads)
        self.handle = native.created(
            native.library().context_create, bound.handle, pool, bound.threads
        )

    def __del__(self) -> None:
        if self.handle:
            self._destroy(self.handle)


class BoundProgram:
    """A program with its code and weights; made by `Program.bind`.

    Any number of threads may call `run` at once: each run has a context (arena, scratch) of its
    own, and contexts are kept for the next run.

    Attributes:
        program: The program.
        threads: How many threads one run may use.
        handle: The native program.
    """

    def __init__(
        self,
        program: Program,
        kernel_addresses: Sequence[int],
        constants_address: int,
        threads: int | None,
        keep_alive: object,
    ) -> None:
        self.handle = 0
        self.program = program
        self.threads = min(config.num_threads if threads is None else threads, native.MAX_THREADS)
        if self.threads < 1:
            raise ArgumentError(
                f"program: it cannot run on {self.threads} threads", fix="use 1 or more"
            )
        self._keep_alive = keep_alive
        self._free: list[_Context] = []  # append and pop are atomic: no lock
        self._num_io = program.num_io
        library = native.library()
        self._run = library.run
        self._destroy = library.program_destroy

        kernels = (ctypes.c_void_p * len(kernel_addresses))(*kernel_addresses)
        tables = [ctypes.create_string_buffer(table, len(table) or 1) for table in program.tables()]
        steps, slots, dims = (ctypes.addressof(table) for table in tables)
        desc = native.ProgramDesc(
            kernels=ctypes.addressof(kernels),
            steps=steps,
            slots=slots,
            dims=dims,
            constants=constants_address,
            constants_bytes=program.constants_bytes,
            arena_bytes=program.arena_bytes,
            scratch_bytes=program.scratch_bytes,
            num_kernels=program.num_kernels,
            num_steps=len(program.steps),
            num_slots=sum(len(step.slots) for step in program.steps),
            num_dims=sum(len(step.dims) for step in program.steps),
            num_io=program.num_io,
        )
        self.handle = native.created(library.program_create, ctypes.addressof(desc))
        self._free.append(_Context(self))

    def __del__(self) -> None:
        if self.handle:
            self._destroy(self.handle)

    def run(self, io_addresses: Sequence[int]) -> None:
        """Runs the program once.

        Args:
            io_addresses: Addresses of all inputs, then of all outputs. They are trusted: each must
                be as long as the slots that use it say, and stay alive during the call.

        Raises:
            ArgumentError: When their number is wrong.
            RuntimeFailure: When memory runs out.
        """
        try:
            context = self._free.pop()
        except IndexError:
            context = _Context(self)
        try:
            context.io[:] = io_addresses
        except ValueError:
            self._free.append(context)
            raise self._wrong_number(io_addresses) from None
        status = self._run(context.handle, context.io_address, self._num_io)
        self._free.append(context)
        if status is not None:
            native.check(status)

    def run_timed(self, io_addresses: Sequence[int]) -> list[float]:
        """Runs the program once, with a clock around each step.

        Args:
            io_addresses: As in `run`.

        Returns:
            Wall seconds of each step, waiting for its last unit included.

        Raises:
            ArgumentError: When the number of addresses is wrong.
            RuntimeFailure: When memory runs out.
        """
        seconds = (ctypes.c_double * max(len(self.program.steps), 1))()
        context = self._context(io_addresses)
        status = native.library().run_timed(
            context.handle, context.io_address, self._num_io, ctypes.addressof(seconds)
        )
        self._free.append(context)
        native.check(status)
        return list(seconds)[: len(self.program.steps)]

    def bench(
        self, io_addresses: Sequence[int], seconds: float = 1.0, max_samples: int = 100_000
    ) -> list[float]:
        """Runs the program again and again in native code.

        Args:
            io_addresses: As in `run`.
            seconds: Stop after the run that uses this time up.
            max_samples: Stop after this many runs.

        Returns:
            Wall seconds of each run, in order; at least one.

        Raises:
            ArgumentError: When the number of addresses is wrong.
            RuntimeFailure: When memory runs out.
        """
        samples = (ctypes.c_double * max_samples)()
        count = ctypes.c_int64()
        context = self._context(io_addresses)
        status = native.library().bench(
            context.handle,
            context.io_address,
            self._num_io,
            seconds,
            ctypes.addressof(samples),
            max_samples,
            ctypes.addressof(count),
        )
        self._free.append(context)
        native.check(status)
        return samples[: count.value]

    def _context(self, io_addresses: Sequence[int]) -> _Context:
        if len(io_addresses) != self._num_io:
            raise self._wrong_number(io_addresses)
        try:
            context = self._free.pop()
        except IndexError:
            context = _Context(self)
        context.io[:] = io_addresses
        return context

    def _wrong_number(self, io_addresses: Sequence[int]) -> ArgumentError:
        return ArgumentError(
            f"program: a run needs {self._num_io} addresses of inputs and outputs, "
            f"but was given {len(io_addresses)}",
            fix="pass one address per input, then one per output",
        )
