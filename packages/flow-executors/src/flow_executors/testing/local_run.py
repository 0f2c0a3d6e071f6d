"""For tests: a PilotExecutor on this machine with short heartbeats, its processes, and that none is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flow_core.interfaces.executor import Executor
from flow_core.testing.driver import Driver
from flow_executors.client.client import Client
from flow_executors.htex import HighThroughputExecutor, PilotExecutor
from flow_providers.local.provider import LocalProvider

# Seconds that tests wait for a state before they fail: only a machine that hangs takes longer.
PATIENCE_S = 30.0


def make_executor(**options: object) -> HighThroughputExecutor:
    """Return an executor of two workers; options replace those of the tests."""
    chosen: dict[str, object] = {
        "label": "htex",
        "max_workers": 2,
        "cores_per_worker": 0.5,
        "provider": LocalProvider(max_blocks=1),
        "heartbeat_period": 0.2,
        "heartbeat_threshold": 4,
    }
    return HighThroughputExecutor(**{**chosen, **options})  # type: ignore[arg-type]  # checked by the constructor


def processes_of(run_id: str) -> dict[int, str]:
    """Return the processes whose command line names a run, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if run_id in words and int(entry.name) != os.getpid():
                    found[int(entry.name)] = words
    return found


def wait_until(condition: Callable[[], bool], complaint: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait for something that nobody reports. Raises AssertionError with the complaint."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)


def wait_gone(run_id: str) -> None:
    """Wait until no process of a run is left; kill what is, and complain."""
    try:
        wait_until(lambda: not processes_of(run_id), f"processes of {run_id} are left", 15)
    except AssertionError:
        left = processes_of(run_id)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"left behind: {left}") from None


def driving(
    make: Callable[..., Executor], directory: Path, shutdown_s: float = 2.0, patience_s: float = PATIENCE_S
) -> Iterator[Callable[..., Driver]]:
    """Give a function that starts an executor; at the end every key has one outcome and nothing is left.

    To be the body of a fixture: ``yield from driving(...)``.

    Args:
        make: Makes the executor of the options.
        directory: Where the runs keep their files.
        shutdown_s: Seconds that an executor has to end.
        patience_s: Seconds that the test waits for a state before it fails.
    """
    drivers: list[Driver] = []

    def start(**options: object) -> Driver:
        driver = Driver(make(**options), directory / f"run{len(drivers)}", patience_s)
        drivers.append(driver)
        driver.start()
        return driver

    yield start
    for driver in drivers:
        driver.release()
        driver.shutdown(shutdown_s)
    for driver in drivers:
        driver.check()
        wait_gone(run_id_of(driver))


def run_id_of(driver: Driver) -> str:
    """Return the run id of a driver."""
    return driver._context.run_id


def manager_pid(driver: Driver) -> int:
    """Return the pid of the first connected manager, waiting for it."""
    executor = driver.executor
    assert isinstance(executor, PilotExecutor)
    wait_until(lambda: bool(executor.connected_managers()), "no manager connected")
    return executor.connected_managers()[0].pid


def interchange_pid(driver: Driver) -> int:
    """Return the pid of the interchange that runs now."""
    executor = driver.executor
    assert isinstance(executor, PilotExecutor)
    runtime = executor._runtime
    assert runtime is not None
    assert isinstance(runtime.client, Client)
    assert runtime.client.incarnation is not None
    return runtime.client.incarnation.process.pid


class Frozen:
    """A process that is stopped for a while."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __enter__(self) -> Frozen:
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: _state(self.pid) == "T", "it did not stop")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
