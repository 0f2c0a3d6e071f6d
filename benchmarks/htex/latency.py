"""Time round trips of a no-op: submit one, wait for it, again and again; both executors and the standard pool.

    python benchmarks/htex/latency.py [--rounds 5] [--trips 500] [--json FILE]

All are in one process, two workers each, and take turns within each round, so that they meet the same machine. Printed
are medians over all trips of the round in the middle, in milliseconds, with the best and the worst round beside it, and
ratios to the pool. What is timed is the whole product: app, kernel, encryption, defaults everywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import flow
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_providers.local.provider import LocalProvider

_WARM_UP = 100
_POOL = "ProcessPoolExecutor"


def noop() -> None:
    """Do nothing: what is timed is the way there and back."""


def median_ms(trip: Callable[[], object], trips: int) -> float:
    """Return the median duration of a trip."""
    times = []
    for _ in range(trips):
        began = time.perf_counter()
        trip()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def executor(kind: type[HighThroughputExecutor]) -> HighThroughputExecutor:
    """Return an executor of two workers, named by its kind."""
    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    return kind(label=kind.__name__, max_workers=2, cores_per_worker=0.5, provider=provider)


def measure(rounds: int, trips: int) -> dict[str, list[float]]:
    """Return the median of each round, by contestant."""
    executors = [executor(HighThroughputExecutor), executor(LowLatencyExecutor)]
    with flow.load(flow.Config(executors=executors, strategy="none")), ProcessPoolExecutor(2) as pool:
        apps = {one.label: flow.python_app(executors=[one.label])(noop) for one in executors}
        ways: dict[str, Callable[[], object]] = {
            label: lambda app=app: app().result()  # type: ignore[misc]  # bound now, not when called
            for label, app in apps.items()
        }
        ways[_POOL] = lambda: pool.submit(noop).result()
        for way in ways.values():
            median_ms(way, _WARM_UP)
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                found[name].append(median_ms(way, trips))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trips", type=int, default=500)
    parser.add_argument("--json", help="write the medians of all rounds to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        before = os.getcwd()
        os.chdir(directory)
        try:
            found = measure(options.rounds, options.trips)
        finally:
            os.chdir(before)
    pool = statistics.median(found[_POOL])
    print(f"{'round trip, ms':24} {'median':>8} {'best':>8} {'worst':>8} {'x pool':>8}")
    for name, rounds in found.items():
        middle = statistics.median(rounds)
        print(f"{name:24} {middle:8.3f} {min(rounds):8.3f} {max(rounds):8.3f} {middle / pool:8.2f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file)


if __name__ == "__main__":
    main()
