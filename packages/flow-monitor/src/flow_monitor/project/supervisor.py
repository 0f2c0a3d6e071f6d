"""The supervisor of the projection process, in the script: starts it, restarts it when it is killed, ends it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flow_core.folders import closed_to_writers
from flow_core.starting import starting

NOT_DONE_YET = 75  # exit code, EX_TEMPFAIL of sysexits.h: the log has the rest
END = b"end\n"
"""Sent to the process when the log is whole. The end of the pipe would not do: forked children hold it as well."""
_MAX_RESTARTS = 20  # only the magnitude matters: a projection that always dies must not be started for ever
_STABLE_S = 30.0  # seconds; a process that ran this long is restarted without a pause
_TOLD_AFTER_S = 15.0
"""Seconds for which a database cannot be written before the log of a run that goes on says so."""
_STOPPED_S = 3.0
"""Seconds for which the end of a run waits for a stopped projection that SIGCONT does not continue."""
_LOOK_S = 0.1  # seconds between two looks whether the process is stopped: no signal tells the script so


@dataclass(frozen=True, slots=True)
class ProjectionSettings:
    """Settings of the process. The endpoint may hold a password: it goes over a pipe, never on a command line."""

    run_id: str
    log_path: Path
    endpoint: str
    patience_s: float

    @property
    def database(self) -> str:
        """Name of the database for messages: the path of a file, or the URI without a password."""
        return without_password(self.endpoint).removeprefix("sqlite:///")

    @property
    def remedy(self) -> str:
        """Command that brings missing events into the database."""
        return f"'flow monitor rebuild {self.log_path.parent.parent}'"


def without_password(uri: str) -> str:
    """Return the URI of a database without what may be a password."""
    scheme, _, rest = uri.partition("://")
    login, at, host = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}@{host}" if at else uri


class Supervisor:
    """Keeps one projection process going. ``start`` and ``close`` on one thread; a thread of its own watches."""

    def __init__(self, settings: ProjectionSettings, logger: logging.Logger) -> None:
        self._settings = settings
        self._logger = logger
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._news = threading.Condition()
        self._ended = False
        self._stuck = ""
        self._failed = ""
        self._reported = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name="flow-monitor-watch", daemon=True)

    @property
    def pid(self) -> int | None:
        """Process id of the projection, None where it does not run."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    def start(self) -> None:
        """Start the process and the watch. Raises OSError where it cannot be started."""
        self._process = self._spawn()
        self._thread.start()

    def close(self, timeout_s: float) -> bool:
        """Let the process drain and end, within the time; return whether it did. Else it goes on alone, bounded.

        A database that cannot be written is not waited for, nor a process that is stopped: there is no telling
        how long that lasts. One that is stopped (SIGSTOP) gets SIGCONT.
        """
        # Before the lock: a restart that is under way must see it, and then sends the end itself.
        self._closing.set()
        with self._lock:
            process = self._process
            if process is not None:
                _report_end(process)
        # Waiting is by monotonic time: the wall clock may be set while a run ends.
        deadline, moving_at = time.monotonic() + timeout_s, time.monotonic()
        with self._news:
            while not (self._ended or self._stuck) and (now := time.monotonic()) < deadline:
                if not self._stopped():
                    moving_at = now
                elif now - moving_at >= _STOPPED_S:
                    self._say_not_waited_for(f"its projection (pid {self.pid}) is stopped (SIGSTOP)")
                    break
                self._news.wait(min(_LOOK_S, deadline - now))
            if self._stuck and not self._ended:
                self._say_stuck()
        return self._ended and process is not None and process.returncode == 0

    def _stopped(self) -> bool:
        """Return whether the process is stopped (SIGSTOP), and continue it by SIGCONT."""
        pid = self.pid
        try:
            # WNOWAIT leaves the state to Popen.wait() of the watch: else it would miss the end of the process.
            if pid is None or os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is None:
                return False
        except ChildProcessError:  # it has ended
            return False
        self._go_on(pid)
        return True

    def _go_on(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)

    def _spawn(self) -> subprocess.Popen[bytes]:
        told = self._settings
        log_path = told.log_path.with_name("projector.log")
        # starting(): Popen would wait for a child that another thread forks at that moment.
        with open(log_path, "ab", opener=closed_to_writers) as log, starting():
            process = subprocess.Popen(
                # -P: "python -m" would put the working directory first on the path, and a module there would run here.
                [sys.executable, "-P", "-m", "flow_monitor.project", "--role", "projector", "--run-id", told.run_id],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # A group of its own: Ctrl-C at the terminal is for the script, whose end ends the projection.
                process_group=0,
            )
        assert process.stdin is not None
        job = {
            "run_id": told.run_id,
            "log": str(told.log_path),
            "endpoint": told.endpoint,
            "patience_s": told.patience_s,
        }
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead already: the watch will say so
        return process

    def _watch(self) -> None:
        try:
            self._keep_going()
        finally:
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _keep_going(self) -> None:
        for restart in range(_MAX_RESTARTS + 1):
            process = self._process
            assert process is not None
            started = time.monotonic()
            self._listen(process)
            code = process.wait()
            # Closed by the watch only when the process has ended: close() may be writing the end to it.
            if process.stdin is not None:
                process.stdin.close()
            # Codes of the process's own are final; only a death is followed by a restart. While closing, few are tried.
            if code in (0, 1, NOT_DONE_YET) or restart == _MAX_RESTARTS or (self._closing.is_set() and restart > 2):
                self._say_end(code)
                return
            self._logger.warning("the monitoring projection died (%s); it goes on where it was", _how(code))
            if time.monotonic() - started < _STABLE_S:
                # Ends early when the run does. 30 s at most: each restart reads the sums of the run from the database.
                self._closing.wait(min(0.1 * 2**restart, 30.0))
            with self._lock:
                self._process = self._spawn()
                # close() has sent the end to the process before this one.
                if self._closing.is_set():
                    _report_end(self._process)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Read the reports of the process, one JSON object a line, until it ends. Watch thread only."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                try:
                    news = json.loads(line)
                except ValueError:
                    continue
                with self._news:
                    self._failed = news.get("failed", "")
                    self._stuck = news.get("stuck", "")
                    # Once, under the lock that close() waits with, so that the two never both say it.
                    if self._stuck and news["seconds"] >= _TOLD_AFTER_S:
                        self._say_stuck()
                    self._news.notify_all()

    def _say_stuck(self) -> None:
        """Say once that the database cannot be written."""
        if not self._reported:
            self._reported = True
            self._say_not_waited_for(self._stuck)

    def _say_not_waited_for(self, why: str) -> None:
        told = self._settings
        self._logger.warning(
            "monitoring: the database %s cannot be written now: %s. The run does not wait for it: its events are safe "
            "in %s and come into the database when that can be written, or by %s",
            told.database, why, told.log_path, told.remedy,
        )  # fmt: skip

    def _say_end(self, code: int) -> None:
        if code != 0:
            told = self._settings
            self._logger.error(
                "monitoring: the events of run %s are safe in %s but not all in the database %s: %s (see %s). Mend it, "
                "move it away or name another one, then run %s", told.run_id, told.log_path, told.database,
                self._failed or _how(code), told.log_path.with_name("projector.log"), told.remedy,
            )  # fmt: skip


def _report_end(process: subprocess.Popen[bytes]) -> None:
    """Send the message that the log is whole, and close the pipe. The process may be dead."""
    pipe = process.stdin
    if pipe is not None and not pipe.closed:
        with suppress(OSError):
            pipe.write(END)
            pipe.flush()
        with suppress(OSError):
            pipe.close()


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
