"""The Unix socket server for managers of the same machine: streams without encryption, threads or copies in between.

A peer's first message is the public key of its block, as it would be with encryption; all others are as everywhere.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import time
from collections.abc import Mapping

from zmq.utils import z85

from flow_executors.wire.auth import KEY_SIZE
from flow_executors.wire.kinds import GREETINGS, Buffer
from flow_executors.wire.transport import PAUSE_S, STRANGERS_A_TURN, Stream, is_own

# Longest message in bytes of a peer whose key is not known yet. Noise once made the interchange fill gigabytes with
# zeros; hundreds of connections took 256 KiB each.
_STRANGERS = 4 << 10
# Connections accepted in one turn: a process that connects without end cannot keep the loop from its other work.
_ACCEPTS = 32
# No descriptor or memory is left for another connection: what waits stays in the backlog.
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class _UnauthenticatedPeer:
    """One connection, and the block of its peer once its key is known."""

    __slots__ = ("block", "peer", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.peer = b"\0local" + os.urandom(16)  # no manager from elsewhere can take it for its own name
        self.block = ""


class UnixSocketServer:
    """Accepts, reads and writes the streams. One thread, or several under one lock.

    Args:
        listen_fd: The inherited listening socket; -1 where there is none, and no manager can come.
        admitted: Blocks by their public key; looked at when a peer connects.
        most: So many are let in, and no more.
    """

    def __init__(self, listen_fd: int, admitted: Mapping[bytes, str], most: float = math.inf) -> None:
        self._admitted = admitted
        self._most = most
        self._listener = socket.socket(fileno=listen_fd) if listen_fd >= 0 else None
        self._epoll = select.epoll()
        self._listening = False
        self.resumes_at = math.inf
        """When ``receive`` is to be called though the descriptor is silent, by the monotonic clock: a pause ends."""
        self._listen()
        self._by_descriptor: dict[int, _UnauthenticatedPeer] = {}
        self._by_peer: dict[bytes, _UnauthenticatedPeer] = {}
        self._gone: list[bytes] = []

    def _listen(self) -> None:
        if self._listener is not None and not self._listening:
            self._epoll.register(self._listener.fileno(), select.EPOLLIN)
            self._listening = True

    def _stop_listening(self) -> None:
        assert self._listener is not None
        self._epoll.unregister(self._listener.fileno())
        self._listening = False

    @property
    def paused(self) -> bool:
        """Whether no connection is accepted before ``resumes_at``, since strangers connect without end."""
        return self.resumes_at != math.inf

    def fileno(self) -> int:
        """Return the descriptor that is readable while something is to be done here."""
        return self._epoll.fileno()

    def receive(self) -> list[tuple[bytes, str, Buffer]]:
        """Do what is to be done, and return messages with their peer and, for greetings, the block of its key."""
        found: list[tuple[bytes, str, Buffer]] = []
        if self.paused and time.monotonic() >= self.resumes_at:
            self.resumes_at = math.inf
            self._listen()
        for descriptor, events in self._epoll.poll(0):
            candidate = self._by_descriptor.get(descriptor)
            if candidate is None:
                self._accept()
                continue
            if events & select.EPOLLOUT:
                candidate.stream.write()
            if events & ~select.EPOLLOUT:
                self._read(candidate, found)
        return found

    def _accept(self) -> None:
        assert self._listener is not None
        strangers = 0
        for _ in range(_ACCEPTS):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _FULL and self._by_descriptor:  # they wait until somebody has left
                    self._stop_listening()
                return
            if is_own(connection) and len(self._by_descriptor) < self._most:
                candidate = _UnauthenticatedPeer(Stream(connection, self._epoll, _STRANGERS))
                self._by_descriptor[connection.fileno()] = candidate
                continue
            connection.close()
            strangers += 1
            if strangers >= STRANGERS_A_TURN:
                self._stop_listening()
                self.resumes_at = time.monotonic() + PAUSE_S
                return

    def _read(self, candidate: _UnauthenticatedPeer, found: list[tuple[bytes, str, Buffer]]) -> None:
        for message in candidate.stream.read():
            if candidate.block:
                greets = len(message) > 0 and message[0] in GREETINGS
                found.append((candidate.peer, candidate.block if greets else "", message))
            elif not self._introduced(candidate, bytes(message)):
                self._drop(candidate)
                return
        # After its messages: the last ones before a break may be results.
        if candidate.stream.ended:
            self._drop(candidate)

    def _introduced(self, candidate: _UnauthenticatedPeer, key: bytes) -> bool:
        """Take a peer's first message; False if its key is not admitted."""
        try:
            block = self._admitted.get(z85.decode(key)) if len(key) == KEY_SIZE else None
        except Exception:  # no Z85: that has as many kinds as there are ways to be none
            block = None
        if block is None:
            return False
        candidate.block = block
        candidate.stream.trust()
        self._by_peer[candidate.peer] = candidate
        return True

    def knows(self, peer: bytes) -> bool:
        """Whether a peer is connected here."""
        return peer in self._by_peer

    def send(self, peer: bytes, message: Buffer) -> bool:
        """Send to a manager; False when it is not connected."""
        candidate = self._by_peer.get(peer)
        return candidate is not None and candidate.stream.write(message)

    def hang_up(self, peer: bytes) -> None:
        """End the connection of a peer, which then counts as broken."""
        candidate = self._by_peer.get(peer)
        if candidate is not None:
            self._drop(candidate)

    def disconnected(self) -> list[bytes]:
        """Return the peers whose connection was found broken since the last call."""
        gone, self._gone = self._gone, []
        return gone

    def _drop(self, candidate: _UnauthenticatedPeer) -> None:
        del self._by_descriptor[candidate.stream.fileno()]
        candidate.stream.drop()
        if not self.paused:
            self._listen()
        if self._by_peer.pop(candidate.peer, None) is not None:
            self._gone.append(candidate.peer)

    def close(self, linger_s: float = 0.0) -> None:
        """Close all; what was sent to each has so long to leave."""
        for candidate in self._by_descriptor.values():
            candidate.stream.close(linger_s)
        self._by_descriptor.clear()
        self._by_peer.clear()
        self._epoll.close()
        if self._listener is not None:
            self._listener.close()
