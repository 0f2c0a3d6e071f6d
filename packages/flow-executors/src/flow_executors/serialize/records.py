"""Calls as records on the wire: the function by digest, the arguments as a pickle, large buffers beside it."""

from __future__ import annotations

from flow_core.interfaces.call import Call, TryKey
from flow_executors.serialize.arguments import are_small, pack_arguments
from flow_executors.serialize.buffers import BufferStore, Large
from flow_executors.serialize.functions import Functions
from flow_executors.wire.frames import pack_record


class Records:
    """Makes the records of one client, and keeps what they refer to. Any thread.

    Attributes:
        functions: The functions that records name.
        buffers: The large buffers that records point to.
    """

    __slots__ = ("buffers", "functions")

    def __init__(self) -> None:
        self.functions = Functions()
        self.buffers = BufferStore()

    def pack(self, key: TryKey, class_id: int, call: Call) -> tuple[bytes, bytes]:
        """Return the digest of a call's function, and its record.

        Raises:
            SerializationError: the function or an argument cannot be packed; the message names it.
        """
        digest = self.functions.of_call(call)
        if self.buffers.full or are_small(call):
            return digest, pack_record(digest, key, class_id, pack_arguments(call))
        large = Large()
        payload = pack_arguments(call, large)
        if not large.buffers:
            return digest, pack_record(digest, key, class_id, payload)
        try:
            return digest, pack_record(digest, key, class_id, payload, self.buffers.keep(key, large.buffers))
        except OSError:  # no memory file to be had: in band
            return digest, pack_record(digest, key, class_id, pack_arguments(call))

    def blob(self, digest: bytes) -> bytes | None:
        """Return the function or the buffers of that digest; None if there are none (any more)."""
        return self.functions.blob(digest) or self.buffers.blob(digest)
