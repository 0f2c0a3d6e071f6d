"""Tasks per second of the kernel on its thread executor, as ratios to a plain ThreadPoolExecutor in the same run.

    python benchmarks/core/throughput.py [--tasks 20000] [--rounds 5]

Rounds of both are interleaved and medians are shown, so that a busy machine slows both down alike.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import flow_core as flow


def nothing(*_values: object) -> None:
    return None


def take(inputs: object) -> None:
    return None


app = flow.python_app(nothing)
taking = flow.python_app(take)


def plain_pool(count: int) -> float:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        began = time.perf_counter()
        for future in [pool.submit(nothing) for _ in range(count)]:
            future.result()
        return count / (time.perf_counter() - began)


def independent(count: int) -> float:
    began = time.perf_counter()
    for future in [app() for _ in range(count)]:
        future.result()
    return count / (time.perf_counter() - began)


def with_argument(count: int) -> float:
    began = time.perf_counter()
    for future in [app(number) for number in range(count)]:
        future.result()
    return count / (time.perf_counter() - began)


def chain(count: int) -> float:
    began = time.perf_counter()
    future = app()
    for _ in range(count - 1):
        future = app(future)
    future.result()
    return count / (time.perf_counter() - began)


def layers(count: int, width: int = 100) -> float:
    """Layers of ``width`` tasks, each of which waits for all tasks of the layer before."""
    depth = max(1, count // width)
    began = time.perf_counter()
    layer = [app() for _ in range(width)]
    for _ in range(depth - 1):
        layer = [app(*layer) for _ in range(width)]
    for future in layer:
        future.result()
    return depth * width / (time.perf_counter() - began)


def inputs(count: int, width: int = 100) -> float:
    """The same layers, with the futures in ``inputs``."""
    depth = max(1, count // width)
    began = time.perf_counter()
    layer = [app() for _ in range(width)]
    for _ in range(depth - 1):
        layer = [taking(inputs=layer) for _ in range(width)]
    for future in layer:
        future.result()
    return depth * width / (time.perf_counter() - began)


def barriers(count: int, width: int = 100) -> float:
    """Layers of ``width`` tasks, each layer joined by one task that the next one waits for."""
    depth = max(1, count // (width + 1))
    began = time.perf_counter()
    barrier = app()
    for _ in range(depth):
        barrier = app(*[app(barrier) for _ in range(width)])
    barrier.result()
    return depth * (width + 1) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    count = options.tasks
    cases: dict[str, Callable[[], float]] = {
        "plain ThreadPoolExecutor(2)": lambda: plain_pool(count),
        "independent, no argument": lambda: independent(count),
        "independent, one argument": lambda: with_argument(count),
        "chain": lambda: chain(count),
        "100-wide layers, joined": lambda: barriers(min(count, 10_100)),
        "100-wide layers, all to all": lambda: layers(min(count, 10_000)),
        "the same by inputs=": lambda: inputs(min(count, 10_000)),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    os.chdir(tempfile.mkdtemp(prefix="flow-bench-"))
    with flow.load(flow.Config()):
        for _ in range(options.rounds):
            for name, run in cases.items():
                rates[name].append(run())
    base = statistics.median(rates["plain ThreadPoolExecutor(2)"])
    alone = statistics.median(rates["independent, one argument"])
    print(f"{'case':32} {'tasks/s':>10} {'ratio':>6} {'cost of an independent task':>28}")
    for name, measured in rates.items():
        rate = statistics.median(measured)
        print(f"{name:32} {rate:10,.0f} {rate / base:6.2f} {alone / rate:28.2f}")


if __name__ == "__main__":
    main()
