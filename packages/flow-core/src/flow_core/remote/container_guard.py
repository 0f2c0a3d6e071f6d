"""The process that removes containers whose task's process has died. Standard library only; it runs as a script.

Whoever is killed by SIGKILL removes nothing, and containers of an engine are no children of who started them. So the
processes of one manager share one guard, which is in a session of its own: each tells it over a socket which containers
and directories it has, and the guard removes those of processes that have ended. It ends when it has no clients.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "flow-guard"
"""What it calls itself, as ``processes.GUARD`` has it: it is not ended with those that it is there for."""

# An engine may still be making a container whose client was killed: it is removed again after these many seconds.
_AGAIN_S = (0.0, 1.0, 4.0)
_LINGER_S = 2.0  # without clients
_REMOVAL_S = 60.0  # for one command of an engine
_CREDENTIALS = struct.Struct("3i")


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return process id and user of the other end of a Unix socket."""
    pid, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, user


class _Client:
    """A process that has containers; its words are lines of JSON, and each is answered by one byte."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.connection = connection
        self.ended = os.pidfd_open(pid)
        self.removals: dict[str, list[str]] = {}
        self.directories: list[str] = []
        self._rest = b""

    def hear(self) -> bool:
        """Read what came; never blocks. False: nothing more will come."""
        try:
            data = self.connection.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, name, removal = json.loads(line)
            if word == "begin":
                self.removals[name] = removal
            elif word == "end":
                self.removals.pop(name, None)
            elif word == "directory":
                self.directories.append(name)
            try:
                self.connection.send(b".")
            except OSError:
                return False
        return bool(data)

    def close(self) -> None:
        """Close its descriptors, and remove its directories."""
        self.connection.close()
        os.close(self.ended)
        for directory in self.directories:
            shutil.rmtree(directory, ignore_errors=True)


class _Guard:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poller = select.poll()
        self._poller.register(listener, select.POLLIN)
        self._handlers: dict[int, Callable[[], None]] = {listener.fileno(): self._accept}
        self._clients = 0
        self._due: list[tuple[float, list[list[str]]]] = []

    def run(self) -> None:
        """Serve until there have been no clients for a while."""
        idle_since = time.monotonic()
        while self._clients or self._due or time.monotonic() - idle_since < _LINGER_S:
            next_due = min((when for when, _ in self._due), default=time.monotonic() + _LINGER_S)
            wait_s = None if self._clients and not self._due else max(0.0, next_due - time.monotonic())
            for descriptor, _ in self._poller.poll(None if wait_s is None else wait_s * 1000 + 1):
                if handler := self._handlers.get(descriptor):
                    handler()
                    idle_since = time.monotonic()
            self._remove_due()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        pid, user = peer(connection)
        if user != os.geteuid():
            connection.close()
            return
        try:
            client = _Client(connection, pid)
        except OSError:  # it has ended already
            connection.close()
            return
        connection.setblocking(False)
        self._clients += 1
        self._watch(connection.fileno(), lambda: self._listen(client))
        self._watch(client.ended, lambda: self._bury(client))

    def _listen(self, client: _Client) -> None:
        if not client.hear():
            self._forget(client.connection.fileno())

    def _watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._poller.register(descriptor, select.POLLIN)
        self._handlers[descriptor] = handler

    def _bury(self, client: _Client) -> None:
        client.hear()  # what it said last
        self._forget(client.connection.fileno())
        self._forget(client.ended)
        self._clients -= 1
        client.close()
        if removals := [*client.removals.values()]:
            now = time.monotonic()
            self._due += [(now + after_s, removals) for after_s in _AGAIN_S]

    def _forget(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)

    def _remove_due(self) -> None:
        now = time.monotonic()
        due = [removal for when, removals in self._due if when <= now for removal in removals]
        self._due = [(when, removals) for when, removals in self._due if when > now]
        running = [_begun(removal) for removal in due]
        deadline = time.monotonic() + _REMOVAL_S
        for pid in running:
            if pid is not None:
                _await(pid, deadline)


def _begun(command: Sequence[str]) -> int | None:
    """Start a command without input and output; return its process id, None where it cannot be started."""
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    try:
        return os.posix_spawnp(command[0], [*command], os.environ, file_actions=null)
    except OSError:
        return None


def _await(pid: int, deadline: float) -> None:
    """Wait for a child until a reading of ``time.monotonic``, and kill it then."""
    descriptor = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        os.close(descriptor)


def main(name: str) -> int:
    """Become the guard of that name, unless there is one; return the exit status."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"\0{name}")
    except OSError:
        return 0  # another process was faster
    listener.listen(128)
    # Away from who started it, which may be ended with all its children.
    if os.fork():
        return 0
    os.setsid()
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)
    with open("/proc/self/comm", "w") as comm:
        comm.write(NAME)
    _Guard(listener).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
