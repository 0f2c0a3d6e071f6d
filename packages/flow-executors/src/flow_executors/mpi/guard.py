"""The process above a daemon of MPI: runs it, and ends all that came of it when its manager says so, or has died.

``guard CONTROL [--all] COMMAND...``, where CONTROL is the descriptor of a socket to the manager. On it come lines of
JSON: the signal by which a process directly below died, and at last the exit code, when nothing is left. A byte has
everything below ended; so has the end of the socket, a second later. Whatever becomes a daemon stays below, since this
process adopts orphans. With ``--all`` the end of the command is that of all that came of it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time

from flow_core.prctl import become_subreaper
from flow_core.remote.processes import below, send, table

_GRACE_S = 1.0  # seconds between SIGTERM and SIGKILL: a daemon of MPI ends its ranks by itself
# Seconds after the manager's death: the head hears of it first, and not of ranks that end as if by themselves.
_ALONE_S = 1.0
_AGAIN_S = 0.05


def main() -> None:
    """Run the command line; ends with the process."""
    control, command = int(sys.argv[1]), sys.argv[2:]
    if at_once := command[:1] == ["--all"]:
        del command[0]
    os.setsid()
    become_subreaper()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # what ends this is the control
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    child = os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_CLOSE, control)],
        setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD],
    )
    # The streams are the command's alone: they end with it.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    _Guard(control, woken, child, at_once).run()
    os._exit(0)


class _Guard:
    def __init__(self, control: int, woken: int, child: int, at_once: bool) -> None:
        self._control = control
        self._woken = woken
        self._child = child
        self._at_once = at_once
        self._code = 0
        self._ending = 0.0
        self._alone_until = 0.0
        self._told = False

    def run(self) -> None:
        """Reap until nothing is left."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        while self._reap():
            for descriptor, _ in poller.poll(int(_AGAIN_S * 1000) if self._ending or self._alone_until else None):
                if descriptor == self._woken:
                    os.read(self._woken, 512)
                    continue
                poller.unregister(self._control)
                if self._asked():
                    self._end()
                else:
                    self._alone_until = time.monotonic() + _ALONE_S
            if self._alone_until and time.monotonic() >= self._alone_until:
                self._end()
            if self._ending and time.monotonic() >= self._ending:
                self._send(signal.SIGKILL)
        self._tell("code", self._code)
        if self._alone_until:
            _remove_files()

    def _asked(self) -> bool:
        """Return whether it was the manager that asked for the end; else it has died."""
        try:
            return bool(os.read(self._control, 1))
        except OSError:
            return False

    def _reap(self) -> bool:
        """Reap who has died; return whether somebody is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            code = os.waitstatus_to_exitcode(status)
            if pid == self._child and code:
                self._code = code if code > 0 else 128 - code
            # A shell tells the death of its command by its code.
            signum = -code if code < 0 else code - 128 if pid == self._child and 128 < code < 160 else 0
            if signum and not self._ending:
                self._code = self._code or 128 + signum
                self._tell("signal", signum)
                self._end()
            elif pid == self._child and self._at_once:
                self._end()

    def _end(self) -> None:
        if not self._ending:
            self._ending = time.monotonic() + _GRACE_S
            self._send(signal.SIGTERM, signal.SIGCONT)

    def _send(self, *signals: int) -> None:
        send((one.pid for one in below((os.getpid(),), table())), *signals)

    def _tell(self, what: str, value: int) -> None:
        try:
            os.write(self._control, f"{json.dumps({what: value})}\n".encode())
        except OSError:
            return  # the manager has died


def _remove_files() -> None:
    """Remove what MPI kept here for the task, as its manager would have done."""
    # Not at the top: a start of ranks waits for this process.
    from flow_executors.mpi import rank_files
    from flow_executors.mpi.environment import TASK

    mark = os.environ.get(TASK)
    if mark:
        rank_files.remove(mark)
