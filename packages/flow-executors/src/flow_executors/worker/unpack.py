"""Unpacking of a packet into a function and its arguments. Layouts: ``wire.tasks`` and ``worker.packets``."""

from __future__ import annotations

import os
import pickle
import struct
import time
from hashlib import blake2b

from flow_core.errors import DeserializationError
from flow_core.guard import called, one_line
from flow_core.interfaces.call import DEFAULT_SPEC
from flow_core.remote.functions import load_function
from flow_executors.worker.packets import ENVELOPE, INLINE, unpack_envelope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from flow_core.interfaces.call import TaskSpec, TaskStep
    from flow_core.remote.modules import Surroundings

    Function = Callable[..., object]
    Where = tuple[int, int, int]  # descriptor, offset, size
    Payload = tuple[tuple[object, ...], dict[str, object], tuple[TaskStep, ...]]
    Variables = tuple[tuple[str, str], ...]

_RECORD = struct.Struct("<16s12xB3x")  # the key, which the loop takes by itself, and the class are left out
# Flag of ``wire.tasks``, stated again: a worker imports that module for buffers only.
_BUFFERS = 0x01
_NOTHING: Payload = ((), {}, ())
_NONE: Variables = ()
# Functions, and bytes of their blobs, that are kept loaded; beyond that all are dropped, and loaded again at need.
_FUNCTIONS_KEPT = 1024
_FUNCTION_BYTES_KEPT = 256 << 20  # of their blobs
# Looks at the index for a blob that is dropped while it is read.
_LOOKS = 8
# Seconds that a missing blob has to come from the script: a slow link, and one that is busy with others.
_BLOB_PATIENCE_S = 60.0
GENERATION = struct.Struct("<Q")
INDEX_ROW = struct.Struct("<16sIQQ")


