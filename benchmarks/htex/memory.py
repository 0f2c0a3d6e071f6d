"""Weigh tasks in the memory of the script: launched, waiting for three parents, and finished.

    python benchmarks/htex/memory.py [--tasks 20000]

One worker is kept busy so that nothing ends before it was weighed. Bars: 1 KB, 2 KB and 0 (the user's own futures
apart, which are kept here).
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time

import flow
from flow.config import Config
from flow.executors import HighThroughputExecutor
from flow.providers import LocalProvider


@flow.python_app
def wait(seconds: float) -> None:
    """Sleep."""
    import time

    time.sleep(seconds)


@flow.python_app
def noop(*_: object) -> None:
    """Do nothing."""


def resident_kb() -> int:
    gc.collect()
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=20_000)
    tasks = parser.parse_args().tasks
    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    executor = HighThroughputExecutor(max_workers=1, provider=provider)
    with tempfile.TemporaryDirectory() as directory, flow.load(Config(executors=[executor], run_dir=directory)):
        for future in [noop() for _ in range(1000)]:
            future.result()
        gate = wait(0.0)
        gate.result()
        blocker = wait(15.0)
        time.sleep(0.5)
        rows = []
        before = resident_kb()
        launched = [noop() for _ in range(tasks)]
        rows.append(("launched", resident_kb() - before))
        before = resident_kb()
        waiting = [noop(blocker, launched[0], launched[1]) for _ in range(tasks)]
        rows.append(("waiting for three", resident_kb() - before))
        for future in (*launched, *waiting):
            future.result()
        del launched, waiting
        before_again = resident_kb()
        for _ in range(3):
            for future in [noop() for _ in range(tasks)]:
                future.result()
            del future
        rows.append(("finished", (resident_kb() - before_again) / 3))
    print(f"{tasks} tasks each, KB a task in the script")
    for name, grown in rows:
        print(f"{name:20s} {grown / tasks:7.2f}")


if __name__ == "__main__":
    main()
