"""Each kind of process stopped for good or for a while, signals to the group, full disks, clocks that jump.

All tasks come to the right end, so do later ones, the end of the run is not held up, and nothing is left of it. One or
two rows of each kind are marked ``chaos``, the others ``soak``: see ``rows``.
"""

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
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import psutil
import pytest
from killer import processes_of
from rows import rows

pytestmark = pytest.mark.timeout(240)

HERE = Path(__file__).parent
LINE_S = 120.0
CLEANUP_S = 31.0
FOR_A_WHILE_S = 7.0
"""Longer than the heartbeat threshold of the run."""


class Run:
    """The script under test, in a process group of its own."""

    def __init__(self, kind: str, directory: Path, environment: dict[str, str]) -> None:
        with (directory / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "matrix_run.py"), kind, str(directory)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=directory,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self._directory = directory
        self.run_id = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def begin(self) -> None:
        """Wait until its tasks run."""
        self.run_id = str(self.told("run_id"))
        self.told("running")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("{}")

    def told(self, what: str) -> object:
        """Return what the script says next, which must be about that."""
        said = json.loads(self._lines.get(timeout=LINE_S))
        assert what in said, f"the script said {said}; {(self._directory / 'stderr').read_text()[-2000:]}"
        return said[what]

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
        """All tasks came to the right end, and the run's end was not held up."""
        ends = self.told("ends")
        assert ends == {"right": 80, "later right": 10}
        assert float(str(self.told("cleanup_s"))) < CLEANUP_S
        self.check_gone()

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
        self.process.wait(30)
        self._reader.join(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def begin(kind: str, directory: Path = tmp_path, **environment: str) -> Run:
        run = Run(kind, directory, environment)
        runs.append(run)
        run.begin()
        return run

    yield begin
    for run in runs:
        run.close()


BOTH = ("htex", "llex")
ROLES = [
    *[("htex", role) for role in ("interchange", "manager", "nursery", "worker", "reaper", "projection")],
    *[("llex", role) for role in ("manager", "nursery", "worker")],
]


@pytest.mark.parametrize(
    ("kind", "role"), rows(ROLES, chaos=[("htex", "interchange"), ("llex", "manager"), ("htex", "projection")])
)
def test_a_process_that_is_stopped_for_good_holds_nothing_up(start: Start, kind: str, role: str) -> None:
    run = start(kind)
    run.stop(role)
    run.check()


@pytest.mark.parametrize("kind", rows(BOTH, chaos=["llex"]))
def test_a_fork_server_is_stopped_and_its_workers_die(start: Start, kind: str) -> None:
    run = start(kind)
    run.stop("nursery")
    for pid in run.pids("worker"):
        os.kill(pid, signal.SIGKILL)
    run.check()


ALL = ("script", "interchange", "manager", "nursery", "worker")


@pytest.mark.parametrize(
    ("kind", "roles"), rows(product(BOTH, [("script",), ALL, ("manager",)]), chaos=[("htex", ALL)])
)
def test_processes_that_are_stopped_for_a_while_go_on(start: Start, kind: str, roles: tuple[str, ...]) -> None:
    run = start(kind)
    pids = run.stop(*(role for role in roles if not (kind == "llex" and role == "interchange")))
    time.sleep(FOR_A_WHILE_S)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    run.check()


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


@pytest.mark.parametrize(("kind", "signum"), rows(product(BOTH, SIGNALS), chaos=[("htex", signal.SIGKILL)]))
def test_a_signal_to_the_whole_group_leaves_nothing(start: Start, kind: str, signum: int) -> None:
    run = start(kind)
    os.killpg(run.process.pid, signum)
    run.check_gone()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(where)], check=False)
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.parametrize("kills", rows(["worker", "manager", "interchange", None], chaos=["manager"]))
def test_a_disk_that_is_full_for_a_while_costs_no_task(start: Start, small_disk: Path, kills: str | None) -> None:
    run = start("htex", small_disk)
    with (small_disk / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    for pid in run.pids(kills) if kills else ():
        os.kill(pid, signal.SIGKILL)
    time.sleep(2)
    (small_disk / "filling").unlink()
    run.check()


_JUMPING = """
import os, time
_flag, _time, _time_ns = os.environ["FLOW_TEST_JUMP"], time.time, time.time_ns
def _by():
    try:
        with open(_flag) as file:
            return int(file.read() or 0)
    except OSError:
        return 0
time.time = lambda: _time() + _by()
time.time_ns = lambda: _time_ns() + _by() * 1_000_000_000
"""


@pytest.mark.parametrize(("kind", "seconds"), rows(product(BOTH, [86_400, -86_400]), chaos=[("htex", 86_400)]))
def test_a_clock_that_jumps_by_a_day_changes_nothing(start: Start, tmp_path: Path, kind: str, seconds: int) -> None:
    (tmp_path / "jumping").mkdir()
    (tmp_path / "jumping" / "sitecustomize.py").write_text(_JUMPING)
    flag = tmp_path / "jump"
    run = start(kind, PYTHONPATH=str(tmp_path / "jumping"), FLOW_TEST_JUMP=str(flag))
    flag.write_text(str(seconds))
    run.check()
