"""Loaded checkpoints as scripts expect them: a mapping of finished futures by the digest of their calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING

from flow_core.kernel.memoization import without_versions

if TYPE_CHECKING:
    from flow_core.interfaces.memoizer import Stored


class LoadedCheckpoints(Mapping[str, "Future[object]"]):
    """Futures, all done, by hexadecimal digest; a result is read from its file when its future is asked for."""

    def __init__(self, stored: Mapping[bytes, Stored]) -> None:
        self._stored = stored

    def __getitem__(self, digest: str) -> Future[object]:
        """Return a future that has the result, or the BadCheckpoint with which it could not be read back."""
        stored = self._stored[bytes.fromhex(digest)]
        future: Future[object] = Future()
        try:
            future.set_result(without_versions(stored.result())[0])
        except Exception as error:
            future.set_exception(error)
        return future

    def __iter__(self) -> Iterator[str]:
        return (digest.hex() for digest in self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __repr__(self) -> str:
        return f"<{len(self)} remembered results>"
