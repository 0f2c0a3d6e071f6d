"""Time large arguments and results on this host, beside the standard library's process pool.

    python benchmarks/htex/payloads.py [--mb 100] [--rounds 5]

Prints GB/s of numpy arrays and of bytes, sent one after the other: one way at a time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import flow
from flow.config import Config
from flow.executors import HighThroughputExecutor
from flow.providers import LocalProvider


def take(value: object) -> int:
    """Touch an argument."""
    return int(value[-1])  # type: ignore[index] # an array or bytes


def make_array(size: int) -> object:
    """Return an array of so many bytes, made once a worker: what is timed is its way."""
    import sys

    import numpy as np

    if "_payload_array" not in sys.__dict__:
        sys.__dict__["_payload_array"] = np.ones(size // 8)
    return sys.__dict__["_payload_array"]


def make_bytes(size: int) -> object:
    """Return so many bytes, made once a worker."""
    import sys

    if "_payload_bytes" not in sys.__dict__:
        sys.__dict__["_payload_bytes"] = bytes(size)
    return sys.__dict__["_payload_bytes"]


def rate(work: Callable[[], object], size: int, rounds: int) -> float:
    """Return the median GB/s of some work, after one that does not count."""
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return size / statistics.median(times) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mb", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    size, rounds = options.mb * 1_000_000, options.rounds
    array, data = np.ones(size // 8), bytes(size)
    executor = HighThroughputExecutor(max_workers=2, provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1))
    table: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        ProcessPoolExecutor(2) as pool,
        flow.load(Config(executors=[executor], run_dir=directory)),
    ):
        apps = {function: flow.python_app(function) for function in (take, make_array, make_bytes)}
        for name, function, argument in (
            ("array as argument", take, array),
            ("array as result", make_array, size),
            ("bytes as argument", take, data),
            ("bytes as result", make_bytes, size),
        ):
            ours = rate(lambda app=apps[function], given=argument: app(given).result(), size, rounds)
            theirs = rate(lambda f=function, given=argument: pool.submit(f, given).result(), size, rounds)
            table[name] = [ours, theirs]
    print(f"{options.mb} MB, medians of {rounds}: GB/s")
    print(f"{'':20s} {'flow':>7s} {'ppe':>7s} {'x':>6s}")
    for name, (ours, theirs) in table.items():
        print(f"{name:20s} {ours:7.2f} {theirs:7.2f} {ours / theirs:6.1f}")


if __name__ == "__main__":
    main()
