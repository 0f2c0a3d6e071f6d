"""The functions of a run as blobs (``flow_core.remote.functions``), named by digest: kept while tasks need them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flow_core.interfaces.call import Call
from flow_core.remote.functions import digest_of, pack_function

_LIMIT = 4096
_LIMIT_BYTES = 64 << 20
_MORE = 512
_MORE_BYTES = 16 << 20


class Functions:
    """The functions of a run that were sent or are to be. Any thread."""

    __slots__ = ("_blobs", "_by_identity", "_bytes", "_bytes_limit", "_condemned", "_limit")

    def __init__(self) -> None:
        self._by_identity: dict[int, tuple[object, bytes]] = {}  # the function is kept, so its id stays its own
        self._blobs: dict[bytes, bytes] = {}
        self._condemned: set[bytes] = set()
        self._limit = _LIMIT
        self._bytes = 0
        self._bytes_limit = _LIMIT_BYTES

    def of_call(self, call: Call) -> bytes:
        """Return the digest of a call's function as it was at the call, and keep what it names.

        Raises:
            SerializationError: it cannot be packed; the message names it.
        """
        snapshot = call.snapshot
        if snapshot is None:
            return self.digest(call.func)
        digest = snapshot.digest
        if digest not in self._blobs or digest in self._condemned:
            self._keep(digest, snapshot.blob)
        return digest

    def digest(self, func: Callable[..., object]) -> bytes:
        """Return the digest of a function of which nobody took a snapshot, packing it at its first use.

        Raises:
            SerializationError: it cannot be packed; the message names it.
        """
        known = self._by_identity.get(id(func))
        if known is not None:
            return known[1]
        blob = pack_function(func)
        digest = digest_of(blob)
        self._keep(digest, blob)
        self._by_identity[id(func)] = (func, digest)
        return digest

    def _keep(self, digest: bytes, blob: bytes) -> None:
        self._condemned.discard(digest)
        if digest not in self._blobs:
            self._blobs[digest] = blob
            self._bytes += len(blob)

    def blob(self, digest: bytes) -> bytes | None:
        """Return a blob by its digest; None if it was never made, or forgotten."""
        return self._blobs.get(digest)

    @property
    def full(self) -> bool:
        """Whether so much is kept that what is not in use should be forgotten."""
        return len(self._blobs) > self._limit or self._bytes > self._bytes_limit

    def forget_others(self, in_use: Iterable[bytes]) -> set[bytes]:
        """Forget functions whose digests are not in use; return the digests forgotten.

        In two steps: what is not in use is condemned, and forgotten at the next call if it is still not in use. A task
        that is being submitted right now keeps its function by that: much more must come before there is a next call.
        """
        keep = set(in_use)
        gone = self._condemned & self._blobs.keys() - keep
        for digest in gone:
            del self._blobs[digest]
        self._by_identity = {key: pair for key, pair in list(self._by_identity.items()) if pair[1] in keep}
        self._condemned = self._blobs.keys() - keep
        kept = list(self._blobs.items())  # at once: other threads add to it meanwhile
        used = sum(len(blob) for digest, blob in kept if digest in keep)
        self._bytes = sum(len(blob) for _, blob in kept)
        self._limit = max(_LIMIT, 2 * len(keep), len(self._blobs) + _MORE)
        self._bytes_limit = max(_LIMIT_BYTES, 2 * used, self._bytes + _MORE_BYTES)
        return gone
