"""Processes that hold keys leave no core files; workers do, where their user wants them."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flow_core.testing.driver import Driver
from flow_executors.testing.local_run import PATIENCE_S, interchange_pid, make_executor, manager_pid, wait_until


@pytest.fixture
def wanted() -> Iterator[int]:
    """Core files are wanted, as far as the system lets this process want them: the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("no process here may leave core files")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def limit(pid: int) -> int:
    return resource.prlimit(pid, resource.RLIMIT_CORE)[0]


def test_a_manager_that_crashes_leaves_no_core_file_with_its_key(tmp_path: Path, wanted: int) -> None:
    driver = Driver(make_executor(max_workers=1), tmp_path / "run", PATIENCE_S)
    driver.start()
    try:
        worker = driver.outcome(driver.submit(os.getpid)).value
        assert isinstance(worker, int)
        manager = manager_pid(driver)
        assert (limit(manager), limit(interchange_pid(driver)), limit(worker)) == (0, 0, wanted)
        place = Path(psutil.Process(manager).cwd())
        before = {entry.name for entry in place.iterdir()}
        driver.hold("running")
        driver.wait_held("running")
        os.kill(manager, signal.SIGABRT)
        wait_until(lambda: not psutil.pid_exists(manager), "the manager is gone")
        assert not [
            entry.name for entry in place.iterdir() if entry.name.startswith("core") and entry.name not in before
        ]
    finally:
        driver.shutdown()
