"""The process that removes containers whose task's process has died. Standard library only; it runs as a script.

Whoever is killed by SIGKILL removes nothing, and containers of an engine are no children of who started them. So the
processes of one manager share one guard, which is in a session of its own: each tells it over a socket which containers
and directories it has, and the guard removes those of processes that have ended. It ends when it has no clients.

It also watches the monitors (conmon) of podman's containers: where one is killed, podman's own command waits for ever,
so the guard notes that in a file for the task, and ends the command.
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

NAME_VARIABLE = "FLOW_CONTAINER_GUARD"
"""Variable with the name of its socket: arguments are seen by others, who could take the name before it does."""

# An engine may still be making a container whose client was killed: it is removed again after these many seconds.
_AGAIN_S = (0.0, 1.0, 4.0)
_LINGER_S = 2.0  # without clients
_REMOVAL_S = 60.0  # for one command of an engine
LOST = ".lost"
"""End of the name of the file that says that the monitor of a container is gone, in the directory of its process."""
_LOOK_S = 1.0  # seconds between the begin of a container and the look for its monitor; doubled each time there is none
_MOST_LOOK_S = 30.0
_CHECK_S = (1.0, 60.0)  # after the end of a monitor: the first where the container runs on, the last in any case
_CREDENTIALS = struct.Struct("3i")
_STRANGER_S = 0.01
"""Seconds without another connection after one of another user: who connects without end costs next to nothing."""


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
        self._idle_since = time.monotonic()
        self._due: list[tuple[float, list[list[str]]]] = []
        self._live: list[_Client] = []
        self._monitored: set[str] = set()
        self._look_s, self._next_look = _LOOK_S, 0.0
        self._checks: list[tuple[float, Callable[[], None]]] = []

    def run(self) -> None:
        """Serve until there have been no clients for a while."""
        while self._clients or self._due or time.monotonic() - self._idle_since < _LINGER_S:
            times = [*(when for when, _ in self._due), *(when for when, _ in self._checks)]
            if self._unmonitored():
                times.append(self._next_look)
            next_due = min(times, default=time.monotonic() + _LINGER_S)
            wait_s = None if self._clients and not times else max(0.0, next_due - time.monotonic())
            for descriptor, _ in self._poller.poll(None if wait_s is None else wait_s * 1000 + 1):
                if handler := self._handlers.get(descriptor):
                    handler()
            self._remove_due()
            self._find_monitors()
            self._check_due()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        pid, user = peer(connection)
        if user != os.geteuid():
            connection.close()
            self._forget(self._listener.fileno())
            again = time.monotonic() + _STRANGER_S
            self._checks.append((again, lambda: self._watch(self._listener.fileno(), self._accept)))
            return
        self._idle_since = time.monotonic()
        try:
            client = _Client(connection, pid)
        except OSError:  # it has ended already
            connection.close()
            return
        connection.setblocking(False)
        self._clients += 1
        self._live.append(client)
        self._watch(connection.fileno(), lambda: self._listen(client))
        self._watch(client.ended, lambda: self._bury(client))

    def _listen(self, client: _Client) -> None:
        if not client.hear():
            self._forget(client.connection.fileno())
        if self._unmonitored():
            # A container has its monitor some time after its task has told of it.
            soon = time.monotonic() + _LOOK_S
            self._look_s = _LOOK_S
            self._next_look = soon if self._next_look < time.monotonic() else min(soon, self._next_look)

    def _watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._poller.register(descriptor, select.POLLIN)
        self._handlers[descriptor] = handler

    def _bury(self, client: _Client) -> None:
        client.hear()  # what it said last
        self._forget(client.connection.fileno())
        self._forget(client.ended)
        self._clients -= 1
        self._idle_since = time.monotonic()
        self._live.remove(client)
        client.close()
        removals = [*client.removals.values()]
        self._monitored.difference_update(client.removals)
        client.removals.clear()
        if removals:
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

    # -- monitors

    def _unmonitored(self) -> dict[str, _Client]:
        """Return the containers of podman of which no monitor was found yet, each with its process."""
        return {
            name: client
            for client in self._live
            for name, removal in client.removals.items()
            if os.path.basename(removal[0]) == "podman" and name not in self._monitored
        }

    def _find_monitors(self) -> None:
        if not (wanted := self._unmonitored()) or time.monotonic() < self._next_look:
            return
        self._monitored.intersection_update(name for client in self._live for name in client.removals)
        for pid, words in _processes("conmon"):
            name = _after(words, "-n")
            if name in wanted:
                try:
                    monitor = os.pidfd_open(pid)
                except OSError:  # it has just ended
                    continue
                self._monitored.add(name)
                ended = _Ended(self, wanted[name], name, monitor, _after(words, "-p"))
                self._watch(monitor, ended.tell)
        self._look_s = min(2 * self._look_s, _MOST_LOOK_S)
        self._next_look = time.monotonic() + self._look_s

    def _check_due(self) -> None:
        now = time.monotonic()
        due = [check for when, check in self._checks if when <= now]
        self._checks = [(when, check) for when, check in self._checks if when > now]
        for check in due:
            check()

    def monitor_ended(self, descriptor: int, check: Callable[[bool], None]) -> None:
        """Have it looked at, some time after its monitor has ended, whether a container's command has ended, too."""
        self._forget(descriptor)
        os.close(descriptor)
        now = time.monotonic()
        self._checks += [(now + _CHECK_S[0], lambda: check(False)), (now + _CHECK_S[1], lambda: check(True))]

    def remove_later(self, removal: list[str]) -> None:
        """Remove a container, again and again: podman has to notice by and by that it is without its monitor."""
        now = time.monotonic()
        self._due += [(now + after_s, [removal]) for after_s in _AGAIN_S]


