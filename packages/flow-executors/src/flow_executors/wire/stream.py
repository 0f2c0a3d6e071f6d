"""One end of a stream of messages, watched by an epoll beside others: read and written without waiting."""

from __future__ import annotations

import select
import socket
import time

from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.link import MAX_MESSAGE, LinkReader, LinkWriter

_READS = 16
_IN, _IN_OUT = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT


class Stream:
    """A connection with its reader and its writer. One thread, or several under one lock.

    The epoll is readable while there is something to read here, or room for what waits to be sent.

    Attributes:
        ended: Whether the other side has ended and all it had said was read, or it is out of step.
    """

    __slots__ = ("_connection", "_epoll", "_reader", "_writer", "ended")

    def __init__(self, connection: socket.socket, epoll: select.epoll, longest: int = MAX_MESSAGE) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._epoll = epoll
        self._reader = LinkReader(connection, longest)
        self._writer = LinkWriter(connection)
        self.ended = False
        epoll.register(connection.fileno(), _IN)

    def fileno(self) -> int:
        """Return the descriptor by which the epoll tells of it."""
        return self._connection.fileno()

    def trust(self) -> None:
        """Accept messages of any length from now on."""
        self._reader.accept_any()

    def read(self) -> list[memoryview]:
        """Return the messages that are there."""
        messages: list[memoryview] = []
        for _ in range(_READS):
            try:
                messages += self._reader.read()
            except BadMessage:
                self.ended = True
                break
            self.ended = self._reader.closed
            if not self._reader.more:
                break
        return messages

    def write(self, *messages: Buffer) -> bool:
        """Send messages after what waits to be sent, and keep what there is no room for; False if nobody will read it.

        Where the other side has ended, what it said before is still to be read.
        """
        waited = self._writer.pending > 0
        try:
            done = self._writer.write(messages)
        except OSError:
            self._writer = LinkWriter(self._connection)
            return False
        if waited == done:
            self._epoll.modify(self._connection.fileno(), _IN if done else _IN_OUT)
        return True

    @property
    def pending(self) -> int:
        """Bytes that wait for room."""
        return self._writer.pending

    def drop(self) -> None:
        """Close it, and take it from the epoll even if a forked child holds the connection open."""
        self._epoll.unregister(self._connection.fileno())
        self._connection.close()

    def close(self, linger_s: float = 0.0) -> None:
        """Close it, before the epoll is closed too; what was sent has so long to leave.

        Nothing is taken from the epoll: in a forked child that is the parent's.
        """
        deadline = time.monotonic() + linger_s
        while self._writer.pending and (left := deadline - time.monotonic()) > 0:
            select.select((), (self._connection,), (), left)
            try:
                self._writer.flush()
            except OSError:
                break
        self._connection.close()
