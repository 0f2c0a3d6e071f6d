"""The script is killed while processes of the run are stopped: they end all the same."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rows import rows

from flow_core.remote.processes import Process, below, look, table
from flow_executors.testing.local_run import processes_of, wait_until

_SCRIPT = """
import sys, threading, time
import flow
from flow import Config, python_app
from flow.executors import HighThroughputExecutor, LowLatencyExecutor
from flow.monitoring import MonitoringHub

@python_app
def long():
    import time
    time.sleep(100)

def load():
    global kernel
    kind = {"htex": HighThroughputExecutor, "llex": LowLatencyExecutor}[sys.argv[1]]
    executor = kind(label="x", max_workers=1, heartbeat_period=0.5, heartbeat_threshold=60)
    kernel = flow.load(Config(executors=[executor], run_dir=sys.argv[2], monitoring=MonitoringHub()))

thread = threading.Thread(target=load)
thread.start()
thread.join()
future = long()
while future.task_status() != "running":
    time.sleep(0.01)
print(kernel.run_id, flush=True)
time.sleep(100)
"""

_ROLES = {
    "interchange": ("flow_executors.interchange",),
    "manager": ("flow_executors.manager", "flow_executors.direct"),
    "reaper": ("flow_providers.jobs.reaper",),
    "projection": ("flow_monitor.project",),
    "all": (),
}
_GONE_S = 30.0
"""Two seconds for submissions under way, five for jobs to end by themselves, and what a busy machine makes of it."""


class Script:
    """A script with one executor, and all processes of its run."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, kind, str(directory / "runinfo")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=directory,
        )
        assert self.process.stdout is not None
        self.run_id = self.process.stdout.readline().strip()
        self.known = self._found()

    def _found(self) -> dict[int, Process]:
        processes, named = table(), processes_of(self.run_id)
        own = {pid: processes[pid] for pid in named if pid in processes and pid != self.process.pid}
        return own | {one.pid: one for one in below([self.process.pid, *own], processes)}

    def pids(self, role: str) -> list[int]:
        """Return the processes of a role."""
        named = processes_of(self.run_id)
        return [pid for pid in self.known if not _ROLES[role] or any(one in named.get(pid, "") for one in _ROLES[role])]

    def left(self) -> dict[int, str]:
        """Return the processes that live still, and their names."""
        found = {pid: process for pid, process in table().items() if pid in self.known}
        return {pid: one.name for pid, one in found.items() if one.start == self.known[pid].start}

    def close(self) -> None:
        """End what is left of it."""
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


ROWS = [*(("htex", role) for role in _ROLES), ("llex", "manager"), ("llex", "all")]


@pytest.mark.parametrize(("kind", "role"), rows(ROWS, chaos=[("htex", "all")]))
def test_what_is_stopped_ends_with_a_script_that_is_killed(tmp_path: Path, kind: str, role: str) -> None:
    script = Script(kind, tmp_path)
    try:
        stopped = script.pids(role)
        assert stopped
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: all((one := look(pid)) and one.stopped for pid in stopped), "some did not stop")
        script.process.kill()
        wait_until(lambda: not script.left(), "some are left", _GONE_S)
    finally:
        left = script.left()
        script.close()
    assert not left
