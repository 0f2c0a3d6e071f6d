"""MPIExecutor of Parsl: what programs give it, and the commands of ranks that they write."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import flow.compat.parsl as parsl
from flow.compat.parsl import bash_app
from flow.compat.parsl.config import Config
from flow.compat.parsl.executors import MPIExecutor
from flow.compat.parsl.launchers import SimpleLauncher
from flow.compat.parsl.providers import LocalProvider

pytestmark = pytest.mark.timeout(100)


@pytest.mark.parametrize("options", [{}, {"mpi_launcher": "mpiexec"}])
def test_mpiexec_is_that_of_the_node(options: dict[str, str]) -> None:
    assert MPIExecutor(**options).mpi_launcher == "auto"


def test_workers_of_a_block_do_not_limit_the_ranks_of_a_task() -> None:
    assert MPIExecutor(max_workers_per_block=1).max_workers == float("inf")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI")
def test_a_command_of_ranks_runs_as_in_parsl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @bash_app
    def ranks(
        stdout: str = "out", stderr: str = "err", parsl_resource_specification: dict[str, int] | None = None
    ) -> str:
        return "$PARSL_MPI_PREFIX echo one of $PARSL_NUM_RANKS on $PARSL_NUM_NODES, $PARSL_RANKS_PER_NODE each"

    monkeypatch.chdir(tmp_path)
    root = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    provider = LocalProvider(init_blocks=1, max_blocks=1, launcher=SimpleLauncher(), worker_init=root)
    executor = MPIExecutor(max_workers_per_block=1, cores_per_worker=0.25, provider=provider)
    with parsl.load(Config(executors=[executor])):
        ranks(parsl_resource_specification={"num_nodes": 1, "ranks_per_node": 2}).result(timeout=80)
    assert Path("out").read_text().splitlines() == ["one of 2 on 1, 2 each"] * 2, Path("err").read_text()
