"""The line to the interchange: one encrypted DEALER, found among several addresses by trying all at once.

No decision is made here but which address answered; what to do about a broken line is the shell's matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import zmq
from zmq.utils.monitor import recv_monitor_message

from flow_executors.manager.contact import Reach
from flow_executors.wire.keys import BlockSecret

_EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_POLLIN = int(zmq.POLLIN)
_RECONNECT_MS = 100
_AT_ONCE = 256
_INPUT = int(zmq.POLLIN)


class _Try:
    """One address and its socket."""

    __slots__ = ("address", "monitor", "reach", "socket")

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, port: int, secret: BlockSecret) -> None:
        self.address = address
        self.reach = Reach.UNKNOWN
        self.socket = socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.ipv6 = True
        socket.sndhwm = socket.rcvhwm = 0  # what is out is bounded by the credit of tasks
        socket.reconnect_ivl = _RECONNECT_MS
        socket.curve_serverkey = secret.server_public
        socket.curve_publickey = secret.pair.public
        socket.curve_secretkey = secret.pair.secret
        self.monitor = socket.get_monitor_socket(_EVENTS)
        socket.connect(f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}")

    def look(self) -> None:
        """Take in what the monitor tells."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_CONNECTED:
                self.reach = Reach.OPEN
            elif event == zmq.EVENT_CONNECT_RETRIED and self.reach is Reach.UNKNOWN:
                self.reach = Reach.REFUSED
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.reach = Reach.DENIED
            elif event == zmq.EVENT_DISCONNECTED and self.reach is not Reach.DENIED:
                self.reach = Reach.BROKEN

    def close(self, linger_ms: int = 0) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(linger_ms)


def _readable(socket: zmq.Socket[bytes]) -> bool:
    """Ask, which costs a third of being told so by an exception."""
    events = socket.get(zmq.EVENTS)
    return isinstance(events, int) and bool(events & _INPUT)


class Line:
    """The connection. One thread; nothing blocks but ``close``."""

    def __init__(self, addresses: Sequence[str], port: int, secret: BlockSecret) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._addresses = tuple(dict.fromkeys(addresses))
        self._port = port
        self._secret = secret
        self._tries: list[_Try] = []
        self._chosen: _Try | None = None
        self.home = ""
        """The address that answered last."""

    def seek(self, hello: bytes) -> None:
        """Begin anew: call all addresses and say hello; the first that answers is taken."""
        self._drop()
        for address in self._addresses:
            one = _Try(self._context, address, self._port, self._secret)
            one.socket.send(hello)
            self._tries.append(one)

    def descriptors(self) -> list[int]:
        """Return what to poll for reading; changes after ``seek`` and ``receive``."""
        return [int(socket.get(zmq.FD)) for one in self._tries for socket in (one.socket, one.monitor)]

    @property
    def waiting(self) -> bool:
        """Whether messages are there.

        To be asked before sleeping: a zmq socket swallows the signal of its descriptor whenever it is used.
        """
        return self._chosen is None or _readable(self._chosen.socket)

    def receive(self) -> list[bytes]:
        """Return the messages that wait."""
        if self._chosen is None:
            self._choose()
        return [] if self._chosen is None else self._drain(self._chosen.socket)

    def _choose(self) -> None:
        for one in self._tries:
            if one.socket.poll(0):
                self._chosen = one
                self.home = one.address
                for other in self._tries:
                    if other is not one:
                        other.close()
                self._tries = [one]
                return

    @staticmethod
    def _drain(socket: zmq.Socket[bytes]) -> list[bytes]:
        messages: list[bytes] = []
        try:
            while len(messages) < _AT_ONCE and _readable(socket):
                parts = socket.recv_multipart(zmq.NOBLOCK)
                if len(parts) == 1 and parts[0]:
                    messages.append(parts[0])
        except zmq.Again:
            pass
        return messages

    def send(self, message: bytes) -> None:
        """Send a message to whoever answered; dropped while nobody has."""
        if self._chosen is not None:
            self._chosen.socket.send(message, zmq.NOBLOCK)

    def reach(self) -> dict[str, Reach]:
        """Return how far each address was reached by now."""
        for one in self._tries:
            one.look()
        return {one.address: one.reach for one in self._tries}

    @property
    def broken(self) -> bool:
        """Whether the connection that was chosen is gone."""
        if self._chosen is None:
            return False
        self._chosen.look()
        return self._chosen.reach in (Reach.BROKEN, Reach.DENIED)

    def _drop(self) -> None:
        for one in self._tries:
            one.close()
        self._tries, self._chosen = [], None

    def close(self, linger_s: float = 0.0) -> None:
        """Close; wait up to ``linger_s`` for what was sent to leave."""
        for one in self._tries:
            one.close(int(linger_s * 1000) if one is self._chosen else 0)
        self._tries, self._chosen = [], None
        self._context.term()
