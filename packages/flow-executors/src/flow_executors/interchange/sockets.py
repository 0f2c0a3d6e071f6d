"""The interchange's sockets: the ROUTER for managers with encryption, its authentication and its monitor.

Managers of the same machine connect to a Unix socket, ``local``. Where no others can come, the ROUTER listens nowhere.
"""

from __future__ import annotations

import math
import os
import socket
import struct
from collections.abc import Iterator

import zmq

from flow_executors.common.interchange_settings import ProcessSettings
from flow_executors.common.unix_socket_server import UnixSocketServer
from flow_executors.wire import auth
from flow_executors.wire.commands import KeyChange
from flow_executors.wire.kinds import GREETINGS, Buffer
from flow_executors.wire.transport import HANDSHAKE_MS, LONGEST_FRAME, joined

# Bytes up to which a message is copied into ZeroMQ; above, a copy takes longer than keeping track of the original.
_COPIED = 64 << 10
_INPUT = int(zmq.POLLIN)
_EVENT = struct.Struct("=Hi")
# Seconds of silence before the kernel probes a connection: routers on the way forget connections that are idle for
# minutes.
_PROBE_AFTER_S = 10
# Shortest pause in seconds between two probes.
_PROBE_EVERY_S = 5
# Fewest probes: one that is lost must not end a connection.
_FEWEST_PROBES = 4
# Most probes; Linux takes no more than 127.
_MOST_PROBES = 100
# Longest pause in seconds that Linux takes.
_LONGEST_S = 32_767


def probes(threshold_s: float) -> tuple[int, int]:
    """Return pause (seconds) and number of the kernel's probes of a connection, so that it outlives a silence.

    The probes keep connections known to routers on the way. Were they given up before the heartbeat threshold, a
    network that is away for a while would end the connection, and cost the tasks of nodes that are well.
    """
    every_s = min(max(_PROBE_EVERY_S, math.ceil(threshold_s / _MOST_PROBES)), _LONGEST_S)
    return every_s, min(max(_FEWEST_PROBES, math.ceil(threshold_s / every_s)), _MOST_PROBES)


class InterchangeSockets:
    """Opens, reads and closes the sockets. One thread."""

    def __init__(self, setup: ProcessSettings) -> None:
        self.context = zmq.Context()
        self.admitted: dict[bytes, str] = {}
        self._peer_of: dict[int, bytes] = {}  # descriptor of a connection -> its peer
        self._block_of: dict[bytes, str] = {}
        self._address_of: dict[bytes, str] = {}
        self._used = True
        """The router was read or written since it was last asked what is there."""
        self.change_keys(KeyChange(admit=setup.admitted))
        self.local = UnixSocketServer(setup.local_fd, self.admitted)
        self.zap = self.context.socket(zmq.REP)
        self.zap.linger = 0
        self.zap.bind(auth.ENDPOINT)
        self.router = self._router(setup)
        self.monitor = self.router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        if setup.listen_fd >= 0:
            self.router.bind(setup.endpoint)

    def _router(self, setup: ProcessSettings) -> zmq.Socket[bytes]:
        router = self.context.socket(zmq.ROUTER)
        router.linger = 0
        router.curve_server = True
        router.curve_publickey = setup.server_public.encode()
        router.curve_secretkey = setup.server_secret.encode()
        router.zap_domain = auth.DOMAIN
        # Else messages to managers that are gone would be dropped without a word.
        router.router_mandatory = 1
        router.sndhwm = 0  # bounded by credit
        router.rcvhwm = 1000  # a peer that says more than can be read is not read for a while
        router.tcp_keepalive = 1
        router.tcp_keepalive_idle = _PROBE_AFTER_S
        router.tcp_keepalive_intvl, router.tcp_keepalive_cnt = probes(setup.heartbeat_threshold_s)
        router.backlog = 4096
        router.ipv6 = "[" in setup.endpoint
        # A longer frame closes the connection before it is read: a peer without a key could announce any length.
        router.maxmsgsize = LONGEST_FRAME
        router.handshake_ivl = HANDSHAKE_MS
        if setup.listen_fd >= 0:
            router.setsockopt(zmq.USE_FD, setup.listen_fd)
        return router

    def change_keys(self, change: KeyChange) -> None:
        """Admit and revoke blocks' keys."""
        change.apply(self.admitted)

    def authenticate(self) -> None:
        """Answer the requests for authentication that are there."""
        try:
            while True:
                reply = auth.answer(self.zap.recv_multipart(zmq.NOBLOCK), self.admitted)
                # Something must be answered: a request without answer would block all later handshakes.
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
                    self._address_of.pop(peer, None)
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
            peer, message = parts[0].bytes, joined(parts[1:])
            yield peer, self._greeted(peer, parts[-1]) if len(message) and message[0] in GREETINGS else "", message

    def unread(self) -> bool:
        """Whether there are messages of managers that no descriptor signals. To be asked before sleeping.

        A zmq socket swallows the signal of its descriptor when it is used, and only then.
        """
        used, self._used = self._used, False
        return used and self._readable()

    def _readable(self) -> bool:
        events = self.router.get(zmq.EVENTS)
        return isinstance(events, int) and bool(int(events) & _INPUT)

    def _greeted(self, peer: bytes, body: zmq.Frame) -> str:
        block = self._block_of[peer] = str(body.get("User-Id"))
        self._address_of[peer] = str(body.get("Peer-Address"))
        # Older breaks of a connection with the same descriptor are in the monitor by now; the caller drains it
        # before it takes this message for real.
        self._new_connection = (int(body.get(zmq.SRCFD)), peer)
        return block

    def address_of(self, peer: bytes) -> str:
        """Return where the connection of a peer comes from; empty if not over the network."""
        return self._address_of.get(peer, "")

    def bind_connection(self) -> None:
        """Remember the connection of the last greeting. To be called after ``disconnected``."""
        descriptor, peer = self._new_connection
        self._peer_of[descriptor] = peer

    def hang_up(self, peer: bytes) -> None:
        """End the connection of a peer; it may come again over another one."""
        if self.local.knows(peer):
            self.local.hang_up(peer)
            return
        for descriptor in [descriptor for descriptor, one in self._peer_of.items() if one == peer]:
            _shut(descriptor)

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


def _shut(descriptor: int) -> None:
    """End a connection of ZeroMQ's, which has no call for that: it sees the end and closes its descriptor."""
    try:
        copied = os.dup(descriptor)
    except OSError:  # closed meanwhile
        return
    try:
        with socket.socket(fileno=copied) as copy:
            copy.shutdown(socket.SHUT_RDWR)
    except OSError:  # not connected any more
        pass
