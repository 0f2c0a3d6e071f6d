"""HeadProcess: nothing that came of it is left, whatever state it and its guard are in."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from flow_core.remote.processes import below, table
from flow_executors.engines.head_process import HeadProcess

pytestmark = pytest.mark.timeout(60)


def test_processes_below_a_guard_that_is_stopped_are_ended(tmp_path: Path) -> None:
    head = HeadProcess(["bash", "-c", f"sleep 300 & echo > {tmp_path}/began; wait"], tmp_path / "log")
    deadline = time.monotonic() + 30
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    family = [head.pid, *(one.pid for one in below((head.pid,), table()))]
    assert len(family) == 3
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    assert "did not end" in head.end(0.5)
    while any(pid in table() for pid in family):
        assert time.monotonic() < deadline
        time.sleep(0.02)
