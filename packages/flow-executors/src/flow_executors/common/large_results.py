"""Large parts of values, which travel beside their pickle (protocol 5) in files of memory. Standard library only.

A file of a result ends with one byte more than its buffers: the receipt. A process that has opened the file notes it
there, and the one before closes its own: worker, then manager, then client. So a result is in memory once, while it is
wanted.
"""

from __future__ import annotations

import os
import pickle
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = 256 << 10
"""Bytes from which a buffer travels beside the pickle. Within messages, payloads of more than some 64 KiB were
slower than those of a standard process pool."""
MANAGER, CLIENT = 1, 2
"""Receipts."""
# Bytes of a file's name, as many as a digest has: readers compare it with the one they were sent.
_NAME = 16


class SharedMemoryParts:
    """Bytes that are to be pickled like a buffer; pickle itself never does that. Unpickled they are what they were."""

    __slots__ = ("value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self.value = value

    def __reduce__(self) -> tuple[type, tuple[pickle.PickleBuffer]]:
        return type(self.value), (pickle.PickleBuffer(self.value),)


def carried(value: object) -> object:
    """Return large bytes wrapped so that they travel beside the pickle, all else as it is."""
    kind = type(value)
    if (kind is bytes or kind is bytearray) and len(value) >= LARGE:  # type: ignore[arg-type]  # these have a length
        return SharedMemoryParts(value)  # type: ignore[arg-type]  # one of the two
    return value


def collector(found: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """Return a buffer callback for pickle that puts large buffers into ``found`` and keeps the others in the pickle."""

    def stays(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:
            return True  # not contiguous
        if raw.nbytes < LARGE:
            return True
        found.append(raw)
        return False

    return stays


def write_file(buffers: list[memoryview]) -> tuple[int, bytes, int]:
    """Write buffers and an empty receipt into a new file of memory; return descriptor, name and size.

    Raises:
        OSError: no memory, or no descriptor.
    """
    name = os.urandom(_NAME)
    descriptor = os.memfd_create(f"flow-{name.hex()}", os.MFD_CLOEXEC)
    size = 0
    try:
        for buffer in buffers:
            rest = buffer
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            size += buffer.nbytes
        os.write(descriptor, b"\0")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, name, size


def sign(descriptor: int, who: int) -> None:
    """Note in the receipt that a file has been opened."""
    os.pwrite(descriptor, bytes((who,)), os.fstat(descriptor).st_size - 1)


def signed(descriptor: int, size: int, who: int) -> bool:
    """Return whether a file has been opened by the one given, or by one after that."""
    return os.pread(descriptor, 1, size) >= bytes((who,))


def await_receipt(descriptor: int, size: int, timeout_s: float) -> bool:
    """Wait until the manager has opened a file; False if it did not within the time."""
    # From 50 us: the manager mostly has it by then, and a worker that waits runs no task.
    pause, deadline = 0.00005, time.monotonic() + timeout_s
    while not signed(descriptor, size, MANAGER):
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(0.005, pause * 1.5)
    return True
