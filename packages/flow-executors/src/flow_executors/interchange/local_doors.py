"""The interchange's door for managers of its own machine: streams without encryption, threads or copies in between.

A guest's first message is the public key of its block, as it would be with encryption; all others are as everywhere.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Mapping

from zmq.utils import z85

from flow_executors.errors import BadMessage
from flow_executors.wire.keys import KEY_SIZE
from flow_executors.wire.kinds import Buffer, Kind
from flow_executors.wire.link import LinkReader, LinkWriter
from flow_executors.wire.local import is_own

_READS = 16
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_IN, _IN_OUT = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT
_GREETINGS = (Kind.HELLO, Kind.REGISTER)


class _Guest:
    """One connection: who it is, what it says, what it is told."""

    __slots__ = ("block", "connection", "peer", "reader", "writer")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = LinkReader(connection)
        self.writer = LinkWriter(connection)
        self.peer = b"\0local" + os.urandom(16)  # no manager from elsewhere can take it for its own name
        self.block = ""


class LocalDoors:
    """Accepts, reads and writes the streams. One thread, or several under one lock.

    Args:
        listen_fd: The inherited listening socket; -1 where there is none, and nobody comes.
        admitted: Blocks by their public key; looked at when a guest comes.
    """

    def __init__(self, listen_fd: int, admitted: Mapping[bytes, str]) -> None:
        self._admitted = admitted
        self._listener = socket.socket(fileno=listen_fd) if listen_fd >= 0 else None
        self._epoll = select.epoll()
        self._full = True
        self._open()
        self._by_descriptor: dict[int, _Guest] = {}
        self._by_peer: dict[bytes, _Guest] = {}
        self._gone: list[bytes] = []

    def _open(self) -> None:
        if self._full and self._listener is not None:
            self._epoll.register(self._listener.fileno(), _IN)
        self._full = False

    def fileno(self) -> int:
        """Return the descriptor that is readable while something is to be done here."""
        return self._epoll.fileno()

    def receive(self) -> list[tuple[bytes, str, Buffer]]:
        """Do what is to be done, and return messages with their peer and, for greetings, the block of its key."""
        found: list[tuple[bytes, str, Buffer]] = []
        for descriptor, events in self._epoll.poll(0):
            guest = self._by_descriptor.get(descriptor)
            if guest is None:
                self._accept()
                continue
            if events & select.EPOLLOUT:
                self._write(guest, ())
            if events & ~select.EPOLLOUT:
                self._read(guest, found)
        return found

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _FULL and self._by_descriptor:  # they wait until somebody has left
                    self._epoll.unregister(self._listener.fileno())
                    self._full = True
                return
            if not is_own(connection):
                connection.close()
                continue
            connection.setblocking(False)
            guest = _Guest(connection)
            self._by_descriptor[connection.fileno()] = guest
            self._epoll.register(connection.fileno(), _IN)

    def _read(self, guest: _Guest, found: list[tuple[bytes, str, Buffer]]) -> None:
        peer, reader = guest.peer, guest.reader
        for _ in range(_READS):
            try:
                messages = reader.read()
            except BadMessage:
                self._drop(guest)
                return
            for message in messages:
                if not guest.block:
                    if not self._introduced(guest, bytes(message)):
                        self._drop(guest)
                        return
                else:
                    greets = len(message) > 0 and message[0] in _GREETINGS
                    found.append((peer, guest.block if greets else "", message))
            if reader.closed:
                self._drop(guest)
            if not reader.more:
                return

    def _introduced(self, guest: _Guest, key: bytes) -> bool:
        """Take a guest's first message; False if its key is not admitted."""
        try:
            block = self._admitted.get(z85.decode(key)) if len(key) == KEY_SIZE else None
        except Exception:  # no Z85: that has as many kinds as there are ways to be none
            block = None
        if block is None:
            return False
        guest.block = block
        self._by_peer[guest.peer] = guest
        return True

    def knows(self, peer: bytes) -> bool:
        """Whether a peer is connected here."""
        return peer in self._by_peer

    def send(self, peer: bytes, message: Buffer) -> bool:
        """Send to a manager; False when it is not connected."""
        guest = self._by_peer.get(peer)
        return guest is not None and self._write(guest, (message,))

    def _write(self, guest: _Guest, messages: tuple[Buffer, ...]) -> bool:
        waited = guest.writer.pending > 0
        try:
            done = guest.writer.write(messages)
        except OSError:  # the end of what it said is still to be read
            guest.writer = LinkWriter(guest.connection)
            return False
        if waited == done:
            self._epoll.modify(guest.connection.fileno(), _IN if done else _IN_OUT)
        return True

    def disconnected(self) -> list[bytes]:
        """Return the peers whose connection was found broken since the last call."""
        gone, self._gone = self._gone, []
        return gone

    def _drop(self, guest: _Guest) -> None:
        if self._by_descriptor.pop(guest.connection.fileno(), None) is None:
            return
        self._epoll.unregister(guest.connection.fileno())
        guest.connection.close()
        self._open()
        if self._by_peer.pop(guest.peer, None) is not None:
            self._gone.append(guest.peer)

    def close(self, linger_s: float = 0.0) -> None:
        """Close all; what was sent has so long to leave."""
        for guest in list(self._by_descriptor.values()):
            if guest.writer.pending and linger_s:
                guest.connection.settimeout(linger_s)
                self._write(guest, ())
            guest.connection.close()
        self._by_descriptor.clear()
        self._by_peer.clear()
        self._epoll.close()
        if self._listener is not None:
            self._listener.close()
