"""Time bash apps that run ``true``, on two workers.

    python benchmarks/htex/bash.py [--tasks 3000] [--rounds 3]

Beside it what the machine can do: two threads that start ``/bin/bash -c true`` and wait for it, again and again.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import flow
from flow.config import Config
from flow.executors import HighThroughputExecutor
from flow.providers import LocalProvider


@flow.bash_app
def nothing() -> str:
    """Return the command that does nothing."""
    return "true"


def with_flow(tasks: int) -> float:
    began = time.perf_counter()
    for future in [nothing() for _ in range(tasks)]:
        future.result()
    return tasks / (time.perf_counter() - began)


def bare(tasks: int) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda _: subprocess.call(["/bin/bash", "-c", "true"]), range(tasks)):
            pass
    return tasks / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    executor = HighThroughputExecutor(max_workers=2, provider=provider)
    rates: dict[str, list[float]] = {"flow": [], "bare bash": []}
    with tempfile.TemporaryDirectory() as directory, flow.load(Config(executors=[executor], run_dir=directory)):
        with_flow(100)
        for _ in range(options.rounds):
            rates["flow"].append(with_flow(options.tasks))
            rates["bare bash"].append(bare(options.tasks))
    for name, found in rates.items():
        print(f"{name:10s} {statistics.median(found):8.0f} commands/s")


if __name__ == "__main__":
    main()
