"""Commands on this machine: each in a process group of its own, so that it can be ended with all it started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from flow_providers.errors import ChannelExecFailed, ChannelTimeout
from flow_providers.interfaces.channel import CommandResult, RemoteProcess

_SETTLE_S = 2.0  # for the rest of the output of a command that was just killed


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


def start(cmd: str, environment: Mapping[str, str], cwd: str) -> LocalProcess:
    """Start a shell command whose output is thrown away. ChannelExecFailed: no process could be made."""
    return LocalProcess(_start(cmd, environment, cwd, subprocess.DEVNULL))


class LocalProcess(RemoteProcess):
    """A started command on this machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:  # noqa: D102
        return self._process.pid

    def poll(self) -> int | None:  # noqa: D102
        code = self._process.poll()
        return None if code is None else _code(code)

    def wait(self, timeout_s: float) -> int:  # noqa: D102
        try:
            return _code(self._process.wait(timeout_s))
        except subprocess.TimeoutExpired:
            raise ChannelTimeout(f"process {self.pid} still runs after {timeout_s:g} s") from None

    def terminate(self, grace_s: float = 5.0) -> None:  # noqa: D102
        if self._process.poll() is not None:
            return
        kill_group(self.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        kill_group(self.pid, signal.SIGKILL)  # the leader may be gone and others not
        self._process.wait(_SETTLE_S)


def kill_group(pid: int, signum: signal.Signals) -> None:
    """Send a signal to a process group, if it exists."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _start(cmd: str, environment: Mapping[str, str], cwd: str, output: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["/bin/sh", "-c", cmd],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=cwd,
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
    return 128 - returncode if returncode < 0 else returncode


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


def _short(text: str, limit: int = 200) -> str:
    text = text.strip()
    return text if len(text) <= limit else text[:limit] + "..."
