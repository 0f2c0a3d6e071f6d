"""Engines as others have them, and executors on them of which nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from flow_core.interfaces.executor import Executor
from flow_core.testing.driver import Driver

sys.path.insert(0, str(Path(__file__).parent))  # for cctools_executors
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


@pytest.fixture
def with_ipyparallel() -> None:
    """Leave the test out where there is no ipyparallel."""
    need("ipyparallel")


@pytest.fixture(scope="session")
def ipp_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of somebody's ipyparallel cluster: two engines, which are started again when they die."""
    need("ipyparallel")
    from ipyparallel import Client

    home = tmp_path_factory.mktemp("ipp")
    (home / "security").mkdir()
    controller = [sys.executable, "-m", "ipyparallel.controller", f"--profile-dir={home}", "--nodb"]
    controller += ["--HeartMonitor.period=500", "--HeartMonitor.max_heartmonitor_misses=6"]
    file = home / "security" / "ipcontroller-engine.json"
    engine = f'while :; do {sys.executable} -m ipyparallel.engine --timeout=60 --file={file} --profile-dir="$1"; done'
    with open(home / "output", "wb") as log:  # ``log`` is a directory of its profile
        processes = [subprocess.Popen(controller, stdout=log, stderr=log, start_new_session=True)]
        try:
            until = time.monotonic() + 60
            while not file.exists() and time.monotonic() < until:
                time.sleep(0.05)
            for name in ("one", "two"):
                (home / name).mkdir()
                words = ["bash", "-c", engine, "engine", str(home / name)]
                processes.append(subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True))
            with Client(str(home / "security" / "ipcontroller-client.json"), timeout=60) as client:
                yield client
        finally:
            for process in reversed(processes):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Ray cluster of somebody's, to which this process is connected: one node of two cores; give its address."""
    need("ray")
    # Else a token that the user has somewhere decides whether both sides ask for one.
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    from flow_executors.engines.head_process import HeadProcess

    log = tmp_path_factory.mktemp("ray") / "head.log"
    with tempfile.TemporaryDirectory(prefix="flow-ray-test-", ignore_cleanup_errors=True) as directory:
        words = ("--head", "--block", "--node-ip-address", "127.0.0.1", "--port", "0", "--num-cpus", "2")
        more = ("--resources", '{"license": 1}', "--include-dashboard", "false", "--disable-usage-stats")
        program = (sys.executable, "-m", "ray.scripts.scripts", "start")
        head = HeadProcess([*program, *words, *more, "--temp-dir", directory], log)
        try:
            where = Path(directory) / "ray_current_cluster"
            deadline = time.monotonic() + 60
            while not (where.exists() and where.read_text()):
                assert not head.ended()
                assert time.monotonic() < deadline, head.tail()
                time.sleep(0.1)
            address = where.read_text().strip()
            ray.init(address=address, log_to_driver=False, configure_logging=False, namespace="test")
            yield address
            ray.shutdown()
        finally:
            head.end(10)