class Unpacker:
    """Unpacks tasks; keeps the functions it has seen. ``need`` asks the manager for a blob that is missing."""

    def __init__(self, manager_pid: int, index_fd: int, need: Callable[[bytes], None]) -> None:
        self._files = f"/proc/{manager_pid}/fd/"
        self._index_fd = index_fd
        self._need = need
        self._functions: dict[bytes, tuple[Function, Surroundings | None]] = {}
        self._function_bytes = 0
        self._index = -1
        self._generation = b""
        self._read_to = 0
        self._known: dict[bytes, Where] = {}

    def unpack(self, packet: bytes) -> tuple[Function, Payload, TaskSpec, Variables]:
        """Return the task in a packet: what is to be called with what, how, and variables for this task alone.

        A tuple: an object would take as long to make as all else here.

        Raises:
            DeserializationError: the arguments or the function cannot be unpickled here; the cause is chained.
            ImportError, AttributeError: the function's module is not here, or is another version.
        """
        spec, variables = DEFAULT_SPEC, _NONE
        record: bytes | memoryview = packet
        if packet.startswith(ENVELOPE):
            file, size, content = unpack_envelope(packet)
            if file != INLINE:
                content = memoryview(self._read_file(file))
            spec, variables = pickle.loads(content[:size])
            record = content[size:]
        digest, flags = _RECORD.unpack_from(record)
        if spec.container is not None:
            return *self._unpack_for_container(digest, flags, record), spec, variables
        func, modules = self._functions.get(digest) or self._load_function(digest)
        loaded = _NOTHING
        if len(record) != _RECORD.size:
            loaded = self._load_payload(memoryview(record)[_RECORD.size :], flags, func)
        if modules is not None:
            modules.prepare()  # after the arguments, which may bring other versions of classes
        return func, loaded, spec, variables

    def _unpack_for_container(self, digest: bytes, flags: int, record: bytes | memoryview) -> tuple[Function, Payload]:
        """Return function and arguments of a task in a container: the function of a python app as it travels."""
        from flow_core.remote.bash import BashStep
        from flow_core.remote.task_container import PackedFunction

        packed = PackedFunction(self._blob(digest))
        loaded = _NOTHING
        if len(record) != _RECORD.size:
            loaded = self._load_payload(memoryview(record)[_RECORD.size :], flags, packed)
        if not any(isinstance(step, BashStep) for step in loaded[2]):
            return packed, loaded
        func, modules = self._functions.get(digest) or self._load_function(digest)
        if modules is not None:
            modules.prepare()
        return func, loaded

    def _load_payload(self, payload: memoryview, flags: int, func: Function) -> Payload:
        try:
            if flags & _BUFFERS:
                return self._load_with_buffers(payload)
            loaded: Payload = pickle.loads(payload)
        except BaseException as error:
            raise DeserializationError(
                f"the arguments of {called(func)} could not be unpickled on node {os.uname().nodename} "
                f"({one_line(error)}): are the packages that they need installed there, and is Flow there of the same "
                "release?"
            ) from error
        return loaded

    def _load_with_buffers(self, payload: memoryview) -> Payload:
        from flow_executors.wire.tasks import unpack_buffers

        refs, rest = unpack_buffers(payload)
        buffers = [self._map(ref.blob, ref.offset, ref.length, ref.hint) for ref in refs]
        loaded: Payload = pickle.loads(rest, buffers=buffers)
        return loaded

    def code(self, digest: bytes) -> bytes:
        """Return the blob of code among arguments. Raises DeserializationError: it cannot be had."""
        return self._blob(digest)

    def _load_function(self, digest: bytes) -> tuple[Function, Surroundings | None]:
        blob = self._blob(digest)
        loaded = load_function(blob)
        self._function_bytes += len(blob)
        if len(self._functions) >= _FUNCTIONS_KEPT or self._function_bytes > _FUNCTION_BYTES_KEPT:
            self._functions.clear()
            self._function_bytes = len(blob)
        self._functions[digest] = loaded
        return loaded

    # -- blobs and buffers, which lie in files of the manager

    def _blob(self, digest: bytes) -> bytes:
        """Return a function's blob, checked: the manager may have dropped it while this worker looked it up."""
        for _ in range(_LOOKS):
            number, offset, size = self._find(digest)
            try:
                fd = os.open(f"{self._files}{number}", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._forget_index()
                continue
            try:
                blob = os.pread(fd, size, offset)
            finally:
                os.close(fd)
            # The descriptor's number may be another file's by now.
            if blake2b(blob, digest_size=len(digest)).digest() == digest:
                return blob
            self._forget_index()
        raise DeserializationError(f"the code of the task (blob {digest.hex()}) was dropped here while it was read")

    def _map(self, digest: bytes, offset: int, length: int, hint: str) -> memoryview:
        """Map a buffer, copy on write: from where the sender has it if that can be opened, else from the manager."""
        try:
            fd = os.open(hint, os.O_RDONLY | os.O_CLOEXEC) if hint else -1
        except OSError:
            fd = -1
        # The hint is a path of the sender's machine: here it may be something else, or nothing.
        if fd >= 0 and not _is_meant(fd, digest, offset + length):
            os.close(fd)
            fd = -1
        if fd < 0:
            number, start, _ = self._find(digest)
            offset += start
            fd = os.open(f"{self._files}{number}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _mapped(fd, offset, length)
        finally:
            os.close(fd)

    def _find(self, digest: bytes) -> Where:
        """Return where the manager has a blob, asking for it if it is missing."""
        deadline, pause = 0.0, 0.001
        while (found := self._known.get(digest) or self._look_up(digest)) is None:
            if not deadline:
                self._need(digest)
                deadline = time.monotonic() + _BLOB_PATIENCE_S
            elif time.monotonic() > deadline:
                raise DeserializationError(
                    f"the code or a buffer of the task (blob {digest.hex()}) did not arrive in {_BLOB_PATIENCE_S:g} s"
                )
            time.sleep(pause)
            pause = min(0.05, pause * 2)
        return found

    def _forget_index(self) -> None:
        """Have the index read again from its beginning."""
        self._generation = b""
        self._known.clear()

    def _look_up(self, digest: bytes) -> Where | None:
        """Read what the index has more than last time; all of it when its generation is another."""
        if self._index < 0:
            self._index = os.open(f"{self._files}{self._index_fd}", os.O_RDONLY | os.O_CLOEXEC)
        head = os.pread(self._index, GENERATION.size, 0)
        if len(head) < GENERATION.size:
            return None  # it is being rewritten just now
        if head != self._generation:
            self._generation, self._read_to = head, GENERATION.size
            self._known.clear()
        rows = os.pread(self._index, max(0, os.fstat(self._index).st_size - self._read_to), self._read_to)
        whole = len(rows) - len(rows) % INDEX_ROW.size
        for name, number, offset, size in INDEX_ROW.iter_unpack(rows[:whole]):
            self._known[name] = number, offset, size
        self._read_to += whole
        return self._known.get(digest)

    def _read_file(self, number: int) -> bytes:
        with open(f"{self._files}{number}", "rb", buffering=0) as file:
            return file.readall()


def _is_meant(fd: int, digest: bytes, size: int) -> bool:
    """Whether an opened hint is the sender's file, not one that has the same path on this other machine."""
    return digest.hex() in os.readlink(f"/proc/self/fd/{fd}") and os.fstat(fd).st_size >= size


def _mapped(fd: int, offset: int, length: int) -> memoryview:
    import mmap

    if not length:
        return memoryview(bytearray())
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    whole = mmap.mmap(fd, offset - start + length, flags=mmap.MAP_PRIVATE, offset=start)
    return memoryview(whole)[offset - start : offset - start + length]