class _Ended:
    """What is done when the monitor of a container ends."""

    def __init__(self, guard: _Guard, client: _Client, name: str, monitor: int, pid_file: str) -> None:
        self._guard = guard
        self._client = client
        self._name = name
        self._monitor = monitor
        self._pid_file = pid_file

    def tell(self) -> None:
        """Take note that it has ended."""
        self._guard.monitor_ended(self._monitor, self._check)

    def _check(self, last: bool) -> None:
        """End podman's command if it waits for a monitor that was killed.

        A monitor that ends by itself does so after its container. Where the container has ended, too, the command may
        be at work yet: it has the time until the last check.
        """
        removal = self._client.removals.get(self._name)
        if removal is None or not (last or self._runs()):
            return
        for pid, words in _processes("podman"):
            if f"--name={self._name}" in words:
                try:
                    for directory in self._client.directories:
                        with open(os.path.join(directory, f"{self._name}{LOST}"), "w"):
                            pass
                except OSError:  # no room, say: the task fails without it, too
                    pass
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:  # it has just ended
                    continue
                self._guard.remove_later(removal)

    def _runs(self) -> bool:
        """Tell whether the first process of the container, which its monitor has noted, runs yet."""
        try:
            with open(self._pid_file) as file:
                pid = int(file.read())
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
        except (OSError, ValueError, IndexError):
            return False


def _processes(program: str) -> list[tuple[int, list[str]]]:
    """Return the processes of this user that run a program, each with its command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/comm") as comm:
                    if comm.read().strip() != program or os.stat(f"/proc/{entry}").st_uid != os.geteuid():
                        continue
                with open(f"/proc/{entry}/cmdline", "rb") as line:
                    found.append((int(entry), [os.fsdecode(word) for word in line.read().split(b"\0")]))
            except OSError:  # it has ended meanwhile
                continue
    return found


def _after(words: Sequence[str], option: str) -> str:
    """Return the value of an option on a command line; empty if it is not there."""
    return words[words.index(option) + 1] if option in words[:-1] else ""


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
    listener.setblocking(False)
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
    sys.exit(main(os.environ.pop(NAME_VARIABLE)))
