"""The interchange's sockets: the ROUTER for managers with encryption, its authentication and its monitor.

Managers of the same machine have a door of their own, ``local``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import zmq

from flow_executors.interchange.local_doors import LocalDoors
from flow_executors.interchange.setup import Setup
from flow_executors.wire import zap
from flow_executors.wire.commands import KeyChange
from flow_executors.wire.kinds import GREETINGS, Buffer

_COPIED = 64 << 10
_INPUT = int(zmq.POLLIN)
_EVENT = struct.Struct("=Hi")


class Doors:
    """Opens, reads and closes the sockets. One thread."""

    def __init__(self, setup: Setup) -> None:
        self.context = zmq.Context()
        self.admitted: dict[bytes, str] = {}
        self._peer_of: dict[int, bytes] = {}  # descriptor of a connection -> its peer
        self._block_of: dict[bytes, str] = {}
        self._used = True
        """The router was read or written since it was last asked what is there."""
        self.change_keys(KeyChange(admit=setup.admitted))
        self.local = LocalDoors(setup.local_fd, self.admitted)
        self.zap = self.context.socket(zmq.REP)
        self.zap.linger = 0
        self.zap.bind(zap.ENDPOINT)
        self.router = self._router(setup)
        self.monitor = self.router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.router.bind(setup.endpoint)

    def _router(self, setup: Setup) -> zmq.Socket[bytes]:
        router = self.context.socket(zmq.ROUTER)
        router.linger = 0
        router.curve_server = True
        router.curve_publickey = setup.server_public.encode()
        router.curve_secretkey = setup.server_secret.encode()
        router.zap_domain = zap.DOMAIN
        router.router_mandatory = 1
        router.sndhwm = 0  # bounded by credit
        router.rcvhwm = 1000  # a peer that says more than can be read is not read for a while
        router.tcp_keepalive = 1
        router.tcp_keepalive_idle = 10
        router.tcp_keepalive_intvl = 5
        router.tcp_keepalive_cnt = 4
        router.backlog = 4096
        router.ipv6 = "[" in setup.endpoint
        router.setsockopt(zmq.USE_FD, setup.listen_fd)
        return router

    def change_keys(self, change: KeyChange) -> None:
        """Admit and revoke blocks' keys."""
        change.apply(self.admitted)

    def authenticate(self) -> None:
        """Answer the requests for authentication that are there."""
        try:
            while True:
                reply = zap.answer(self.zap.recv_multipart(zmq.NOBLOCK), self.admitted)
                self.zap.send_multipart(reply or [b"1.0", b"", b"500", b"bad request", b"", b""])
        except zmq.Again:
            pass

    def disconnected(self) -> list[bytes]:
        """Return the peers whose connection was found broken since the last call."""
        peers = []
        try:
            while True:
                event, descriptor = _EVENT.unpack(self.monitor.recv_multipart(zmq.NOBLOCK)[0])
                peer = self._peer_of.pop(descriptor, None) if event == zmq.EVENT_DISCONNECTED else None
                if peer is not None:
                    self._block_of.pop(peer, None)
                    peers.append(peer)
        except zmq.Again:
            pass
        return peers

    def receive(self, limit: int) -> Iterator[tuple[bytes, str, Buffer]]:
        """Yield up to so many messages with their peer and, for greetings, the block of the peer's key."""
        self._used = True
        for _ in range(limit):
            if not self._readable():
                return
            try:
                parts = self.router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                continue
            peer, body = parts[0].bytes, parts[-1]
            message: Buffer = body.bytes if len(body) < _COPIED else body.buffer
            yield peer, self._greeted(peer, body) if len(message) and message[0] in GREETINGS else "", message

    def unread(self) -> bool:
        """Whether managers have sent something of which no descriptor tells. To be asked before sleeping.

        A zmq socket swallows the signal of its descriptor when it is used, and only then.
        """
        used, self._used = self._used, False
        return used and self._readable()

    def _readable(self) -> bool:
        events = self.router.get(zmq.EVENTS)
        return isinstance(events, int) and bool(int(events) & _INPUT)

    def _greeted(self, peer: bytes, body: zmq.Frame) -> str:
        block = self._block_of[peer] = str(body.get("User-Id"))
        # Older breaks of a connection with the same descriptor are in the monitor by now; the caller drains it
        # before it takes this message for real.
        self._new_connection = (int(body.get(zmq.SRCFD)), peer)
        return block

    def bind_connection(self) -> None:
        """Remember the connection of the last greeting. To be called after ``disconnected``."""
        descriptor, peer = self._new_connection
        self._peer_of[descriptor] = peer

    def send(self, peer: bytes, message: Buffer) -> bool:
        """Send to a manager; False when it is not connected."""
        if self.local.knows(peer):
            return self.local.send(peer, message)
        return self._send(peer, message)

    def _send(self, peer: bytes, message: Buffer) -> bool:
        """Send over the network."""
        self._used = True
        try:
            self.router.send_multipart((peer, message), zmq.NOBLOCK, copy=len(message) < _COPIED)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def close(self, linger_ms: int) -> None:
        """Close all; what was sent has ``linger_ms`` to leave."""
        self.local.close(linger_ms * 1e-3)
        self.router.disable_monitor()
        self.monitor.close(0)
        self.router.close(linger_ms)
        self.zap.close(0)
        self.context.term()
