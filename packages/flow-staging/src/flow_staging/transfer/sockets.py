"""Connections that end at once when their transfer is to stop, whatever they wait for."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Mapping
from functools import partial
from typing import Any

from flow_staging.transfer.handle import Handle, current

# SO_LINGER on, 0 s: unsent bytes are dropped, and the other side gets a reset.
_DROP = struct.pack("ii", 1, 0)
_MARK = "of_kept_connection"


def cut(connection: socket.socket | None) -> None:
    """End a connection under the hands of another thread, which then reads its end and closes it. Never raises.

    What was sent and has not arrived is dropped by that: a server that does not read would not see the end behind it.
    """
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP)
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own, which would change its state


def watched(connection: socket.socket) -> socket.socket:
    """Have a connection cut when the transfer that this thread works for is to stop; returns it."""
    handle = current()
    if handle is not None:
        handle.cut_by(lambda: cut(connection))
    return connection


class Watched:
    """Mixin of HTTP connections, which serve one transfer after the other: cut with the one that they serve."""

    sock: socket.socket | None
    _opened: socket.socket | None = None
    _serves: Handle | None = None
    _answer: Any = None
    _has_served = False

    def connect(self) -> None:
        """Connect, and be cut at once if the transfer is to stop."""
        super().connect()  # type: ignore[misc]  # that of the class it is mixed with
        self._opened = self.sock
        # connect() has no socket that another thread could cut until it returns.
        if self._serves is not None and self._serves.is_set():  # while there was no socket to be cut
            cut(self.sock)

    def request(self, *args: Any, **options: Any) -> Any:
        """Ask for the transfer that the calling thread works for."""
        self._serves, self._answer = current(), None
        if self._serves is not None:
            self._serves.cut_by(partial(self._cut, self._serves))
        had_served = self._has_served
        try:
            return super().request(*args, **options)  # type: ignore[misc]  # that of the class it is mixed with
        except OSError as error:
            _note(error, had_served)
            raise

    def getresponse(self) -> Any:
        """Return the answer; errors say whether the connection had served before."""
        had_served = self._has_served
        try:
            self._answer = super().getresponse()  # type: ignore[misc]  # that of the class it is mixed with
        except OSError as error:
            _note(error, had_served)
            raise
        self._has_served = True
        return self._answer

    def close(self) -> None:
        """Close the connection, which may connect again."""
        self._has_served = False
        super().close()  # type: ignore[misc]  # that of the class it is mixed with

    def _cut(self, handle: Handle) -> None:
        if self._serves is not handle or (self._answer is not None and self._answer.closed):
            return  # it was given back, and may serve another transfer by now
        cut(self.sock)  # while it connects, shakes hands or is kept
        cut(self._opened)  # when an answer is the last one it forgets its socket, and the answer is still read


def _note(error: OSError, had_served: bool) -> None:
    """Have an error say that the connection had served before, unless the other side is there, and slow."""
    if had_served and not isinstance(error, TimeoutError):
        setattr(error, _MARK, True)


def of_kept_connection(error: BaseException) -> bool:
    """Return whether an error came before the answer, of a connection that had brought one before.

    The other side may just have closed it, as it may when nothing is asked: that says nothing of the file.
    """
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, _MARK, False):
            return True
        seen = next((each for each in seen.args if isinstance(each, BaseException)), None)
    return False


def watching(pools: Mapping[str, type[Any]]) -> dict[str, type[Any]]:
    """Return classes of urllib3's connection pools, by scheme, for connections that are kept.

    They are cut with the transfer that they serve, and their errors tell ``of_kept_connection`` what they know.
    """
    return {scheme: _watching(pool) for scheme, pool in pools.items()}


_made: dict[type[Any], type[Any]] = {}


def _watching(pool: type[Any]) -> type[Any]:
    # Called again for classes that are watched already: two layers would cut twice.
    if issubclass(pool.ConnectionCls, Watched):
        return pool
    if pool in _made:
        return _made[pool]
    quick = _quick(pool.ConnectionCls)
    connection = type(f"Watched{pool.ConnectionCls.__name__}", (Watched, pool.ConnectionCls), quick)
    return _made.setdefault(pool, type(f"Watched{pool.__name__}", (pool,), {"ConnectionCls": connection}))


def _quick(connection: type[Any]) -> dict[str, Any]:
    """Return attributes that make a connection class read answers by QuickAnswer, unless it has a class of its own."""
    import http.client  # loads what ftp need not

    if connection.response_class is not http.client.HTTPResponse:
        return {}
    from flow_staging.transfer.answer_head import QuickAnswer

    return {"response_class": QuickAnswer}
