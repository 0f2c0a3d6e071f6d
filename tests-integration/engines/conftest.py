"""Engines as others have them, and executors on them of which nothing is left."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from flow_core.interfaces.executor import Executor
from flow_core.testing.driver import Driver

sys.path.insert(0, str(Path(__file__).parents[1] / "providers"))  # for provider_services

from provider_services import missing  # needs the line above


def need(module: str) -> None:
    """Leave a test out where an engine is not installed."""
    if find_spec(module) is None:
        missing(f"{module} is not installed; get it by pip install -r tests-integration/requirements-engines.txt")


@pytest.fixture(autouse=True)
def own_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the test keep its jobs in a ledger of its own."""
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))


@pytest.fixture(scope="session")
def dask_cluster() -> Iterator[Any]:
    """A Dask cluster of somebody's: two workers of one thread each, which a nanny starts again."""
    need("distributed")
    from distributed import LocalCluster, Security

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        security=Security.temporary(),
        resources={"license": 1, "cores": 2},
        silence_logs=50,
    ) as cluster:
        yield cluster


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[[Executor], Driver]]:
    """Give a function that starts an executor; at the end it is shut down, and every key has one outcome."""
    drivers: list[Driver] = []

    def make(executor: Executor) -> Driver:
        driver = Driver(executor, tmp_path / str(len(drivers)), 60)
        driver.start()
        drivers.append(driver)
        return driver

    yield make
    for driver in drivers:
        driver.release()
        driver.shutdown()
        driver.check()


def children(pid: int = 0) -> list[Any]:
    """Return all processes below one, or below this one."""
    import psutil

    return list(psutil.Process(pid or os.getpid()).children(recursive=True))
