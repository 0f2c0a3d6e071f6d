"""What a call costs by what its function names: the time in which a snapshot is taken, or found to stand.

    python benchmarks/core/snapshots.py [--calls 20000] [--rounds 5]

In microseconds of the calling thread's CPU time, medians of rounds, so that other load counts little; beside them the
whole of a submission to a pool of processes that does nothing with it.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import flow_core as flow
from flow_core.executors.futures import FuturesExecutor
from flow_core.snapshot.snapshots import Snapshots

LIMIT = 10
NAMES = ("a", "b", "c")
SMALL = {str(number): number for number in range(10)}
MIDDLE = {str(number): number for number in range(1000)}
LARGE = list(range(1_000_000))


class Model:
    """A class of the user's own."""

    step = 1

    def next(self, x: int) -> int:
        return x + self.step


def nothing(x: int) -> int:
    return x


def a_global(x: int) -> int:
    return x + LIMIT


def another(x: int) -> int:
    return a_global(x) + len(NAMES)


def helpers(x: int) -> float:
    return a_global(x) + another(x) + math.sin(LIMIT)


def a_class(x: int) -> int:
    return Model().next(x)


def small(x: int) -> int:
    return x + len(SMALL)


def middle(x: int) -> int:
    return x + len(MIDDLE)


def large(x: int) -> int:
    return x + len(LARGE)


class Nowhere(Executor):
    """A pool that is told to be another process and runs nothing."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return Future()


def each(count: int, work: Callable[[], object]) -> float:
    """Return the microseconds of one of many calls, in CPU time of this thread."""
    began = time.thread_time()
    for _ in range(count):
        work()
    return (time.thread_time() - began) / count * 1e6


def unchanged(function: Callable[..., Any], count: int, mode: str = "call") -> float:
    snapshots, app = Snapshots(), _app(function, mode)
    snapshots.take(app.definition, travels=True, counts=False)
    return each(count, lambda: snapshots.take(app.definition, True, False))


def _app(function: Callable[..., Any], mode: str = "call") -> Any:
    return flow.python_app(snapshot=mode)(function)


def changed(count: int) -> float:
    snapshots, app = Snapshots(), _app(helpers)

    def change() -> None:
        global LIMIT
        LIMIT += 1
        snapshots.take(app.definition, True, False)

    return each(count, change)


def submission(function: Callable[..., Any], count: int) -> float:
    app = _app(function)
    app(1)
    return each(count, lambda: app(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    calls = options.calls
    cases: dict[str, Callable[[], float]] = {
        "an empty call, for comparison": lambda: each(calls, lambda: None),
        "nothing": lambda: unchanged(nothing, calls),
        "a global": lambda: unchanged(a_global, calls),
        "helpers, a module, globals": lambda: unchanged(helpers, calls),
        "a class": lambda: unchanged(a_class, calls),
        "a dict of 10": lambda: unchanged(small, calls),
        "a dict of 1,000": lambda: unchanged(middle, calls // 20),
        "a list of 1,000,000, samples": lambda: unchanged(large, calls // 20),
        'the same, snapshot="whole"': lambda: unchanged(large, 5, "whole"),
        'the same, snapshot="once"': lambda: unchanged(large, calls, "once"),
        "helpers, with a global changed each time": lambda: changed(calls // 40),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    whole: list[float] = []
    os.chdir(tempfile.mkdtemp(prefix="flow-bench-"))
    for _ in range(options.rounds):
        for name, run in cases.items():
            found[name].append(run())
        with flow.load(flow.Config(executors=[FuturesExecutor("nowhere", Nowhere())])) as kernel:
            whole.append(submission(helpers, calls // 10))
            kernel.cleanup(0)
    print(f"{'what the function names':44} {'us a call':>10}")
    for name, measured in found.items():
        print(f"{name:44} {statistics.median(measured):10.2f}")
    print(f"{'a whole submission, helpers, no change':44} {statistics.median(whole):10.2f}")


if __name__ == "__main__":
    main()
