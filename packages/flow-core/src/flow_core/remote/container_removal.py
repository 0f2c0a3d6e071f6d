"""Containers that this process has, as its guard knows them: noted before they start, and removed by their names."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import lru_cache

from flow_core.errors import ContainerError
from flow_core.remote import container_guard
from flow_core.remote.processes import GUARD_FAMILY, WORKER_PID
from flow_core.starting import starting

_PATIENCE_S = 20.0  # of a start of the guard, on a busy node, and of an answer of it
_REMOVAL_S = 60.0  # seconds that an engine has to end and remove a container
_SLICE_S = 0.5  # longest wait at once: an asynchronous exception is raised between two of them


def ran(command: Sequence[str], timeout_s: float) -> tuple[int, str, str]:
    """Run a command; return its exit code, its standard output and its standard error.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it ran for longer.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        with starting():
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
        try:
            code = wait_in_slices(process, time.monotonic() + timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if code is None:
            raise TimeoutError(f"{' '.join(command)} did not end within {timeout_s:g} s")
        out.seek(0)
        errors.seek(0)
        return code, out.read().decode(errors="replace"), errors.read().decode(errors="replace")


def wait_in_slices(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """Wait for a process until a reading of ``time.monotonic``; None if it did not end."""
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            return process.wait(min(left_s, _SLICE_S))
        except subprocess.TimeoutExpired:
            continue
    return process.poll()


class Guarded:
    """What this process has told its guard. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._connection: socket.socket | None = None
        self._directory = ""

    def begin(self, name: str, removal: Sequence[str]) -> None:
        """Have a container removed by a command when this process dies, until ``end``. Nothing without a command.

        Raises:
            ContainerError: there is no guard, so the container must not be started.
        """
        if removal:
            self._tell("begin", name, removal)

    def end(self, name: str, removal: Sequence[str]) -> None:
        """Forget a container: it has ended, and was removed. Never raises."""
        if removal:
            try:
                self._tell("end", name, ())
            except ContainerError:
                return

    def remove(self, name: str, removal: Sequence[str]) -> None:
        """End and remove a container now. Never raises; where it fails the guard has it to do."""
        if not removal:
            return
        try:
            code, _, _ = ran(removal, _REMOVAL_S)
        except (OSError, TimeoutError):
            return
        if code == 0:
            self.end(name, removal)

    def directory(self) -> str:
        """Return a directory of this process, which containers see at the same path; gone with the process."""
        with self._lock:
            self._renewed()
            if not self._directory:
                self._directory = tempfile.mkdtemp(prefix="flow-container-")
                self._say("directory", self._directory, ())
            return self._directory

    def lost(self, name: str) -> bool:
        """Tell whether the guard has ended the command of a container because its monitor was gone. Never raises."""
        with self._lock:
            self._renewed()
            if not self._directory:
                return False
            try:
                os.unlink(os.path.join(self._directory, f"{name}{container_guard.LOST}"))
            except OSError:
                return False
            return True

    def _tell(self, word: str, name: str, removal: Sequence[str]) -> None:
        with self._lock:
            self._renewed()
            self._say(word, name, removal)

    def _renewed(self) -> None:
        # A child that a task has forked has neither containers nor the directory.
        if self._pid != os.getpid():
            self._pid, self._connection, self._directory = os.getpid(), None, ""

    def _say(self, word: str, name: str, removal: Sequence[str]) -> None:
        line = json.dumps([word, name, list(removal)]).encode() + b"\n"
        for _ in range(2):  # a guard that was killed is replaced, and knows what comes from then on
            if self._connection is None:
                self._connection = _connected()
            try:
                self._connection.settimeout(_PATIENCE_S)
                self._connection.sendall(line)
                if self._connection.recv(1):
                    return
            except OSError:
                pass
            self._connection.close()
            self._connection = None
        raise ContainerError("the process that removes containers after a kill does not answer, so none is started")


def _connected() -> socket.socket:
    family = _family()
    deadline = time.monotonic() + _PATIENCE_S
    number = 0
    while True:
        name = _name(family, number)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Never blocking: who listens there and accepts nobody, or a crowd of strangers, would hold the task up.
            connection.setblocking(False)
            connection.connect(f"\0{name}")
            if container_guard.peer(connection)[1] == os.geteuid():
                connection.setblocking(True)
                return connection
            number += 1  # the name is somebody else's
        except BlockingIOError:
            if time.monotonic() > deadline - _PATIENCE_S / 2:  # it accepts nobody
                number += 1
        except OSError:
            _start_guard(name)
        connection.close()
        if time.monotonic() > deadline:
            raise ContainerError(
                "the process that removes containers after a kill could not be started, so none is started"
            )
        select.select((), (), (), 0.01)


def _family() -> str:
    """Return a secret that processes of one manager share, which its name is made of; of others each has its own."""
    if os.environ.get(WORKER_PID) == str(os.getpid()) and (shared := os.environ.get(GUARD_FAMILY)):
        return shared
    return _own_secret(os.getpid())


@lru_cache(maxsize=1)
def _own_secret(_pid: int) -> str:
    return secrets.token_hex(16)


def _name(family: str, number: int) -> str:
    """Return a name that nobody can know, and take, before the guard has it; nor the next one who has seen this."""
    digest = hashlib.blake2b(f"{family} {number}".encode(), digest_size=16).hexdigest()
    return f"flow-container-guard-{os.geteuid()}-{digest}"


def _start_guard(name: str) -> None:
    # Without the mark of a worker, by which all that its tasks have started is found and ended. The name is no
    # argument, since others see these, and could take it first.
    environment = {key: value for key, value in os.environ.items() if key != WORKER_PID}
    command = [sys.executable, "-I", "-S", container_guard.__file__]
    null = subprocess.DEVNULL
    with starting():
        process = subprocess.Popen(
            command,
            stdin=null,
            stdout=null,
            stderr=null,
            env={**environment, container_guard.NAME_VARIABLE: name},
            start_new_session=True,
            cwd="/",
        )
    wait_in_slices(process, time.monotonic() + _PATIENCE_S)


guarded = Guarded()
"""That of this process."""
