"""Open MPI and mpi4py, which these tests need, and a started ExtremeScaleExecutor of which nothing is left."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from flow_core.testing.driver import Driver
from flow_executors.testing.extreme_run import make_extreme_executor
from flow_executors.testing.local_run import driving

sys.path.insert(0, str(Path(__file__).parents[1] / "providers"))  # for provider_services

sys.path.insert(0, str(Path(__file__).parent))  # for extreme_tasks

from extreme_tasks import PATIENCE_S  # needs the lines above
from provider_services import missing, service


@pytest.fixture(autouse=True, scope="session")
def open_mpi() -> None:
    """Leave the tests out where there is no MPI."""
    if shutil.which("mpiexec") is None:
        missing("Open MPI is not installed; get it by tests-integration/services/mpi.sh install")
    if find_spec("mpi4py") is None:
        missing("mpi4py is not installed; get it by pip install mpi4py")


@pytest.fixture(autouse=True)
def own_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the test keep its jobs in a ledger of its own."""
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    return tmp_path / "jobs.ledger"


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Give a function that starts an executor; at the end every key has one outcome and nothing is left."""
    yield from driving(make_extreme_executor, tmp_path, shutdown_s=10, patience_s=PATIENCE_S)


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """A Slurm of four nodes with names of their own."""
    if os.getuid() != 0:
        missing("Slurm: nodes with names of their own need root")
    with service("slurm", "sbatch", {"SLURM_TEST_UTS": "1"}) as variables:
        yield variables
