"""Code among the arguments of tasks as blobs: each travels once to a node that asks for it, tasks name its digest."""

from __future__ import annotations

import threading
from collections.abc import Mapping

# Blobs that no task names and that are kept, and bytes of all blobs: the next call is likely to name them again.
_SPARE = 256
_SPARE_BYTES = 16 << 20


class CodeStore:
    """The blobs that tasks without outcome name, and some of those of late, which are likely to be named again.

    A node may ask for the code of a task that was cancelled meanwhile, too. Any thread.
    """

    __slots__ = ("_blobs", "_by_key", "_bytes", "_lock", "_uses")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: dict[int, tuple[bytes, ...]] = {}
        self._blobs: dict[bytes, bytes] = {}
        self._uses: dict[bytes, int] = {}
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def keep(self, key: int, blobs: Mapping[bytes, bytes]) -> None:
        """Keep the blobs of a task, given by their digests, until it has its outcome."""
        with self._lock:
            self._by_key[key] = tuple(blobs)
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
            for digest in self._by_key.pop(key, ()):
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
