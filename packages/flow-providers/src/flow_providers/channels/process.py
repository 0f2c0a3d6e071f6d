"""Commands on this machine: each in a process group of its own, so that it can be ended with all it started."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress

from flow_providers.errors import ChannelExecFailed, ChannelTimeout
from flow_providers.interfaces.channel import CommandResult, RemoteProcess
from flow_providers.starting import starting

_SETTLE_S = 2.0  # seconds for the rest of the output of a command that was just killed; it is in the pipe already


def run(cmd: str, timeout_s: float, environment: Mapping[str, str], cwd: str) -> CommandResult:
    """Run a shell command and wait for it.

    Raises:
        ChannelTimeout: it was killed, with its process group, after ``timeout_s``.
        ChannelExecFailed: no process could be made.
    """
    process = _start(cmd, environment, cwd, subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        kill_group(process.pid, signal.SIGKILL)
        out, err = _rest(process)
        raise ChannelTimeout(
            f"the command did not end within {timeout_s:g} s and was killed: {_short(cmd)}; give it more time "
            f"(cmd_timeout of a provider) or see why it hangs. {_short(_text(err), 500)}",
            _text(out),
            _text(err),
        ) from None
    except BaseException:  # KeyboardInterrupt: leave nothing running
        kill_group(process.pid, signal.SIGKILL)
        _rest(process)
        raise
    return CommandResult(_code(process.returncode), _text(out), _text(err))


def start(cmd: str, environment: Mapping[str, str], cwd: str, timeout_s: float) -> LocalProcess:
    """Start a shell command whose output is thrown away.

    Raises:
        ChannelExecFailed: no process could be made, or not within ``timeout_s``: one that is made later is ended.
    """
    made: Future[LocalProcess] = Future()

    def make() -> None:
        try:
            made.set_result(LocalProcess(_start(cmd, environment, cwd, subprocess.DEVNULL)))
        except BaseException as error:
            made.set_exception(error)

    try:
        # On a thread of its own, since a start waits as long as the file system of its directory does.
        threading.Thread(target=make, name="flow-command-start", daemon=True).start()
    except RuntimeError:  # since Python 3.12 no thread begins once the interpreter ends
        make()
    try:
        return made.result(timeout_s)
    except TimeoutError:
        made.add_done_callback(_end_late)
        raise ChannelExecFailed(
            f"{_short(cmd)} was not started within {timeout_s:g} s: does the file system of {cwd} answer?"
        ) from None


def _end_late(made: Future[LocalProcess]) -> None:
    if made.exception() is None:
        made.result().terminate(0.0)


class LocalProcess(RemoteProcess):
    """A started command on this machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Process id of the shell, also the id of its process group."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code (128 + n after signal n), or None while it runs. Never blocks."""
        code = self._process.poll()
        return None if code is None else _code(code)

    def wait(self, timeout_s: float) -> int:
        """Wait for the end, at most ``timeout_s`` seconds, and return the exit code.

        Raises:
            ChannelTimeout: it still runs; it is left running.
        """
        try:
            return _code(self._process.wait(timeout_s))
        except subprocess.TimeoutExpired:
            raise ChannelTimeout(f"process {self.pid} still runs after {timeout_s:g} s") from None

    def terminate(self, grace_s: float = 5.0) -> None:
        """End the process group: TERM, then KILL after ``grace_s`` seconds. Idempotent; waits for the leader."""
        if self._process.poll() is not None:
            return
        kill_group(self.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        kill_group(self.pid, signal.SIGKILL)  # the leader may be gone and others not
        self._process.wait(_SETTLE_S)


def kill_group(pid: int, signum: signal.Signals) -> None:
    """Send a signal to a process group, if it exists."""
    # PermissionError: of a group of which only other users' processes (setuid programs) are left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _start(cmd: str, environment: Mapping[str, str], cwd: str, output: int) -> subprocess.Popen[bytes]:
    try:
        with starting():
            return subprocess.Popen(
                ["/bin/sh", "-c", cmd],
                # A command that asks for input (a password, a confirmation) would hang until its deadline.
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=cwd,
                # Of its own, so that killpg ends what the shell started, too, and Ctrl-C in the terminal does not
                # reach it.
                process_group=0,
            )
    except OSError as error:
        raise ChannelExecFailed(f"cannot start {_short(cmd)} in {cwd}: {error}") from error


def _rest(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    try:
        return process.communicate(timeout=_SETTLE_S)
    except subprocess.TimeoutExpired as late:  # something that left the group holds the pipes: do not wait for it
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait(_SETTLE_S)
        return late.stdout or b"", late.stderr or b""


def _code(returncode: int) -> int:
    # Popen has -n for signal n; the shells at the other end of ssh have 128 + n, and callers must not tell channels
    # apart.
    return 128 - returncode if returncode < 0 else returncode


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


def _short(text: str, limit: int = 200) -> str:
    text = text.strip()
    return text if len(text) <= limit else text[:limit] + "..."
