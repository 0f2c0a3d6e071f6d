"""The ways to an interchange: over the network with encryption, or within the machine. Each is one connection."""

from __future__ import annotations

import select
from typing import Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from flow_executors.manager.contact import Reach
from flow_executors.wire.keys import BlockSecret
from flow_executors.wire.kinds import Received
from flow_executors.wire.link import LinkWriter
from flow_executors.wire.local import connect_locally
from flow_executors.wire.stream import Stream

_EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_RECONNECT_MS = 100
_AT_ONCE = 256
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
        self._stream: Stream | None = None
        self._broke = False
        try:
            connection = connect_locally(address)
        except OSError:
            return
        self.reach = Reach.OPEN
        self._stream = Stream(connection, self._epoll)
        self._stream.write(secret.pair.public, hello)

    def descriptors(self) -> list[int]:
        """Return what to poll: readable also when what could not be sent at once can be sent now."""
        return [self._epoll.fileno()]

    @property
    def waiting(self) -> bool:
        """Whether it broke and nobody has looked since: no descriptor tells of that."""
        return self._broke

    def receive(self) -> list[Received]:
        """Return the messages that are there, and send what waits to be sent."""
        stream = self._stream
        if stream is None:
            self._broke = False
            return []
        if stream.pending:
            stream.write()
        messages: list[Received] = [*stream.read()]
        if stream.ended:
            stream.drop()
            self._stream = None
            self.reach, self._broke = Reach.BROKEN, True
        return messages

    def send(self, message: Received) -> None:
        """Send a message, or keep it until there is room."""
        if self._stream is not None:
            self._stream.write(message)

    def look(self) -> None:
        """Nothing to find out: it is known at once."""

    def close(self, linger_ms: int = 0) -> None:
        """Close; wait up to so long for what was sent to leave."""
        if self._stream is not None:
            self._stream.close(linger_ms * 1e-3)
            self._stream = None
        self._epoll.close()


class ShortWay:
    """Straight to the client, within the machine, for what it should know at once. One thread; nothing blocks for long.

    Whoever uses it tells the interchange, too: what is said here is heard soon or never.
    """

    def __init__(self, address: str, secret: BlockSecret) -> None:
        """Connect. Raises OSError."""
        self._connection = connect_locally(address)
        self._connection.setblocking(False)
        self._writer = LinkWriter(self._connection)
        self.tell(secret.pair.public)

    def tell(self, message: Received) -> bool:
        """Say something; False if it is not read, or not at once: then no more can be said here."""
        try:
            return self._writer.write((message,))
        except OSError:
            return False

    def close(self) -> None:
        """Close it."""
        self._connection.close()
