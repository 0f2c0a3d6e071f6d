"""The interchange as a child process of the client: its listening socket, its starts, and what a restart leaves.

The client keeps the listening socket and the keys over all incarnations of the interchange. After a restart the
reconciliation finds out which tasks managers still hold, and which never arrived anywhere.
"""

from __future__ import annotations

import errno
import os
import platform
import random
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from flow_core.errors import ExecutorError
from flow_core.folders import closed_to_writers, make_directory
from flow_core.starting import starting
from flow_executors.common.host import is_ip_address
from flow_executors.common.interchange_settings import ProcessSettings
from flow_executors.common.run_marker import RunMarker
from flow_executors.wire.auth import KeyPair
from flow_executors.wire.schema import encode
from flow_executors.wire.transport import address_of

# Connections that wait to be accepted: thousands of managers may connect within a second while the interchange is busy.
# The system bounds it further.
_BACKLOG = 4096
# Ports of a range that are tried: a bound on the time that a start may take.
_TRIES = 200
_LOOPBACK = ("127.", "::1", "localhost")


def is_loopback(address: str) -> bool:
    """Whether an address reaches this machine only."""
    return address.startswith(_LOOPBACK)


def bind_hosts(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Return where to listen so that all the addresses reach it; the first that this machine has is to be taken.

    One address given as a number is listened at alone, if it is of this machine: not so that of a router in front of
    it. A name may mean one interface here and another elsewhere (``127.0.1.1`` for the host's own name on Debian).
    """
    if all(is_loopback(address) for address in addresses):
        return ("::1" if addresses and all(":" in address for address in addresses) else "127.0.0.1",)
    wildcard = "::" if any(":" in address for address in addresses) else "0.0.0.0"
    # One interface where it is known which: the port is not open to other networks then.
    return (addresses[0], wildcard) if len(addresses) == 1 and is_ip_address(addresses[0]) else (wildcard,)


def is_wildcard(host: str) -> bool:
    """Whether listening there reaches all interfaces."""
    return host in ("::", "0.0.0.0")


def listen(
    hosts: tuple[str, ...], ports: tuple[int, ...] | None, port_range: tuple[int, int], label: str
) -> tuple[str, socket.socket]:
    """Open the socket at the first of the hosts that is this machine's, at one of the exact ports or a free one.

    Raises:
        ExecutorError: none is free, or no host is one of this machine.
    """
    for host in hosts[:-1]:
        try:
            return host, _listen(host, ports, port_range, label)
        except _NotHere:
            continue
    return hosts[-1], _listen(hosts[-1], ports, port_range, label)


class _NotHere(ExecutorError):
    """The host is no address of this machine."""


def _listen(host: str, ports: tuple[int, ...] | None, port_range: tuple[int, int], label: str) -> socket.socket:
    exact = ports is not None
    candidates = list(ports) if ports is not None else _shuffled(port_range)
    problem: OSError | None = None
    for port in candidates[:_TRIES]:
        try:
            return _open(host, port)
        except OSError as error:
            problem = error
            # Another port does not help against any other error.
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
    where = f"ports {', '.join(map(str, candidates))}" if exact else f"ports {port_range[0]} to {port_range[1] - 1}"
    option = "worker_ports" if exact else "worker_port_range"
    reason = problem.strerror if problem else "the range is empty"
    kind = _NotHere if problem is not None and problem.errno == errno.EADDRNOTAVAIL else ExecutorError
    raise kind(
        f"executor {label} cannot listen at {host}, {where}: {reason}. Free one of them, or set {option} to others"
    ) from problem


def _shuffled(port_range: tuple[int, int]) -> list[int]:
    low, high = port_range
    ports = range(low, max(low, high))
    # At random, so that runs that start together do not try the same ports one after the other.
    return random.sample(ports, min(len(ports), _TRIES))


def _open(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Else the port of a run that has just ended could not be used for a minute.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((host, port))
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


# Bytes of the interchange's standard error that errors show: the end of a traceback.
_TAIL = 4096


@dataclass(frozen=True, slots=True)
class InterchangeSettings:
    """Settings that all interchanges of one start of an executor share, with the sockets that outlive each of them.

    ``managers_per_block`` is the most managers of one block, 0 where that is not known.
    """

    label: str
    run_id: str
    directory: Path
    listener: socket.socket | None
    local: socket.socket | None
    host: str
    server: KeyPair
    heartbeat_period_s: float
    heartbeat_threshold_s: float
    sleep_threshold_s: float = 0.0
    debug: bool = False
    packed: bool = False
    marker: RunMarker | None = None
    managers_per_block: int = 0
    max_transfer_bytes: int = 10 << 30

    @property
    def patience_s(self) -> float:
        """Seconds of silence after which the interchange is replaced: well before its managers give up."""
        return max(3 * self.heartbeat_period_s, self.heartbeat_threshold_s / 2)

    @property
    def port(self) -> int:
        """Port that managers connect to; 0 where none comes by the network."""
        return int(self.listener.getsockname()[1]) if self.listener is not None else 0

    @property
    def local_address(self) -> str:
        """Where managers of this machine find the interchange; empty where there is no such way."""
        return address_of(self.local) if self.local is not None else ""

    def close(self) -> None:
        """Close this process's ends of the listening sockets."""
        if self.listener is not None:
            self.listener.close()
        self.close_local()

    def close_local(self) -> None:
        """Close this process's end of the socket within the machine."""
        if self.local is not None:
            self.local.close()

    def setup(
        self, incarnation: int, admitted: Sequence[tuple[str, str]], link_fd: int, results: str = ""
    ) -> ProcessSettings:
        """Return the settings of an interchange; ``results``: where the client listens to managers of its machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return ProcessSettings(
            run_id=self.run_id,
            label=self.label,
            python=platform.python_version(),
            incarnation=incarnation,
            endpoint=f"tcp://{host}:{self.port}" if self.listener is not None else "",
            listen_fd=self.listener.fileno() if self.listener is not None else -1,
            local_fd=self.local.fileno() if self.local is not None else -1,
            link_fd=link_fd,
            server_public=self.server.public.decode(),
            server_secret=self.server.secret.decode(),
            admitted=tuple(admitted),
            heartbeat_period_s=self.heartbeat_period_s,
            heartbeat_threshold_s=self.heartbeat_threshold_s,
            sleep_threshold_s=self.sleep_threshold_s,
            packed=self.packed,
            results=results,
            marker=self.marker.path if self.marker is not None else "",
            marker_digest=self.marker.digest if self.marker is not None else "",
            managers_per_block=self.managers_per_block,
            log=str(self.directory / "interchange.log"),
            debug=self.debug,
        )


class InterchangeProcess:
    """One interchange process and the client's end of the socket to it."""

    def __init__(
        self, site: InterchangeSettings, number: int, admitted: Sequence[tuple[str, str]], results: str = ""
    ) -> None:
        """Start it. Raises ExecutorError when it cannot be started."""
        self.number = number
        self._stderr = site.directory / "interchange.stderr"
        with starting():  # a forked child would hold the other end of the link, too
            self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self.link.setblocking(False)
            setup = site.setup(number, admitted, theirs.fileno(), results)
            try:
                with self._last_words() as errors:
                    self.process = subprocess.Popen(
                        _command(site),
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        stderr=errors,
                        pass_fds=tuple(fd for fd in (setup.listen_fd, setup.local_fd, setup.link_fd) if fd >= 0),
                        # Ctrl-C in the terminal reaches the script alone, which then ends the interchange in order.
                        start_new_session=True,
                        # Not the script's directory: nothing is to be imported from there.
                        cwd="/",
                        env=_environment(),
                    )
            except OSError as error:
                self.link.close()
                raise ExecutorError(f"the interchange of {site.label} cannot be started: {error}") from error
            finally:
                theirs.close()
        self._tell(setup)

    def _last_words(self) -> BinaryIO:
        """Open the file of its standard error; no file where its directory cannot be used, which must not end a run."""
        try:
            make_directory(self._stderr.parent)
            return open(self._stderr, "wb", opener=closed_to_writers)
        except OSError:
            return open(os.devnull, "wb")

    def _tell(self, setup: ProcessSettings) -> None:
        pipe = self.process.stdin
        assert pipe is not None
        try:
            # Keys go through the pipe: a command line, and an environment, can be read by others of the machine or end
            # in logs.
            pipe.write(encode(replace(setup)))
            pipe.close()
        except OSError:
            pass  # it died already: the link says so

    def exit_code(self, timeout_s: float) -> int | None:
        """Wait up to so long for its end; None when it still runs."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s`` for its end, then kill it; True if it had to be killed."""
        if self.exit_code(timeout_s) is not None:
            return False
        self.process.kill()
        self.exit_code(5.0)
        return True

    def close(self) -> None:
        """Close the client's end of the link."""
        self.link.close()

    def tail(self) -> str:
        """Return the last of what it wrote to standard error."""
        try:
            with self._stderr.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""


def _command(site: InterchangeSettings) -> list[str]:
    # ``-P``: else the working directory comes first on the path, and a zmq.py in it, of whomever, would run here.
    return [sys.executable, "-P", "-m", "flow_executors.interchange", "--label", site.label, "--run", site.run_id]


def _environment() -> dict[str, str]:
    """The script's own, with its module path made explicit: the working directory of the interchange is another."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in sys.path if part)
    return environment


class RecoveryDecision(Enum):
    """Decision about tasks that no manager claimed after a restart."""

    AGAIN = 0
    """They provably never started: each manager that could have them has stated that it has not. Send them again."""
    LOST = 1
    """A manager that may have them did not come back in time."""


class RestartReconciliation:
    """Collects claims until all managers that were connected are back, or the time is over."""

    __slots__ = ("_deadline", "_expected", "unclaimed")

    def __init__(self, managers: Iterable[str], keys: Iterable[int], deadline: float) -> None:
        self._expected = set(managers)
        self._deadline = deadline
        self.unclaimed = set(keys)

    def registered(self, identity: str, held: Iterable[int]) -> None:
        """A manager came, or will not come, with the keys that it holds."""
        self._expected.discard(identity)
        self.unclaimed.difference_update(held)

    def finished(self, keys: Iterable[int]) -> None:
        """Tasks have their outcome."""
        self.unclaimed.difference_update(keys)

    def decision(self, now: float) -> RecoveryDecision | None:
        """Return what is to be done now with ``unclaimed``; None while it is not known."""
        # All that could have a task have said what they hold: the rest never arrived, so to send it again is safe.
        if not self._expected:
            return RecoveryDecision.AGAIN
        return RecoveryDecision.LOST if now >= self._deadline else None

    @property
    def absent(self) -> frozenset[str]:
        """Identities of managers that have not come back."""
        return frozenset(self._expected)

    @property
    def deadline(self) -> float:
        """Time of the monotonic clock at which tasks that nobody has claimed count as lost."""
        return self._deadline
