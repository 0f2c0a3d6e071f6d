"""A process of an engine on the script's own machine, with all that comes of it: it ends when the script does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from flow_core.errors import ExecutorError
from flow_core.folders import make_directory
from flow_core.remote.processes import below, send, table
from flow_core.starting import starting
from flow_executors.mpi.node_shell import program

_TAIL = 2000  # bytes of the end of its log that are looked at for an error
_LINES = 2  # lines of it that stand in one


class HeadProcess:
    """One command below a guard (``flow_executors.mpi.guard``), which ends all that came of it, daemons included.

    The guard ends by itself when this process has died, however that was. Any thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        streams: int | None = None,
    ) -> None:
        """Start it; what it writes is appended to ``log``. Raises ExecutorError.

        With ``streams``, the descriptor of a socket, that is its standard input and output.
        """
        self.log = log
        self._name = os.path.basename(command[0])
        ours, theirs = socket.socketpair()
        try:
            make_directory(log.parent)
            with theirs, open(log, "ab") as output, starting():
                self._process = subprocess.Popen(
                    [*program("flow_executors.mpi.guard"), str(theirs.fileno()), "--all", *command],
                    stdin=subprocess.DEVNULL if streams is None else streams,
                    stdout=output if streams is None else streams,
                    stderr=output,
                    pass_fds=(theirs.fileno(),),
                    env={**os.environ, **(environment or {})},
                )
        except OSError as error:
            ours.close()
            raise ExecutorError(f"{self._name} could not be started: {error}") from error
        self._control = ours
        self._told = b""

    @property
    def pid(self) -> int:
        """Process id of the guard; the command is its child."""
        return self._process.pid

    def ended(self) -> str:
        """Return how it has ended, with the end of its log; empty while it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        with suppress(OSError, ValueError):
            self._control.setblocking(False)
            self._told += self._control.recv(4096)
        how = f"exit code {code}"
        for line in self._told.decode(errors="replace").splitlines():
            with suppress(ValueError):
                said = json.loads(line)
                how = f"signal {said['signal']}" if "signal" in said else f"exit code {said.get('code', code)}"
                if "signal" in said:
                    break
        tail = self.tail()
        return f"{self._name} has ended ({how})" + (f"; its log {self.log} ends with: {tail}" if tail else "")

    def tail(self) -> str:
        """Return the last lines that it wrote."""
        try:
            with open(self.log, "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _TAIL))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return " / ".join([line.strip() for line in lines if line.strip()][-_LINES:])

    def end(self, timeout_s: float) -> str:
        """End it and all that came of it; return what had to be forced, empty if nothing. Idempotent."""
        began = time.monotonic()
        with suppress(OSError):
            self._control.send(b"e")
        try:
            self._process.wait(max(0.1, timeout_s))
            forced = ""
        except subprocess.TimeoutExpired:
            forced = f"{self._name} did not end within {time.monotonic() - began:.0f} s and was killed"
            # First what is below: without its guard, which may be stopped, nobody would end it.
            send((one.pid for one in below((self._process.pid,), table())), signal.SIGKILL)
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        with suppress(OSError):
            self._control.close()
        return forced
