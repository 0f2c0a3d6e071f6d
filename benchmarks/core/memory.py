"""Memory of the kernel per task: launched, waiting for three parents, finished; and how flat it stays over many.

python benchmarks/core/memory.py [--tasks 20000] [--many 200000]
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import tempfile
import threading
import time
import tracemalloc

import flow_core as flow


@flow.python_app
def nothing(*_values: object) -> None:
    return None


@flow.python_app
def hold(gate: threading.Event) -> None:
    gate.wait()


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def launched(count: int) -> float:
    gate = threading.Event()
    holders = [hold(gate) for _ in range(2)]
    before = traced()
    futures = [nothing() for _ in range(count)]
    used = traced() - before
    gate.set()
    for future in [*holders, *futures]:
        future.result()
    return used / count


def waiting(count: int) -> float:
    gate = threading.Event()
    parents = [hold(gate) for _ in range(3)]
    before = traced()
    futures = [nothing(*parents) for _ in range(count)]
    used = traced() - before
    gate.set()
    for future in futures:
        future.result()
    return used / count


def finished(count: int) -> float:
    nothing().result()
    before = traced()
    for _ in range(count // 1000):
        for future in [nothing() for _ in range(1000)]:
            future.result()
    del future
    return (traced() - before) / count


def held_future(count: int) -> float:
    before = traced()
    futures = [nothing() for _ in range(count)]
    for future in futures:
        future.result()
    used = traced() - before
    assert len(futures) == count
    return used / count


def rss_mb() -> float:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize() / 1e6


def many(total: int) -> None:
    print(f"\n{'tasks so far':>14} {'RSS MB':>8} {'us/task':>8}")
    part = max(1000, total // 5)
    for done in range(0, total, part):
        began = time.perf_counter()
        for _ in range(part // 1000):
            for future in [nothing() for _ in range(1000)]:
                future.result()
        print(f"{done + part:14,} {rss_mb():8.1f} {(time.perf_counter() - began) / part * 1e6:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--many", type=int, default=200_000)
    options = parser.parse_args()
    os.chdir(tempfile.mkdtemp(prefix="flow-bench-"))
    with flow.load(flow.Config()):
        many(options.many)
        tracemalloc.start()
        cases = {
            "launched, no dependencies": launched,
            "waiting for three parents": waiting,
            "finished, future dropped": finished,
            "finished, future held": held_future,
        }
        print(f"\n{'task':32} {'bytes':>8}")
        for name, measure in cases.items():
            print(f"{name:32} {measure(options.tasks):8.0f}")


if __name__ == "__main__":
    main()
