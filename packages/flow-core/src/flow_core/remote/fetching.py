"""Blobs that a process which runs tasks asks for by their digests."""

from __future__ import annotations

from flow_core.errors import DeserializationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FETCHED_MAX = 256  # blobs of code among arguments that a worker keeps
_FETCHED_BYTES = 64 << 20  # bytes of all of them; what is not kept is asked for once more

_fetch: Callable[[bytes], bytes] | None = None
_fetched: dict[bytes, bytes] = {}


def report_fetching(fetch: Callable[[bytes], bytes] | None) -> None:
    """Tell this process how to get blobs by their digests: it runs tasks whose arguments name code so."""
    global _fetch
    _fetch = fetch
    _fetched.clear()


def fetched(digest: bytes) -> bytes:
    """Return the blob of a digest that was sent in the place of code; what was asked for of late is kept.

    Raises:
        DeserializationError: it cannot be had here.
    """
    blob = _fetched.get(digest)
    if blob is None:
        if _fetch is None:
            raise DeserializationError("code among the arguments was sent as a digest, and this process runs no tasks")
        blob = _fetch(digest)
        if len(_fetched) >= _FETCHED_MAX or sum(map(len, _fetched.values())) + len(blob) > _FETCHED_BYTES:
            _fetched.clear()
        _fetched[digest] = blob
    return blob
