"""The services that these tests need: started by the scripts in ``services/``, stopped by those who started them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for htex_workflow

SERVICES = Path(__file__).parents[1] / "services"


@contextmanager
def service(name: str, needs: str, env: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """Start a service and give the variables its clients need; skip, or fail if services are required, without it."""
    script = SERVICES / f"{name}.sh"
    environment = {**os.environ, **(env or {})}
    if shutil.which(needs, path=os.environ["PATH"] + ":/usr/sbin:/sbin:/usr/lib/gridengine") is None:
        missing(f"{name}: {needs} is not installed; get it by tests-integration/services/{name}.sh install")
    started = subprocess.run(["bash", script, "start"], capture_output=True, text=True, timeout=55, env=environment)
    if started.returncode != 0:
        missing(f"{name} does not start: {started.stderr.strip()[-500:]}")
    try:
        yield exports(started.stdout)
    finally:
        subprocess.run(["bash", script, "stop"], capture_output=True, timeout=55, env=environment, check=False)


def exports(text: str) -> dict[str, str]:
    """Return the variables of a script's last ``export`` line."""
    lines = [line for line in text.splitlines() if line.startswith("export ")]
    pairs = re.findall(r"(\w+)=(\S+)", lines[-1]) if lines else []
    return {key: value.replace("$PATH", os.environ["PATH"]) for key, value in pairs}


def missing(why: str) -> None:
    if os.environ.get("FLOW_REQUIRE_SERVICES") == "1":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """A Slurm of four nodes that is forgotten about finished jobs after 300 s."""
    with service("slurm", "sbatch", {"SLURM_TEST_UTS": "1" if os.getuid() == 0 else "0"}) as variables:
        yield variables


@pytest.fixture(scope="module")
def gridengine() -> Iterator[dict[str, str]]:
    """A Grid Engine of one host with 16 slots."""
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
        pytest.skip("hosts with networks of their own need root")
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
