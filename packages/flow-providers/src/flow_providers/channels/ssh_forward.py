"""Reverse forwards: listeners on the other side of an ssh connection, whose connections come to an address of this one.

A listener is a Unix socket of mode 0600, where the server allows that, or a port of its loopback interface. It is
opened again, under the same name, after the connection was replaced.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from shlex import quote
from typing import TYPE_CHECKING, Any

from flow_providers.at_once import at_once
from flow_providers.channels.ssh_relay import RELAY
from flow_providers.errors import ChannelError

if TYPE_CHECKING:
    from paramiko import Channel as Stream, Transport

Target = tuple[str, int]

# Seconds between looks at the connection: a machine that changed its address is back so soon.
_LOOK_S = 2.0
# Longest pause in seconds between attempts to connect again.
_PAUSE_S = 15.0
# Milliseconds without an acknowledgement after which the kernel gives the connection up: it would else look alive for a
# quarter of an hour after a router has forgotten it.
_SILENCE_MS = 60_000
# Seconds for which the near end of a forwarded connection outlives its ssh connection: closed at once, it would pass
# for a death of the far end, which comes back over the next one.
_LINGER_S = 150.0
_CONNECT_S = 10.0
_RELAY_S = 10.0
_COMMAND_S = 20.0
_CLOSE_S = 5.0  # seconds that the end of the script waits for a host to remove its socket
_PIECE = 64 << 10
# Longest path of a Unix socket that all systems take, in bytes.
_LONGEST_PATH = 100
_LONGEST_TOLD = 4096  # bytes that a relay says of itself: one line

log = logging.getLogger("flow.providers.forward")


@cache
def transport_class() -> type[Transport]:
    """Return paramiko's ``Transport`` with forwards of Unix sockets, which it has not by itself."""
    import paramiko

    class ForwardingTransport(paramiko.Transport):  # type: ignore[misc]  # paramiko has no types
        """A transport that also takes connections to Unix sockets of the server, and lets no packet wait."""

        def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
            # Else each short request waits for the acknowledgement of the one before: 40 ms, several times a job.
            with suppress(OSError, AttributeError):  # of a proxy it is no socket, or none of TCP
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            super().__init__(sock, *args, **kwargs)

        def request_stream_forward(self, path: str, handler: Callable[..., None]) -> None:
            """Ask the server to listen at a path. Raises SSHException: it does not."""
            asked = self.global_request("streamlocal-forward@openssh.com", (os.fsencode(path),), wait=True)
            if asked is None:
                raise paramiko.SSHException("forwarding of a Unix socket denied")
            self._tcp_handler = handler

        def _parse_channel_open(self, message: paramiko.Message) -> None:
            # Put as a connection to a port, number 0, of a machine that is called like the path.
            if message.get_text() == "forwarded-streamlocal@openssh.com":
                numbers = [message.get_int() for _ in range(3)]
                path = message.get_text()
                message = paramiko.Message()
                message.add_string("forwarded-tcpip")
                for number in numbers:
                    message.add_int(number)
                message.add_string(path)
                message.add_int(0)
                message.add_string("")
                message.add_int(0)
            message.rewind()
            super()._parse_channel_open(message)

    return ForwardingTransport


@dataclass(frozen=True, slots=True)
class Connection:
    """The ssh connection of a channel, as forwards use it.

    Attributes:
        hostname: The machine.
        current: Returns the connection, if there is one.
        connected: Returns it, and makes it if need be. Raises ChannelError.
        drop: Closes it.
        command: Runs a shell command there, for some seconds at most, and returns what it printed. Raises ChannelError.
        directory: Returns a directory there, made if need be. Raises ChannelError.
        alone: Whether it can be made without asking the user.
    """

    hostname: str
    current: Callable[[], Transport | None]
    connected: Callable[[], Transport]
    drop: Callable[[], None]
    command: Callable[[str, float], str]
    directory: Callable[[], str]
    alone: Callable[[], bool]


@dataclass(slots=True)
class _Forward:
    """One listener.

    Attributes:
        target: Where its connections go.
        path: Path of its Unix socket; empty where it is a port.
        port: Its port; 0 before the server has named one.
        transport: The connection over which it was opened.
        denied: Why the server has no listener; empty if it has.
        relay: What lets other machines reach it; None if nothing does.
        beyond: Addresses of the relay.
    """

    target: Target
    path: str = ""
    port: int = 0
    transport: Transport | None = None
    denied: str = ""
    relay: Stream | None = None
    beyond: tuple[str, ...] = ()

    def addresses(self) -> tuple[str, ...]:
        """Return where jobs find it."""
        own = (f"unix:{self.path}",) if self.path else (f"127.0.0.1:{self.port}",) if self.port else ()
        return () if self.denied else (*own, *self.beyond)


