"""A started HighThroughputExecutor with short heartbeats, and the proof that nothing of it is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flow_core.testing.driver import Driver
from flow_executors.testing.local_run import PATIENCE_S, make_executor, run_id_of, wait_gone


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Give a function that starts an executor; at the end every key has one outcome and nothing is left."""
    drivers: list[Driver] = []

    def start(**options: object) -> Driver:
        driver = Driver(make_executor(**options), tmp_path / f"run{len(drivers)}", PATIENCE_S)
        drivers.append(driver)
        driver.start()
        return driver

    yield start
    for driver in drivers:
        driver.release()
        driver.shutdown()
    for driver in drivers:
        driver.check()
        wait_gone(run_id_of(driver))
