"""MPI on this machine and a Slurm of four nodes, and executors on both."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "providers"))  # for provider_services

from provider_services import exports, missing, service  # needs the lines above

from flow_core import Config
from flow_executors import HighThroughputExecutor
from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.launchers import SrunLauncher
from flow_providers.local.provider import LocalProvider

SCRIPT = Path(__file__).parents[1] / "services" / "mpi.sh"
AS_ROOT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
# Other tests make and remove bridges at the same time, and who has been told such an address waits for it for minutes.
BY_LOOPBACK = {"OMPI_MCA_oob_tcp_if_include": "lo", "OMPI_MCA_btl_tcp_if_include": "lo"}
OF_MPI = AS_ROOT | BY_LOOPBACK


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let Open MPI run as root and talk within the machine, and the test keep its jobs in a ledger of its own."""
    for name, value in OF_MPI.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))


@pytest.fixture
def openmpi() -> None:
    """Open MPI of the system, with mpi4py."""
    if shutil.which("mpiexec") is None:
        missing("mpiexec is not installed; get it by tests-integration/services/mpi.sh install")
    try:
        import mpi4py  # noqa: F401 - only to see that it is there
    except ImportError:
        missing("mpi4py is not installed; it is in tests-integration/requirements-services.txt")


@pytest.fixture
def other_mpi(request: pytest.FixtureRequest, openmpi: None) -> str:
    """The Python of an environment with another MPI: ``MPI_TEST_OPENMPI5`` or ``MPI_TEST_MPICH``."""
    # Not below the test's own cache: what ``mpi.sh install`` has made.
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    told = subprocess.run(
        ["bash", SCRIPT, "env"], capture_output=True, text=True, timeout=20, env=environment, check=True
    )
    folder = os.environ.get(request.param) or exports(told.stdout)[request.param]
    python = Path(folder) / "bin" / "python"
    if not (Path(folder) / "bin" / "mpiexec").exists():
        missing(f"{folder} is not there; get it by tests-integration/services/mpi.sh install")
    version = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info[:2])"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    if version.stdout.strip() != str(sys.version_info[:2]):
        missing(
            f"{folder} has another Python: MPI_TEST_PYTHON={sys.executable} tests-integration/services/mpi.sh install"
        )
    return str(python)


@pytest.fixture
def one_node(tmp_path: Path, openmpi: None) -> Config:
    """A Config with one node of this machine that has four workers."""
    executor = HighThroughputExecutor(
        label="htex", max_workers=4, cores_per_worker=0.25, provider=LocalProvider(max_blocks=1)
    )
    return Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), infrastructure_retries=0)


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """A Slurm whose four nodes have names of their own."""
    if os.getuid() != 0:
        missing("names of nodes of their own need root")
    with service("slurm", "sbatch", {"SLURM_TEST_UTS": "1", "SLURM_TEST_CPUS": "4"}) as variables:
        yield variables


@pytest.fixture
def four_nodes(slurm: dict[str, str], tmp_path: Path, openmpi: None) -> Callable[..., Config]:
    """A function that makes a Config with a block of all four nodes, or several of fewer, four workers each."""

    def make(worker_init: str = "", nodes: int = 4, strategy: str = "none", **options: object) -> Config:
        provider = SlurmProvider(
            "debug",
            channel=LocalChannel(
                userhome=str(tmp_path), envs={**slurm, **OF_MPI}, script_dir=str(tmp_path / "scripts")
            ),
            nodes_per_block=nodes,
            cores_per_node=4,
            init_blocks=1,
            max_blocks=4 // nodes,
            launcher=SrunLauncher(),
            walltime="00:10:00",
            cmd_timeout=30,
            worker_init="\n".join((*(f"export {name}={value}" for name, value in OF_MPI.items()), worker_init)),
        )
        given: dict[str, object] = {"max_workers": 4, "heartbeat_period": 2, "heartbeat_threshold": 20, **options}
        executor = HighThroughputExecutor(label="htex", provider=provider, address="127.0.0.1", **given)  # type: ignore[arg-type]  # checked there
        return Config(
            executors=[executor], run_dir=str(tmp_path / "runinfo"), strategy=strategy, infrastructure_retries=0
        )

    return make
