"""The ways to the interchange and to the client: an address each, and the connection to it."""

from __future__ import annotations

import select
from typing import Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from flow_executors.manager.interchange_liveness import ConnectionState
from flow_executors.wire.auth import BlockSecret
from flow_executors.wire.kinds import Received
from flow_executors.wire.transport import PART_BYTES, LinkWriter, Stream, connect_locally, split

_EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
# Milliseconds between attempts of ZeroMQ to connect again: well below the second that the interchange grants a manager
# whose connection broke.
_RECONNECT_MS = 100
# Messages taken in one turn, so that a flood from the interchange does not keep the workers' pipes unread. Only the
# magnitude matters.
_AT_ONCE = 256
_INPUT = int(zmq.POLLIN)


class Transport(Protocol):
    """One address and the connection to it. One thread; nothing blocks but ``close``.

    Attributes:
        address: Address that it connects to.
        reach: State of the connection, as of the last ``look``.
    """

    address: str
    state: ConnectionState

    def descriptors(self) -> list[int]:
        """Return what to poll for reading; always the same."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether there are messages that the descriptors may not signal."""
        ...

    def receive(self) -> list[Received]:
        """Return the messages that are there."""
        ...

    def send(self, message: Received) -> None:
        """Send a message, or keep it until it can be sent."""
        ...

    def look(self) -> None:
        """Update ``reach`` without blocking."""
        ...

    def close(self, linger_ms: int = 0) -> None:
        """Close; wait up to so long for what was sent to leave."""
        ...


class NetworkTransport:
    """An encrypted DEALER, to a host or to a forward, which connects again by itself."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: str, endpoint: str, secret: BlockSecret, hello: bytes
    ) -> None:
        self.address = address
        self.state = ConnectionState.UNKNOWN
        self._socket = made = context.socket(zmq.DEALER)
        made.linger = 0
        # Also reaches IPv4 addresses; without it addresses of IPv6 are refused.
        made.ipv6 = True
        made.sndhwm = made.rcvhwm = 0  # what is out is bounded by the credit of tasks
        made.reconnect_ivl = _RECONNECT_MS
        made.curve_serverkey = secret.server_public
        made.curve_publickey = secret.pair.public
        made.curve_secretkey = secret.pair.secret
        # The monitor comes before connect: events of a socket that is not watched yet are lost.
        self._monitor = made.get_monitor_socket(_EVENTS)
        made.connect(endpoint)
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
                # Messages are never multipart in this direction: only managers send long ones in parts.
                if len(parts) == 1 and parts[0]:
                    messages.append(parts[0])
        except zmq.Again:
            pass
        return messages

    def send(self, message: Received) -> None:
        """Send a message, one too long for the interchange's bound on frames in parts; never blocks."""
        if len(message) <= PART_BYTES:
            self._socket.send(message, zmq.NOBLOCK)
        else:
            self._socket.send_multipart(split(message), zmq.NOBLOCK)

    def look(self) -> None:
        """Read the events of the socket's monitor into ``reach``."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_CONNECTED:
                self.state = ConnectionState.OPEN
            # A retry after the connection has stood is no refusal: ``BROKEN`` or ``OPEN`` says more.
            elif event == zmq.EVENT_CONNECT_RETRIED and self.state is ConnectionState.UNKNOWN:
                self.state = ConnectionState.REFUSED
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.state = ConnectionState.DENIED
            # The handshake's failure also disconnects: the reason must not be overwritten.
            elif event == zmq.EVENT_DISCONNECTED and self.state is not ConnectionState.DENIED:
                self.state = ConnectionState.BROKEN

    def close(self, linger_ms: int = 0) -> None:
        """Close; wait up to so long for what was sent to leave."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(linger_ms)


class UnixTransport:
    """A stream within the machine; connects once, and is made anew when it breaks."""

    def __init__(self, address: str, secret: BlockSecret, hello: bytes) -> None:
        self.address = address
        self.state = ConnectionState.REFUSED
        self._epoll = select.epoll()
        self._stream: Stream | None = None
        self._broke = False
        try:
            connection = connect_locally(address)
        except OSError:
            return
        self.state = ConnectionState.OPEN
        self._stream = Stream(connection, self._epoll)
        # The key comes first, as its owner is looked up before any message is read. It needs no encryption: the kernel
        # vouches for the user at both ends.
        self._stream.write(secret.pair.public, hello)

    def descriptors(self) -> list[int]:
        """Return what to poll: readable also when what could not be sent at once can be sent now."""
        return [self._epoll.fileno()]

    @property
    def waiting(self) -> bool:
        """Whether the stream broke and ``receive`` was not called since: no descriptor signals that."""
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
            # ``_broke`` makes the event loop come back: the descriptor of a closed stream signals nothing any more.
            self.state, self._broke = ConnectionState.BROKEN, True
        return messages

    def send(self, message: Received) -> None:
        """Send a message, or keep it until there is room."""
        if self._stream is not None:
            self._stream.write(message)

    def look(self) -> None:
        """Do nothing: ``receive`` and the constructor set ``reach`` at once."""

    def close(self, linger_ms: int = 0) -> None:
        """Close; wait up to so long for what was sent to leave."""
        if self._stream is not None:
            self._stream.close(linger_ms * 1e-3)
            self._stream = None
        self._epoll.close()


class DirectResultChannel:
    """A stream to the client itself, within the machine, for single results. One thread; nothing blocks for long.

    Each message goes to the interchange as well, since nothing here is acknowledged: it arrives soon or never.
    """

    def __init__(self, address: str, secret: BlockSecret) -> None:
        """Connect and show the block's key. Raises OSError: nobody listens there, or another user does."""
        self._connection = connect_locally(address)
        self._connection.setblocking(False)
        self._writer = LinkWriter(self._connection)
        self.tell(secret.pair.public)

    def tell(self, message: Received) -> bool:
        """Send a message; False if the socket did not take all of it: the channel is of no more use then."""
        try:
            return self._writer.write((message,))
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket; what it has not taken is lost, and the interchange has it."""
        self._connection.close()


def forward_endpoint(forward: str) -> str:
    """Return ZeroMQ's name of a forward, ``unix:PATH`` or ``HOST:PORT``."""
    return f"ipc://{forward.removeprefix('unix:')}" if forward.startswith("unix:") else f"tcp://{forward}"
