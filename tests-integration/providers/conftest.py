"""The services that these tests need: started by the scripts in ``services/``, stopped by those who started them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for htex_workflow and provider_services

from provider_services import missing, service  # needs the line above


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """A Slurm of four nodes that is forgotten about finished jobs after 300 s."""
    with service("slurm", "sbatch", {"SLURM_TEST_UTS": "1" if os.getuid() == 0 else "0"}) as variables:
        yield variables


@pytest.fixture(scope="session")
def gridengine() -> Iterator[dict[str, str]]:
    """A Grid Engine of one host with 16 slots; one for all tests, since it takes ten seconds to end."""
    with service("sge", "sge_qmaster") as variables:
        yield variables


@pytest.fixture(scope="module")
def torque() -> Iterator[dict[str, str]]:
    """Commands of the Torque kind over a Slurm of four nodes."""
    with service("torque", "slurmctld") as variables:
        yield variables


@pytest.fixture(scope="module")
def ssh_server() -> Iterator[dict[str, str]]:
    """An OpenSSH server that takes keys, and for root one that takes a password and a one-time code."""
    pytest.importorskip("paramiko")
    with service("ssh", "sshd") as variables:
        yield variables


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, str]]:
    """Two hosts with networks of their own, reached by ssh with a key."""
    pytest.importorskip("paramiko")
    if os.getuid() != 0:
        missing("hosts: networks of their own need root")
    with service("hosts", "sshd") as variables:
        yield variables


@pytest.fixture
def own_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the test keep its jobs in a ledger of its own."""
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    return tmp_path / "jobs.ledger"


@pytest.fixture
def need_program() -> Callable[[str, str], None]:
    """Return a function that skips, or fails, without a program, naming the script that installs it."""

    def need(program: str, script: str) -> None:
        if shutil.which(program) is None:
            missing(f"{program} is not installed; get it by tests-integration/services/{script}.sh install")

    return need
