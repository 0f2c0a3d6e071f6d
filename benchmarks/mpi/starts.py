"""Tasks of ranks on four nodes of Slurm: their start beside that of a bare mpiexec, and how busy packed nodes are.

    SLURM_TEST_UTS=1 SLURM_TEST_CPUS=4 tests-integration/services/slurm.sh start, and the export that it prints; then
    python benchmarks/mpi/starts.py

Both ratios are of one run. *Start*: a trivial program as one rank on each of four nodes, by ``$FLOW_MPI_PREFIX`` of
a task, over bare mpiexec in an allocation of the same nodes, which starts its daemons by srun (``salloc``, no pilot in
the way); medians. *Busy*: the share of the time that the workers of four nodes are taken by 100 tasks of two ranks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import flow
from flow_providers import SlurmProvider
from flow_providers.launchers import SrunLauncher

BAR_START, BAR_BUSY = 1.5, 0.85
AS_ROOT = {f"{name}_ALLOW_RUN_AS_ROOT{end}": "1" for name in ("OMPI", "PRTE") for end in ("", "_CONFIRM")}
BARE = """
import subprocess, sys, time
for _ in range(int(sys.argv[1])):
    begin = time.perf_counter()
    subprocess.run(["mpiexec", "-n", "4", "-host", "n1:1,n2:1,n3:1,n4:1", "true"], check=True)
    print(time.perf_counter() - begin)
"""


@flow.bash_app
def trivial(log: str) -> str:
    return f"begin=$(date +%s.%N); $FLOW_MPI_PREFIX true; echo $begin $(date +%s.%N) >> {log}"


@flow.bash_app
def pair(log: str, seconds: float) -> str:
    return f"begin=$(date +%s.%N); $FLOW_MPI_PREFIX sleep {seconds}; echo $begin $(date +%s.%N) >> {log}.$$.$RANDOM"


def executor() -> flow.HighThroughputExecutor:
    """Return one with a block of four nodes, four workers each."""
    provider = SlurmProvider(
        "debug",
        nodes_per_block=4,
        cores_per_node=4,
        init_blocks=1,
        max_blocks=1,
        walltime="00:20:00",
        launcher=SrunLauncher(),
        worker_init="; ".join(f"export {name}={value}" for name, value in AS_ROOT.items()),
    )
    return flow.HighThroughputExecutor(label="htex", max_workers=4, provider=provider, address="127.0.0.1")


def bare(times: int) -> list[float]:
    """Return the seconds of bare mpiexec, in an allocation of its own."""
    command = ["salloc", "-Q", "-N4", "--ntasks-per-node=1", sys.executable, "-c", BARE, str(times)]
    environment = {**os.environ, **AS_ROOT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
    return [float(line) for line in done.stdout.split()]


def spans(folder: Path, name: str) -> list[tuple[float, float]]:
    """Return begins and ends that tasks have written."""
    rows = [line.split() for path in folder.glob(f"{name}*") for line in path.read_text().splitlines()]
    return [(float(begin), float(end)) for begin, end in rows]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="flow-bench-mpi-"))
    try:
        without = bare(options.times)
        with flow.load(flow.Config(executors=[executor()], run_dir=str(folder / "runinfo"), strategy="none")):
            nodes = {"nodes": 4, "ranks_per_node": 1}
            for number in range(options.times + 1):  # the first finds out which MPI there is
                trivial(str(folder / f"start.{number}"), resource_specification=nodes).result(120)
            begin = time.time()
            log = str(folder / "pair")
            tasks = [pair(log, options.seconds, resource_specification={"ranks": 2}) for _ in range(options.tasks)]
            for task in tasks:
                task.result(600)
            took = time.time() - begin
        by_flow = sorted(end - begin for begin, end in spans(folder, "start"))
        medians = statistics.median(by_flow), statistics.median(without)
        ratio = medians[0] / medians[1]
        busy = sum(2 * (end - begin) for begin, end in spans(folder, "pair")) / (16 * took)
        print(f"start on four nodes: {medians[0]:.2f} s, bare {medians[1]:.2f} s: {ratio:.2f} (bar {BAR_START})")
        print(
            f"{options.tasks} tasks of 2 ranks, {options.seconds:g} s: {took:.1f} s, busy {busy:.2f} (bar {BAR_BUSY})"
        )
        sys.exit(0 if ratio <= BAR_START and busy >= BAR_BUSY else 1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
