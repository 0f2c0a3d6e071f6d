"""Blobs on their way through the interchange: kept while there is room, asked for again when not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from flow_executors.wire.frames import BlobPiece

LIMIT = 256 << 20
"""Most bytes of blobs that are kept."""
MOST = 4096
"""Most blobs that are kept: of a function whose values change at each call there is one a call."""


class Blobs:
    """Messages by digest, the least recently used ones forgotten first, and who waits for which."""

    __slots__ = ("_arrived", "_limit", "_messages", "_size", "wanted")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._messages: OrderedDict[bytes, list[bytes]] = OrderedDict()
        self._arrived: dict[bytes, tuple[int, list[bytes]]] = {}  # incomplete: bytes so far, messages
        self._size = 0
        self.wanted: dict[bytes, set[bytes]] = {}
        """Digest -> peers that wait for it."""

    def add(self, piece: BlobPiece, message: bytes) -> bool:
        """Keep one message of a blob; True when the blob is whole with it."""
        if piece.digest in self._messages:
            return True
        size, messages = self._arrived.pop(piece.digest, (0, []))
        if piece.offset != size:
            return False  # a piece out of turn: what came before is of no use
        messages.append(message)
        size += len(piece.piece)
        if size < piece.total:
            self._arrived[piece.digest] = (size, messages)
            return False
        self._messages[piece.digest] = messages
        self._size += sum(map(len, messages))
        self._shrink(piece.digest)
        return True

    def get(self, digest: bytes) -> list[bytes] | None:
        """Return the messages of a whole blob."""
        messages = self._messages.get(digest)
        if messages is not None:
            self._messages.move_to_end(digest)
        return messages

    def forget_peer(self, peer: bytes) -> None:
        """Nobody waits at that peer any more."""
        for digest in [digest for digest, peers in self.wanted.items() if peer in peers]:
            self.wanted[digest].discard(peer)
            if not self.wanted[digest]:
                del self.wanted[digest]

    def want(self, digests: Iterable[bytes], peer: bytes) -> list[bytes]:
        """Note that a peer waits; return the digests that nobody had asked for yet."""
        fresh = []
        for digest in digests:
            if digest not in self.wanted:
                fresh.append(digest)
            self.wanted.setdefault(digest, set()).add(peer)
        return fresh

    def _shrink(self, newest: bytes) -> None:
        while len(self._messages) > 1 and (self._size > self._limit or len(self._messages) > MOST):
            digest, messages = self._messages.popitem(last=False)
            if digest == newest:
                self._messages[digest] = messages
                continue
            self._size -= sum(map(len, messages))
