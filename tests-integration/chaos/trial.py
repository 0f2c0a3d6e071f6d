"""One run under trial: a script with tasks under way, in a process group of its own, and what must come of it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from killer import processes_of

HERE = Path(__file__).parent
LINE_S = 120.0
CLEANUP_S = 31.0
LATER = 10


class Run:
    """The script under test, in a process group of its own.

    Args:
        kind: Its executor, see ``matrix_run``.
        directory: Where its files go.
        environment: Variables besides the usual.
        setup: What is other than usual, see ``matrix_run.USUAL``.
        before: Words of a command that is to start it.
    """

    def __init__(
        self,
        kind: str,
        directory: Path,
        environment: dict[str, str],
        setup: dict[str, object],
        before: tuple[str, ...] = (),
    ) -> None:
        self._tasks = int(str(setup.get("tasks", 80)))
        self._line_s = float(str(setup.get("patience_s", 90.0))) + LINE_S - 90.0
        self._errors = directory / "stderr"
        with self._errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*before, sys.executable, str(HERE / "matrix_run.py"), kind, str(directory), json.dumps(setup)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=directory,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self.directory = directory
        self.run_id = ""
        self._started: list[psutil.Process] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def begin(self) -> None:
        """Wait until its tasks run."""
        self.run_id = str(self.told("run_id"))
        self.told("running")
        self._started = self._below()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("{}")

    def told(self, what: str) -> object:
        """Return what the script says next, which must be about that."""
        said = json.loads(self._lines.get(timeout=self._line_s))
        assert what in said, f"the script said {said}; {self._errors.read_text()[-2000:]}"
        return said[what]

    @property
    def log(self) -> str:
        """What the run has written to its log so far."""
        return "".join(one.read_text() for one in self.directory.glob("runinfo/*/flow.log"))

    def wait_log(self, text: str, timeout_s: float) -> None:
        """Wait until the run's log has a text."""
        deadline = time.monotonic() + timeout_s
        while text not in self.log:
            assert time.monotonic() < deadline, f"the log has no {text!r}: {self.log[-3000:]}"
            time.sleep(0.1)

    def pids(self, role: str) -> list[int]:
        """Return the processes of one role, waiting until there is one."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if role == "script":
                return [self.process.pid]
            if role == "projection":
                found = [one.pid for one in self._below() if "--role projector" in " ".join(one.cmdline())]
            else:
                found = [process.pid for process in processes_of(self.run_id).get(role, [])]
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"no {role} runs")

    def _below(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, *roles: str) -> list[int]:
        """Stop all processes of some roles."""
        pids = [pid for role in roles for pid in self.pids(role)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids

    def check(self) -> None:
        """All tasks came to the right end, the run's end was not held up, and nothing is left of it."""
        self.check_right()
        self.check_gone()

    def check_right(self) -> None:
        """All tasks came to the right end, and the run's end was not held up."""
        ends = self.told("ends")
        assert ends == {"right": self._tasks, "later right": LATER}, self.log[-3000:]
        assert float(str(self.told("cleanup_s"))) < CLEANUP_S

    def check_gone(self, timeout_s: float = 40.0) -> None:
        """The script and all of its run have ended."""
        self.process.wait(timeout_s)
        deadline = time.monotonic() + timeout_s
        while left := processes_of(self.run_id):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.1)

    def close(self) -> None:
        """Leave nothing behind, whatever came of it."""
        left = processes_of(self.run_id) if self.run_id else {}
        pids = [process.pid for some in left.values() for process in some]
        for pid in [self.process.pid, *pids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:  # those of a pool say nothing of the run
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(30)
        self._reader.join(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def begins(ran: Path) -> Counter[int]:
    """Return how often each task began, from the file that they write."""
    return Counter(int(line.split()[0]) for line in ran.read_text().splitlines())


Start = Callable[..., Run]
