"""What tests look at of an MPI job on this machine, and functions that they run in it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flow_core.testing.driver import Driver
from flow_executors.extreme import ExtremeScaleExecutor
from flow_executors.testing.local_run import processes_of, run_id_of, wait_until

PATIENCE_S = 120.0
"""Seconds that tests wait for one thing: on a busy machine an MPI job may need half a minute to start."""


def ranks_of(driver: Driver) -> dict[str, int]:
    """Return the processes of the ranks by name: ``flow-manager``, and ``flow-rank0`` on for those of workers."""
    found = {}
    for pid in processes_of(run_id_of(driver)):
        name = Path(f"/proc/{pid}/comm").read_text().strip() if os.path.exists(f"/proc/{pid}/comm") else ""
        if name == "flow-manager" or name.startswith("flow-rank"):
            found[name] = pid
    return found


def connected(driver: Driver) -> ExtremeScaleExecutor:
    """Return the executor, once its manager is connected."""
    executor = driver.executor
    assert isinstance(executor, ExtremeScaleExecutor)
    wait_until(lambda: bool(executor.connected_managers()), "no manager connected", PATIENCE_S)
    return executor


def of_mpi() -> list[str]:
    """Return the variables of MPI that a task sees."""
    return [name for name in os.environ if name.startswith(("OMPI_COMM", "PMIX_", "PMI_"))]


def size_of(value: bytes) -> int:
    """Return the length of an argument."""
    return len(value)


def zeros(size: int) -> bytes:
    """Return so many bytes."""
    return bytes(size)


def deaf(seconds: float) -> None:
    """Sleep, whatever a timer raises in it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:
            pass
