"""What MPI costs within a block: an ExtremeScaleExecutor beside a HighThroughputExecutor of as many workers, here.

    python benchmarks/scale/ranks.py [--workers 2] [--tasks 5000] [--idle 10]

Prints no-op tasks a second, the median round trip, and the CPU that the processes of the block take while nothing runs
(of the first rank, and of a rank with a worker), in percent of a core. Open MPI as root needs OMPI_ALLOW_RUN_AS_ROOT=1
and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import flow
from flow import Config, python_app
from flow.executors import ExtremeScaleExecutor, HighThroughputExecutor
from flow.providers import LocalProvider
from flow_executors.htex import PilotExecutor


@python_app
def nothing() -> None:
    """Do nothing."""


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def ranks(manager: int) -> dict[str, int]:
    """The first rank, and one with a worker."""
    found = {"manager": manager}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "comm").exists() and (entry / "comm").read_text().strip() == "flow-rank0":
            found["rank"] = int(entry.name)
    return found


def measure(executor: PilotExecutor, tasks: int, idle_s: float) -> str:
    """Return a line of the table."""
    with tempfile.TemporaryDirectory() as folder, flow.load(Config(executors=[executor], run_dir=folder)):
        for future in [nothing() for _ in range(100)]:
            future.result(60)
        began = time.perf_counter()
        for future in [nothing() for _ in range(tasks)]:
            future.result(60)
        rate = tasks / (time.perf_counter() - began)
        trips = []
        for _ in range(300):
            began = time.perf_counter()
            nothing().result(60)
            trips.append(time.perf_counter() - began)
        watched = ranks(executor.connected_managers()[0].pid)
        time.sleep(1)
        before = {name: cpu_s(pid) for name, pid in watched.items()}
        time.sleep(idle_s)
        idle = {name: (cpu_s(pid) - before[name]) / idle_s * 100 for name, pid in watched.items()}
    shown = ", ".join(f"{name} {percent:.1f}%" for name, percent in idle.items())
    return f"| {executor.label} | {rate:,.0f} | {statistics.median(trips) * 1000:.2f} | {shown} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--idle", type=float, default=10.0)
    options = parser.parse_args()
    executors: list[PilotExecutor] = [
        HighThroughputExecutor("htex", LocalProvider(max_blocks=1), max_workers=options.workers, cores_per_worker=0.1),
        ExtremeScaleExecutor("extreme", LocalProvider(max_blocks=1), ranks_per_node=options.workers + 1),
    ]
    print("| executor | no-op tasks/s | round trip, ms | CPU while idle |\n| --- | --- | --- | --- |")
    for executor in executors:
        print(measure(executor, options.tasks, options.idle), flush=True)


if __name__ == "__main__":
    main()
