"""Large buffers out of band: pickle protocol 5 buffers in files of memory that other processes of the host map.

A buffer lies in a memory file of its owner, reached as ``/proc/<pid>/fd/<n>``; the file's name holds the blob's id, so
that whoever opens the path on another machine finds out that it is not the one meant, and asks for the blob instead.
"""

from __future__ import annotations

import mmap
import os
import pickle

from flow_executors.wire.kinds import DIGEST_SIZE
from flow_executors.wire.tasks import BufferRef, unpack_buffers

LARGE = 256 << 10
"""Bytes from which a buffer travels out of band."""
_MOST_FILES = 256


def load_with_buffers(payload: memoryview, buffers: bool) -> object:
    """Unpickle a payload, with its table of buffers if it has one.

    Raises:
        Exception: whatever unpickling raises, OSError if a buffer is not there any more.
    """
    if not buffers:
        return pickle.loads(payload) if len(payload) else None
    refs, rest = unpack_buffers(payload)
    return pickle.loads(rest, buffers=[_mapped(ref) for ref in refs])


def _mapped(ref: BufferRef) -> memoryview:
    if not ref.length:
        return memoryview(b"")
    descriptor = os.open(ref.hint, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ref.blob.hex() not in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise FileNotFoundError(f"the buffer {ref.blob.hex()} is on another machine")
        whole = mmap.mmap(descriptor, ref.offset + ref.length, flags=mmap.MAP_PRIVATE)
    finally:
        os.close(descriptor)
    return memoryview(whole)[ref.offset : ref.offset + ref.length]


class Large:
    """Collects the large buffers of one pickling."""

    __slots__ = ("buffers",)

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []

    def keep_in_band(self, buffer: pickle.PickleBuffer) -> bool:
        """Answer pickle whether a buffer stays in the payload."""
        try:
            raw = buffer.raw()
        except BufferError:
            return True  # not contiguous
        if raw.nbytes < LARGE:
            return True
        self.buffers.append(raw)
        return False


class BufferStore:
    """The out-of-band buffers of tasks without outcome: one memory file a task. Any thread."""

    __slots__ = ("_by_blob", "_by_key")

    def __init__(self) -> None:
        self._by_key: dict[int, tuple[bytes, int]] = {}  # key -> blob id, descriptor
        self._by_blob: dict[bytes, int] = {}

    @property
    def full(self) -> bool:
        """Whether so many files are open that buffers should travel in band."""
        return len(self._by_key) >= _MOST_FILES

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def keep(self, key: int, buffers: list[memoryview]) -> list[BufferRef]:
        """Write the buffers of a task to a memory file; return where they lie.

        Raises:
            OSError: no memory, or no descriptor.
        """
        blob = os.urandom(DIGEST_SIZE)
        descriptor = os.memfd_create(f"flow-{blob.hex()}", os.MFD_CLOEXEC)
        refs, offset = [], 0
        try:
            hint = f"/proc/{os.getpid()}/fd/{descriptor}"
            for buffer in buffers:
                _write(descriptor, buffer)
                refs.append(BufferRef(blob, offset, buffer.nbytes, hint))
                offset += buffer.nbytes
        except BaseException:
            os.close(descriptor)
            raise
        self._by_key[key] = (blob, descriptor)
        self._by_blob[blob] = descriptor
        return refs

    def blob(self, blob: bytes) -> bytes | None:
        """Return all bytes of a task's buffers, for a node that cannot open the file."""
        descriptor = self._by_blob.get(blob)
        if descriptor is None:
            return None
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)

    def release(self, key: int) -> None:
        """A task has its outcome: its file goes when the last one that maps it is done."""
        found = self._by_key.pop(key, None)
        if found is not None:
            self._by_blob.pop(found[0], None)
            os.close(found[1])

    def clear(self) -> None:
        """Close all files."""
        for key in list(self._by_key):
            self.release(key)


def _write(descriptor: int, buffer: memoryview) -> None:
    while len(buffer):
        buffer = buffer[os.write(descriptor, buffer) :]
