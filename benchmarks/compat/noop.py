"""A program of Parsl: as many calls of an app that does nothing as the argument says, on HighThroughputExecutor."""

import sys
import time

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.providers import LocalProvider


@parsl.python_app
def noop(number):
    return number


def executor(kind):
    if kind == "threads":
        return ThreadPoolExecutor(max_threads=2)
    provider = LocalProvider(init_blocks=1, max_blocks=1)
    return HighThroughputExecutor(max_workers_per_node=2, address="127.0.0.1", provider=provider, encrypted=False)


if __name__ == "__main__":
    kind, count = sys.argv[1], int(sys.argv[2])
    with parsl.load(Config(executors=[executor(kind)], strategy="none", initialize_logging=False)):
        assert [f.result() for f in [noop(number) for number in range(100)]] == list(range(100))
        began = time.perf_counter()
        futures = [noop(number) for number in range(count)]
        assert sum(future.result() for future in futures) == sum(range(count))
        took = time.perf_counter() - began
    print(f"{kind}: {count / took:.0f} tasks/s")
