"""What arguments of tasks bring beside their pickle: large buffers, and code as blobs.

Buffers go out of band: pickle protocol 5 buffers in files of memory that other processes of the host map.

A buffer lies in a memory file of its owner, reached as ``/proc/<pid>/fd/<n>``; the file's name holds the blob's id, so
that a process which opens the path on another machine sees that it is not the file meant, and asks for the blob. Code
travels once to a node that asks for it; tasks name its digest.
"""

from __future__ import annotations

import mmap
import os
import pickle
import threading
from collections.abc import Mapping, Sequence

from flow_executors.common.large_results import CLIENT, LARGE, sign
from flow_executors.wire.kinds import DIGEST_SIZE
from flow_executors.wire.tasks import BufferRef, unpack_buffers

# Files of arguments that may be out, each with a descriptor of the script; beyond that buffers travel in the message.
_MOST_FILES = 256


# Blobs that no task names and that are kept, and bytes of all blobs: the next call is likely to name them again.
_SPARE = 256
_SPARE_BYTES = 16 << 20


def load_with_buffers(payload: memoryview, buffers: bool) -> object:
    """Unpickle a payload, with its table of buffers if it has one.

    Raises:
        Exception: whatever unpickling raises, OSError if a buffer is not there any more.
    """
    if not buffers:
        return pickle.loads(payload) if len(payload) else None
    refs, rest = unpack_buffers(payload)
    if not refs or not refs[0].hint:  # not in a file, but here
        size = sum(ref.length for ref in refs)
        return pickle.loads(rest[size:], buffers=[rest[ref.offset : ref.offset + ref.length] for ref in refs])
    whole = _mapped(refs)
    return pickle.loads(rest, buffers=[whole[ref.offset : ref.offset + ref.length] for ref in refs])


def let_go(payload: memoryview) -> None:
    """Give back the file of a result that comes too late. Raises BadMessage, OSError."""
    refs, _ = unpack_buffers(payload)
    if refs and refs[0].hint:
        _mapped(refs)


def _mapped(refs: Sequence[BufferRef]) -> memoryview:
    """Map the file of a result; sign that it was opened, if it has a receipt: the manager then closes its own."""
    ref, size = refs[0], max(ref.offset + ref.length for ref in refs)
    try:
        descriptor = os.open(ref.hint, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise BufferGone(f"its large buffers, in memory of the manager, are gone: {error}") from error
    try:
        if ref.blob.hex() not in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise BufferGone(f"its large buffers are gone, or on another machine: {ref.hint} is not what was meant")
        whole = mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE)
        if len(whole) > size:
            sign(descriptor, CLIENT)
    finally:
        os.close(descriptor)
    return memoryview(whole)


class BufferGone(OSError):
    """The file of a result is not there any more: its manager died, or left."""


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
    """What tasks without outcome have out of band. Any thread.

    Of buffers one memory file a task.

    Attributes:
        code: Code among their arguments.
        by_key: Id of the blob and descriptor of each task that has buffers. To be read only.
    """

    __slots__ = ("_by_blob", "by_key", "code")

    def __init__(self) -> None:
        self.code = CodeStore()
        self.by_key: dict[int, tuple[bytes, int]] = {}  # key -> blob id, descriptor
        self._by_blob: dict[bytes, int] = {}

    @property
    def full(self) -> bool:
        """Whether so many files are open that buffers should travel in band."""
        return len(self.by_key) >= _MOST_FILES

    def keep(self, key: int, buffers: list[memoryview]) -> list[BufferRef]:
        """Write the buffers of a task to a memory file; return where they lie.

        Raises:
            OSError: no memory, or no descriptor.
        """
        blob = os.urandom(DIGEST_SIZE)
        # The id in the name tells a process that opens the path elsewhere that this is not the file.
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
        self.by_key[key] = (blob, descriptor)
        self._by_blob[blob] = descriptor
        return refs

    def blob(self, blob: bytes) -> bytes | None:
        """Return all bytes of a task's buffers, for a node that cannot open the file; or code, by its digest."""
        descriptor = self._by_blob.get(blob)
        if descriptor is None:
            return self.code.blob(blob)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)

    def release(self, key: int) -> None:
        """A task has its outcome: its file goes when the last one that maps it is done."""
        if self.code.by_key:
            self.code.release(key)
        found = self.by_key.pop(key, None)
        if found is not None:
            self._by_blob.pop(found[0], None)
            os.close(found[1])

    def clear(self) -> None:
        """Close all files, and forget all code."""
        self.code = CodeStore()
        for key in list(self.by_key):
            self.release(key)


def _write(descriptor: int, buffer: memoryview) -> None:
    while len(buffer):
        buffer = buffer[os.write(descriptor, buffer) :]


class CodeStore:
    """The blobs that tasks without outcome name, and some of those of late, which are likely to be named again.

    A node may ask for the code of a task that was cancelled meanwhile, too. Any thread.

    Attributes:
        by_key: Digests of the blobs of each task without outcome. To be read only.
    """

    __slots__ = ("_blobs", "_bytes", "_lock", "_uses", "by_key")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.by_key: dict[int, tuple[bytes, ...]] = {}
        self._blobs: dict[bytes, bytes] = {}
        self._uses: dict[bytes, int] = {}
        self._bytes = 0

    def keep(self, key: int, blobs: Mapping[bytes, bytes]) -> None:
        """Keep the blobs of a task, given by their digests, until it has its outcome."""
        with self._lock:
            self.by_key[key] = tuple(blobs)
            for digest, blob in blobs.items():
                self._uses[digest] = self._uses.get(digest, 0) + 1
                if digest not in self._blobs:
                    self._blobs[digest] = blob
                    self._bytes += len(blob)

    def blob(self, digest: bytes) -> bytes | None:
        """Return a blob by its digest; None if it is not here (any more)."""
        return self._blobs.get(digest)

    def release(self, key: int) -> None:
        """A task has its outcome."""
        with self._lock:
            for digest in self.by_key.pop(key, ()):
                left = self._uses.pop(digest) - 1
                if left:
                    self._uses[digest] = left
            if len(self._blobs) - len(self._uses) > _SPARE or self._bytes > _SPARE_BYTES:
                self._forget()

    def _forget(self) -> None:
        """Forget what no task names."""
        if len(self._uses) < len(self._blobs):
            self._blobs = {digest: self._blobs[digest] for digest in self._uses}
            self._bytes = sum(map(len, self._blobs.values()))
