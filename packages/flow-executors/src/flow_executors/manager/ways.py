"""The ways to an interchange: over the network with encryption, or within the machine. Each is one connection."""

from __future__ import annotations

import select
import socket
import time
from typing import Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from flow_executors.errors import BadMessage
from flow_executors.manager.contact import Reach
from flow_executors.wire.keys import BlockSecret
from flow_executors.wire.kinds import Received
from flow_executors.wire.link import LinkReader, LinkWriter
from flow_executors.wire.local import connect_locally

_EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_RECONNECT_MS = 100
_AT_ONCE = 256
_READS = 16
_INPUT = int(zmq.POLLIN)


class Way(Protocol):
    """One address and the connection to it. One thread; nothing blocks but ``close``.

    Attributes:
        address: Where it leads.
        reach: How far it got, as of the last ``look``.
    """

    address: str
    reach: Reach

    def descriptors(self) -> list[int]:
        """Return what to poll for reading; always the same."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether messages are there that the descriptors may not tell of."""
        ...

    def receive(self) -> list[Received]:
        """Return the messages that are there."""
        ...

    def send(self, message: Received) -> None:
        """Send a message, or keep it until it can be sent."""
        ...

    def look(self) -> None:
        """Find out how far it got by now."""
        ...

    def close(self, linger_ms: int = 0) -> None:
        """Close; wait up to so long for what was sent to leave."""
        ...


class NetworkWay:
    """An encrypted DEALER, which connects again by itself."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: str, port: int, secret: BlockSecret, hello: bytes
    ) -> None:
        self.address = address
        self.reach = Reach.UNKNOWN
        self._socket = made = context.socket(zmq.DEALER)
        made.linger = 0
        made.ipv6 = True
        made.sndhwm = made.rcvhwm = 0  # what is out is bounded by the credit of tasks
        made.reconnect_ivl = _RECONNECT_MS
        made.curve_serverkey = secret.server_public
        made.curve_publickey = secret.pair.public
        made.curve_secretkey = secret.pair.secret
        self._monitor = made.get_monitor_socket(_EVENTS)
        made.connect(f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}")
        made.send(hello)

    def descriptors(self) -> list[int]:
        """Return what to poll for reading."""
        return [int(one.get(zmq.FD)) for one in (self._socket, self._monitor)]

    @property
    def waiting(self) -> bool:
        """Ask before sleeping: a zmq socket swallows the signal of its descriptor whenever it is used."""
        events = self._socket.get(zmq.EVENTS)
        return isinstance(events, int) and bool(events & _INPUT)

    def receive(self) -> list[Received]:
        """Return the messages that are there."""
        messages: list[Received] = []
        try:
            while len(messages) < _AT_ONCE and self.waiting:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
                if len(parts) == 1 and parts[0]:
                    messages.append(parts[0])
        except zmq.Again:
            pass
        return messages

    def send(self, message: Received) -> None:
        """Send a message."""
        self._socket.send(message, zmq.NOBLOCK)

    def look(self) -> None:
        """Take in what the monitor tells."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_CONNECTED:
                self.reach = Reach.OPEN
            elif event == zmq.EVENT_CONNECT_RETRIED and self.reach is Reach.UNKNOWN:
                self.reach = Reach.REFUSED
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.reach = Reach.DENIED
            elif event == zmq.EVENT_DISCONNECTED and self.reach is not Reach.DENIED:
                self.reach = Reach.BROKEN

    def close(self, linger_ms: int = 0) -> None:
        """Close; wait up to so long for what was sent to leave."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(linger_ms)


class LocalWay:
    """A stream within the machine; connects once, and is made anew when it breaks."""

    def __init__(self, address: str, secret: BlockSecret, hello: bytes) -> None:
        self.address = address
        self.reach = Reach.REFUSED
        self._epoll = select.epoll()
        self._connection: socket.socket | None = None
        self._broke = False
        try:
            made = connect_locally(address)
        except OSError:
            return
        self.reach = Reach.OPEN
        self._connection = made
        self._reader, self._writer = LinkReader(made), LinkWriter(made)
        self._epoll.register(made.fileno(), select.EPOLLIN)
        self._write((secret.pair.public, hello))

    def descriptors(self) -> list[int]:
        """Return what to poll: readable also when what could not be sent at once can be sent now."""
        return [self._epoll.fileno()]

    @property
    def waiting(self) -> bool:
        """Whether it broke and nobody has looked since: no descriptor tells of that."""
        return self._broke

    def receive(self) -> list[Received]:
        """Return the messages that are there, and send what waits to be sent."""
        messages: list[Received] = []
        if self._connection is None:
            self._broke = False
            return messages
        if self._writer.pending:
            self._write(())
        for _ in range(_READS):
            try:
                messages += self._reader.read()
            except BadMessage:
                self._break()
                return messages
            if self._reader.closed:
                self._break()
                return messages
            if not self._reader.more:
                break
        return messages

    def send(self, message: Received) -> None:
        """Send a message, or keep it until there is room."""
        if self._connection is not None:
            self._write((message,))

    def _write(self, messages: tuple[Received, ...]) -> None:
        assert self._connection is not None
        waited = self._writer.pending > 0
        try:
            done = self._writer.write(messages)
        except OSError:  # what it said before it ended is still to be read
            self._writer = LinkWriter(self._connection)
            return
        if waited == done:
            events = select.EPOLLIN if done else select.EPOLLIN | select.EPOLLOUT
            self._epoll.modify(self._connection.fileno(), events)

    def _break(self) -> None:
        if self._connection is not None:
            self._epoll.unregister(self._connection.fileno())
            self._connection.close()
            self._connection = None
        self.reach, self._broke = Reach.BROKEN, True

    def look(self) -> None:
        """Nothing to find out: it is known at once."""

    def close(self, linger_ms: int = 0) -> None:
        """Close; wait up to so long for what was sent to leave."""
        deadline = time.monotonic() + linger_ms * 1e-3
        while self._connection is not None and self._writer.pending and time.monotonic() < deadline:
            select.select((), (self._connection,), (), max(0.0, deadline - time.monotonic()))
            try:
                self._writer.flush()
            except OSError:
                break
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._epoll.close()
