"""The interchange's door for managers of its own machine: streams without encryption, threads or copies in between.

A guest's first message is the public key of its block, as it would be with encryption; all others are as everywhere.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
from collections.abc import Mapping

from zmq.utils import z85

from flow_executors.wire.keys import KEY_SIZE
from flow_executors.wire.kinds import GREETINGS, Buffer
from flow_executors.wire.local import is_own
from flow_executors.wire.stream import Stream

_STRANGERS = 4 << 10
"""Longest message of a guest whose key is not known yet: no room is made for what noise seems to announce."""
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class _Guest:
    """One connection and who it is."""

    __slots__ = ("block", "peer", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.peer = b"\0local" + os.urandom(16)  # no manager from elsewhere can take it for its own name
        self.block = ""


class LocalDoors:
    """Accepts, reads and writes the streams. One thread, or several under one lock.

    Args:
        listen_fd: The inherited listening socket; -1 where there is none, and nobody comes.
        admitted: Blocks by their public key; looked at when a guest comes.
        most: So many are let in, and no more.
    """

    def __init__(self, listen_fd: int, admitted: Mapping[bytes, str], most: float = math.inf) -> None:
        self._admitted = admitted
        self._most = most
        self._listener = socket.socket(fileno=listen_fd) if listen_fd >= 0 else None
        self._epoll = select.epoll()
        self._listening = False
        self._listen()
        self._by_descriptor: dict[int, _Guest] = {}
        self._by_peer: dict[bytes, _Guest] = {}
        self._gone: list[bytes] = []

    def _listen(self) -> None:
        if self._listener is not None and not self._listening:
            self._epoll.register(self._listener.fileno(), select.EPOLLIN)
            self._listening = True

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
                guest.stream.write()
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
                    self._listening = False
                return
            if not is_own(connection) or len(self._by_descriptor) >= self._most:
                connection.close()
                continue
            guest = _Guest(Stream(connection, self._epoll, _STRANGERS))
            self._by_descriptor[connection.fileno()] = guest

    def _read(self, guest: _Guest, found: list[tuple[bytes, str, Buffer]]) -> None:
        for message in guest.stream.read():
            if guest.block:
                greets = len(message) > 0 and message[0] in GREETINGS
                found.append((guest.peer, guest.block if greets else "", message))
            elif not self._introduced(guest, bytes(message)):
                self._drop(guest)
                return
        if guest.stream.ended:
            self._drop(guest)

    def _introduced(self, guest: _Guest, key: bytes) -> bool:
        """Take a guest's first message; False if its key is not admitted."""
        try:
            block = self._admitted.get(z85.decode(key)) if len(key) == KEY_SIZE else None
        except Exception:  # no Z85: that has as many kinds as there are ways to be none
            block = None
        if block is None:
            return False
        guest.block = block
        guest.stream.trust()
        self._by_peer[guest.peer] = guest
        return True

    def knows(self, peer: bytes) -> bool:
        """Whether a peer is connected here."""
        return peer in self._by_peer

    def send(self, peer: bytes, message: Buffer) -> bool:
        """Send to a manager; False when it is not connected."""
        guest = self._by_peer.get(peer)
        return guest is not None and guest.stream.write(message)

    def disconnected(self) -> list[bytes]:
        """Return the peers whose connection was found broken since the last call."""
        gone, self._gone = self._gone, []
        return gone

    def _drop(self, guest: _Guest) -> None:
        del self._by_descriptor[guest.stream.fileno()]
        guest.stream.drop()
        self._listen()
        if self._by_peer.pop(guest.peer, None) is not None:
            self._gone.append(guest.peer)

    def close(self, linger_s: float = 0.0) -> None:
        """Close all; what was sent to each has so long to leave."""
        for guest in self._by_descriptor.values():
            guest.stream.close(linger_s)
        self._by_descriptor.clear()
        self._by_peer.clear()
        self._epoll.close()
        if self._listener is not None:
            self._listener.close()
