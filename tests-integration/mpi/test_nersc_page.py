"""The three ways of docs/nersc.md, each run as it stands on a real Slurm of four nodes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "nersc.md"
NAMED = re.compile(r"^```py\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
JOB = re.compile(r"^```sh\n(#!/bin/bash\n.*?)^```$", re.MULTILINE | re.DOTALL)
HELLO = """
from mpi4py import MPI
import sys
rank, total = MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()
node = MPI.Get_processor_name()
print(f"{sys.argv[1]} rank {rank} of {total} on {node}", flush=True)
"""


@pytest.fixture
def project(tmp_path: Path, slurm: dict[str, str], openmpi: None) -> Path:
    """A directory with the files of the page, and options of this site."""
    text = PAGE.read_text()
    for name, code in NAMED.findall(text):
        (tmp_path / name).write_text(code)
    python = Path(sys.executable).parent
    of_mpi = [f"export {name}={value}" for name, value in os.environ.items() if name.startswith(("OMPI_", "PRTE_"))]
    init = "; ".join([f"export PATH={python}:$PATH", *of_mpi])
    (tmp_path / "site_options.py").write_text(
        f"PARTITION, ACCOUNT, SCHEDULER_OPTIONS, WORKER_INIT, CORES = 'debug', None, '', {init!r}, 4\n"
    )
    (job,) = JOB.findall(text)
    without = "".join(line for line in job.splitlines(keepends=True) if not line.startswith(("#SBATCH -C", "module")))
    (tmp_path / "inside.sh").write_text(without.replace("conda activate flow", init))
    return tmp_path


def _run(project: Path, slurm: dict[str, str], *command: str) -> str:
    environment = {**os.environ, **slurm}
    try:
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.fail("\n".join(log.read_text() for log in project.glob("runinfo/*/flow.log")))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _wait_until_gone(project: Path, slurm: dict[str, str], *which: str) -> None:
    deadline = time.monotonic() + 180
    while _run(project, slurm, "squeue", "--noheader", *which).strip():
        assert time.monotonic() < deadline, "a job does not end"
        threading.Event().wait(0.5)


def test_the_script_on_a_login_node(project: Path, slurm: dict[str, str]) -> None:
    said = _run(project, slurm, sys.executable, "throughput.py").splitlines()
    assert said[0] == "(0, 0, 0) 0 0"
    assert said[-1] == "(1, 1, 1) 3 3"
    assert len(said) == 8
    _wait_until_gone(project, slurm)  # it leaves no job


def test_the_script_inside_an_allocation(project: Path, slurm: dict[str, str]) -> None:
    job = _run(project, slurm, "sbatch", "--parsable", "--output=said", "inside.sh").strip()
    _wait_until_gone(project, slurm, "--jobs", job)
    said = (project / "said").read_text()
    assert re.search(r"ran on \['n\d', 'n\d'\]", said), said


def test_programs_of_one_and_two_nodes_beside_serial_tasks(project: Path, slurm: dict[str, str]) -> None:
    (project / "hello.py").write_text(HELLO)
    said = _run(project, slurm, sys.executable, "mixed_mpi.py", f"{sys.executable} hello.py")
    assert said.endswith(f"{sum(number * number for number in range(20))}\n")
    found = re.findall(r"(task-\d) rank (\d) of (\d) on (n\d)", said)  # mpiexec may put two ranks on one line
    for number in range(6):
        ranks = {rank: (total, node) for task, rank, total, node in found if task == f"task-{number}"}
        nodes = 1 + number % 2
        assert sorted(ranks) == [str(rank) for rank in range(2 * nodes)]
        assert {total for total, _ in ranks.values()} == {str(2 * nodes)}
        assert len({node for _, node in ranks.values()}) == nodes
