"""No-ops a second, round trips, and killed workers: executors on engines beside the engine's own client, in one run.

python benchmarks/engines/rates.py [dask] [ray] [processes] [--tasks 10000]

Each engine has one cluster of two workers here, which both sides use in turn. Ends with status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor as Pool, ProcessPoolExecutor
from typing import Any

from flow_core import Config, DataFlowKernel, python_app
from flow_core.executors.futures import FuturesExecutor

BARS = {"dask": 8.0, "ray": 5.0, "processes": 1.5}
"""Flow's rate as a multiple of the native client's."""
TRIP = 1.3
"""Round trip as a multiple of the native one."""
KILLED_S = 5.0
"""Seconds until the task of a killed worker has its result, or is lost."""
TRIPS = 200
_LONG_S = 300.0


def noop() -> None:
    """Do nothing."""


def end_worker() -> None:
    """Kill the process that runs this."""
    os.kill(os.getpid(), signal.SIGKILL)


def measured(name: str, executor: Any, native: Callable[[int], float], trip: Callable[[], object], tasks: int) -> bool:
    """Measure both sides in turn, print them, and return whether all bars are kept."""
    with tempfile.TemporaryDirectory() as directory:
        config = Config(executors=[executor], run_dir=directory, retries=0, infrastructure_retries=0)
        with DataFlowKernel(config) as kernel:
            nothing = python_app(noop, data_flow_kernel=kernel)
            fatal = python_app(end_worker, data_flow_kernel=kernel)
            nothing().result(_LONG_S)
            theirs, ours = [], []
            for _ in range(3):
                theirs.append(tasks / native(tasks))
                began = time.perf_counter()
                for future in [nothing() for _ in range(tasks)]:
                    future.result(_LONG_S)
                ours.append(tasks / (time.perf_counter() - began))
            trips = median(trip), median(lambda: nothing().result(_LONG_S))
            began = time.perf_counter()
            how = type(fatal().exception(_LONG_S)).__name__
            killed_s = time.perf_counter() - began
    ratio = statistics.median(ours) / statistics.median(theirs)
    well = ratio >= BARS[name] and trips[1] <= TRIP * trips[0] and killed_s <= KILLED_S and how != "NoneType"
    print(
        f"{name}: {statistics.median(theirs):,.0f}/s native, {statistics.median(ours):,.0f}/s Flow ({ratio:.1f}x, bar "
        f"{BARS[name]:g}x); round trip {1000 * trips[0]:.2f} ms native, {1000 * trips[1]:.2f} ms Flow "
        f"({trips[1] / trips[0]:.2f}x, bar {TRIP:g}x); killed worker: {how} after {killed_s:.2f} s (bar {KILLED_S:g} s)"
        f"{'' if well else '  <-- a bar is missed'}"
    )
    return well


def median(call: Callable[[], object]) -> float:
    """Return the median time of a call in seconds."""
    times = []
    for _ in range(TRIPS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def dask(tasks: int) -> bool:
    """Measure Dask."""
    from distributed import Client, LocalCluster

    from flow_executors import DaskExecutor

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):

        def native(number: int) -> float:
            """Run so many no-ops by the client."""
            began = time.perf_counter()
            client.gather([client.submit(noop, pure=False) for _ in range(number)])
            return time.perf_counter() - began

        executor = DaskExecutor(address=cluster.scheduler_address)
        return measured("dask", executor, native, lambda: client.submit(noop, pure=False).result(), tasks)


def ray(tasks: int) -> bool:
    """Measure Ray."""
    import ray as engine

    from flow_executors import RayExecutor

    engine.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        remote = engine.remote(noop)

        def native(number: int) -> float:
            """Run so many no-ops by Ray itself."""
            began = time.perf_counter()
            engine.get([remote.remote() for _ in range(number)])
            return time.perf_counter() - began

        return measured("ray", RayExecutor(address="auto"), native, lambda: engine.get(remote.remote()), tasks)
    finally:
        engine.shutdown()


def processes(tasks: int) -> bool:
    """Measure a pool of the standard library."""
    with ProcessPoolExecutor(2) as pool:

        def native(number: int) -> float:
            """Run so many no-ops by the pool."""
            began = time.perf_counter()
            for future in [pool.submit(noop) for _ in range(number)]:
                future.result()
            return time.perf_counter() - began

        def make() -> Pool:
            """Make Flow's."""
            return ProcessPoolExecutor(2)

        executor = FuturesExecutor("processes", make)
        return measured("processes", executor, native, lambda: pool.submit(noop).result(), tasks)


def main() -> None:
    """Measure what is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=["dask", "ray", "processes"])
    parser.add_argument("--tasks", type=int, default=10_000)
    given = parser.parse_args()
    known = {"dask": dask, "ray": ray, "processes": processes}
    kept = [known[name](given.tasks) for name in given.engines]  # all of them, whatever the first one shows
    if not all(kept):
        sys.exit(1)


if __name__ == "__main__":
    main()