class Forwards:
    """The forwards of one channel, and the thread that keeps them. Any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._forwards: dict[Target, _Forward] = {}
        self._relays: set[Target] = set()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = ""
        self._session = ""
        self._host = ""
        self._owner: Transport | None = None

    def addresses(self, target: Target, beyond: bool) -> Sequence[str]:
        """Return where jobs find what leads to an address of this machine; empty where the server forwards nothing.

        Raises:
            ChannelError: the machine cannot be reached.
        """
        with self._lock:
            forward = self._forwards.setdefault(target, _Forward(target))
            if beyond:
                self._relays.add(target)
            self._tend(self._connection.connected())
            if self._thread is None and not forward.denied:
                self._thread = threading.Thread(
                    target=self._keep, name=f"flow-forward-{self._connection.hostname}", daemon=True
                )
                self._thread.start()
                _close_at_exit(self)
            return forward.addresses()

    def close(self) -> None:
        """Take all listeners away. Idempotent; never raises."""
        self._closing.set()
        # The thread that keeps them may be waiting for a host that does not answer.
        if not self._lock.acquire(timeout=_CLOSE_S):
            return
        try:
            forwards, self._forwards = list(self._forwards.values()), {}
            transport = self._connection.current()
            paths = [forward.path for forward in forwards if forward.path]
            for forward in forwards:
                if forward.relay is not None:
                    forward.relay.close()
            if transport is not None and transport.is_active() and paths:
                with suppress(ChannelError):
                    folder = quote(os.path.dirname(paths[0]))
                    removed = " ".join(map(quote, paths))
                    self._connection.command(f"rm -f {removed}; rmdir {folder} 2>/dev/null; true", _CLOSE_S)
        finally:
            self._lock.release()

    # -- the listeners

    def _tend(self, transport: Transport) -> None:
        """Open what is not open over this connection. Under the lock."""
        if transport is not self._owner:
            self._take_over(transport)
        for forward in self._forwards.values():
            if forward.transport is not transport:
                self._open(forward, transport)
            wanted = forward.target in self._relays and not forward.denied
            if wanted and (forward.relay is None or forward.relay.closed):
                self._start_relay(forward, transport)

    def _take_over(self, transport: Transport) -> None:
        """End the session of the last connection, which may go on for hours on a server that has not noticed.

        It holds the listeners, and their connections: managers would wait for answers of a dead one.
        """
        with suppress(OSError):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_MS)
        last, self._session = self._session, ""
        end = (
            f"case $(cat /proc/{last}/comm 2>/dev/null) in sshd*) kill {last}; for i in 1 2 3 4 5 6 7 8 9 10; do "
            f"[ -e /proc/{last} ] || break; sleep 0.1; done;; esac; "
            if last
            else ""
        )
        told = self._connection.command(f"{end}echo $PPID $(uname -n)", _COMMAND_S).split()
        if len(told) == 2 and told[0].isdecimal():
            self._session, self._host = told
        self._owner = transport

    def _open(self, forward: _Forward, transport: Transport) -> None:
        import paramiko

        forward.transport = transport
        refusals = []
        for way in (self._open_path, self._open_port):
            try:
                way(forward, transport)
            except (paramiko.SSHException, OSError, ChannelError) as error:
                refusals.append(str(error))
                continue
            forward.denied = ""
            return
        if not transport.is_active():  # no refusal: it broke meanwhile
            forward.transport = None
            return
        forward.denied = "; ".join(refusals)
        log.info("%s does not forward connections to this machine: %s", self._connection.hostname, forward.denied)

    def _open_path(self, forward: _Forward, transport: Transport) -> None:
        request = getattr(transport, "request_stream_forward", None)
        if forward.port or request is None:
            raise OSError("no forward of a Unix socket")
        if not forward.path:
            name = "".join(c for c in self._host if c.isalnum() or c in "-.")[:20]
            path = f"{self._connection.directory()}/.forward-{name}-{secrets.token_hex(4)}.sock"
            if len(os.fsencode(path)) > _LONGEST_PATH:
                raise OSError(f"{path} is too long for a Unix socket")
        else:
            path = forward.path
            self._connection.command(f"rm -f {quote(path)}", _COMMAND_S)  # sshd binds no path that is there
        request(path, self._arrived)
        forward.path = path

    def _open_port(self, forward: _Forward, transport: Transport) -> None:
        if forward.path:
            raise OSError(f"{forward.path} could not be opened again")
        forward.port = transport.request_port_forward("127.0.0.1", forward.port, self._arrived)

    def _start_relay(self, forward: _Forward, transport: Transport) -> None:
        """Let machines that reach this one use the forward: sshd itself binds loopback only."""
        where = forward.path or f"127.0.0.1:{forward.port}"
        port = forward.beyond[0].rpartition(":")[2] if forward.beyond else "0"
        stream = transport.open_session(timeout=_CONNECT_S)
        stream.settimeout(_RELAY_S)
        stream.exec_command(f"exec python3 -c {quote(RELAY)} {quote(where)} {quote(port)}")
        told = b""
        try:
            while not told.endswith(b"\n") and len(told) < _LONGEST_TOLD and (piece := stream.recv(4096)):
                told += piece
        except OSError:
            told = b""
        if not told.endswith(b"\n"):
            stream.close()
            log.info("nodes behind %s have no way here: its python3 runs no relay", self._connection.hostname)
            self._relays.discard(forward.target)
            return
        stream.settimeout(None)
        forward.relay, forward.beyond = stream, tuple(told.decode().split())

    # -- the thread

    def _keep(self) -> None:
        pause = _LOOK_S
        while not self._closing.wait(pause):
            try:
                with self._lock:
                    self._look()
                pause, self._told = _LOOK_S, ""
            except Exception as error:  # paramiko's, of a connection that breaks at any point
                pause = min(2 * pause, _PAUSE_S)
                if not self._told:
                    log.info("the forward from %s is away: %s", self._connection.hostname, error)
                self._told = str(error)

    def _look(self) -> None:
        if self._closing.is_set():
            return
        transport = self._connection.current()
        if transport is not None and (not transport.is_active() or _moved(transport)):
            self._connection.drop()
            transport = None
        if transport is None:
            if not self._connection.alone():
                return
            transport = self._connection.connected()
        self._tend(transport)

    # -- connections

    def _arrived(self, stream: Stream, origin: Target, at: Target) -> None:
        """Take a connection. On the thread of the transport, which must not wait."""
        with suppress(RuntimeError):  # no more threads: the other side tries again
            threading.Thread(target=self._serve, args=(stream, at), name="flow-forwarded", daemon=True).start()
            return
        stream.close()

    def _serve(self, stream: Stream, at: Target) -> None:
        forwards = list(self._forwards.values())
        target = next((one.target for one in forwards if at[0] == one.path or at[1] == one.port != 0), None)
        if target is None:
            stream.close()
            return
        try:
            near = socket.create_connection(target, _CONNECT_S)
        except OSError as error:
            log.debug("no connection to %s:%d: %s", *target, error)
            stream.close()
            return
        near.settimeout(None)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=_copy, args=(near, stream), name="flow-forwarded-out", daemon=True)
        back.start()
        with suppress(OSError, EOFError):
            while piece := stream.recv(_PIECE):
                near.sendall(piece)
        transport = stream.get_transport()
        if transport is None or not transport.is_active():
            self._closing.wait(_LINGER_S)
        for end in (near, stream):
            with suppress(OSError, EOFError):
                end.close()


def _copy(near: socket.socket, stream: Stream) -> None:
    with suppress(OSError, EOFError):
        while piece := near.recv(_PIECE):
            stream.sendall(piece)
        stream.close()


def _moved(transport: Transport) -> bool:
    """Whether this machine has no longer the address that the connection was made from."""
    try:
        address = transport.sock.getsockname()
        with socket.socket(transport.sock.family, socket.SOCK_STREAM) as probe:
            probe.bind((address[0], 0, *address[2:]))
    except OSError:
        return True
    return False


_open_ones: weakref.WeakSet[Forwards] = weakref.WeakSet()


def _close_at_exit(forwards: Forwards) -> None:
    if not _open_ones:
        atexit.register(close_forwards)
    _open_ones.add(forwards)


def close_forwards() -> None:
    """Take all listeners of this process away, on all hosts at once. Blocks for some seconds at most; never raises."""
    at_once([forwards.close for forwards in list(_open_ones)])
