"""Starting an interchange process on the run's listening socket and keys, as often as it takes."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from flow_core.errors import ExecutorError
from flow_executors.interchange.setup import Setup
from flow_executors.wire.keys import KeyPair
from flow_executors.wire.local import address_of
from flow_executors.wire.schema import encode

_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Site:
    """What stays the same over all interchanges of one start of an executor."""

    label: str
    run_id: str
    directory: Path
    listener: socket.socket
    local: socket.socket | None
    host: str
    server: KeyPair
    heartbeat_period_s: float
    heartbeat_threshold_s: float
    debug: bool = False
    packed: bool = False

    @property
    def patience_s(self) -> float:
        """After which silence the interchange is replaced: well before its managers give up."""
        return max(3 * self.heartbeat_period_s, self.heartbeat_threshold_s / 2)

    @property
    def port(self) -> int:
        """Port that managers connect to."""
        return int(self.listener.getsockname()[1])

    @property
    def local_address(self) -> str:
        """Where managers of this machine find the interchange; empty where there is no such way."""
        return address_of(self.local) if self.local is not None else ""

    def close(self) -> None:
        """Close this process's ends of the listening sockets."""
        self.listener.close()
        self.close_local()

    def close_local(self) -> None:
        """Close this process's end of the socket within the machine."""
        if self.local is not None:
            self.local.close()

    def setup(self, incarnation: int, admitted: Sequence[tuple[str, str]], link_fd: int, results: str = "") -> Setup:
        """Return the settings of an interchange; ``results``: where the client listens to managers of its machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return Setup(
            run_id=self.run_id,
            label=self.label,
            python=platform.python_version(),
            incarnation=incarnation,
            endpoint=f"tcp://{host}:{self.port}",
            listen_fd=self.listener.fileno(),
            local_fd=self.local.fileno() if self.local is not None else -1,
            link_fd=link_fd,
            server_public=self.server.public.decode(),
            server_secret=self.server.secret.decode(),
            admitted=tuple(admitted),
            heartbeat_period_s=self.heartbeat_period_s,
            heartbeat_threshold_s=self.heartbeat_threshold_s,
            packed=self.packed,
            results=results,
            log=str(self.directory / "interchange.log"),
            debug=self.debug,
        )


class Incarnation:
    """One interchange process and the client's end of the socket to it."""

    def __init__(self, site: Site, number: int, admitted: Sequence[tuple[str, str]], results: str = "") -> None:
        """Start it. Raises ExecutorError when it cannot be started."""
        self.number = number
        self._stderr = site.directory / "interchange.stderr"
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
                    start_new_session=True,
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
            self._stderr.parent.mkdir(parents=True, exist_ok=True)
            return self._stderr.open("wb")
        except OSError:
            return open(os.devnull, "wb")

    def _tell(self, setup: Setup) -> None:
        pipe = self.process.stdin
        assert pipe is not None
        try:
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
        """Make sure that it is gone; True if it had to be killed."""
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


def _command(site: Site) -> list[str]:
    return [sys.executable, "-m", "flow_executors.interchange", "--label", site.label, "--run", site.run_id]


def _environment() -> dict[str, str]:
    """The script's own, with its module path made explicit: the working directory of the interchange is another."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in sys.path if part)
    return environment
