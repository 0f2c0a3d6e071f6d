"""Run a million no-op tasks in one run and watch the memory of every process.

    python benchmarks/htex/million.py [--tasks 1000000] [--wave 50000]

Tasks come in waves, each awaited. Prints a row a tenth of the way: tasks/s so far, and MB of script, interchange,
manager and workers. Flat means: the last row is no heavier than the second.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import psutil

import flow
from flow.config import Config
from flow.executors import HighThroughputExecutor
from flow.providers import LocalProvider

ROLES = {"flow_executors.interchange": "interchange", "flow-manager": "manager", "flow-w": "workers"}


@flow.python_app
def noop() -> None:
    """Do nothing."""


def megabytes(run_id: str) -> dict[str, float]:
    """Return MB by role of the processes of a run."""
    found = {"script": psutil.Process().memory_info().rss / 1e6}
    for process in psutil.process_iter(["name", "cmdline"]):
        line = f"{process.info['name']} {' '.join(process.info['cmdline'] or ())}"
        role = next((role for mark, role in ROLES.items() if mark in line), None)
        if role is not None and run_id in line:
            found[role] = found.get(role, 0.0) + process.memory_info().rss / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--wave", type=int, default=50_000)
    options = parser.parse_args()
    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    executor = HighThroughputExecutor(max_workers=2, provider=provider)
    with tempfile.TemporaryDirectory() as directory, flow.load(Config(executors=[executor], run_dir=directory)):
        for future in [noop() for _ in range(1000)]:
            future.result()
        began, done, told = time.perf_counter(), 0, 0
        while done < options.tasks:
            for future in [noop() for _ in range(min(options.wave, options.tasks - done))]:
                future.result()
            done += options.wave
            if done - told >= options.tasks // 10:
                told = done
                rate = done / (time.perf_counter() - began)
                weights = "  ".join(f"{role} {size:5.0f}" for role, size in megabytes(flow.dfk().run_id).items())
                print(f"{done:9d} tasks  {rate:8.0f}/s  MB: {weights}", flush=True)


if __name__ == "__main__":
    main()
