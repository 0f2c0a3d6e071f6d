"""Large buffers out of band: pickle protocol 5 buffers in files of memory that other processes of the host map."""

from __future__ import annotations

import mmap
import os
import pickle

from flow_executors.wire.tasks import BufferRef, unpack_buffers


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
        whole = mmap.mmap(descriptor, ref.offset + ref.length, flags=mmap.MAP_PRIVATE)
    finally:
        os.close(descriptor)
    return memoryview(whole)[ref.offset : ref.offset + ref.length]
