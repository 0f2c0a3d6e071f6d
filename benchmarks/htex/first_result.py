"""Times a script on a laptop from its start to its first result on a bare ssh host, which has Flow in its cache.

``python benchmarks/htex/first_result.py [--rounds N]``, as root: it starts a node of its own by
``tests-integration/services/second_machine.sh``, which has ``python3`` and no Flow. The first run brings Flow there,
and is printed by itself.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests-integration" / name) for name in ("remote", "providers")]

from machines import PREAMBLE, Machines  # noqa: E402 - needs the line above

# What a user writes: by names and a login alone.
SCRIPT = """
from flow import Config, HighThroughputExecutor, python_app
import flow
from flow_providers import AdHocProvider


@python_app
def where():
    import os

    return os.uname().nodename


BEGUN = time.monotonic()
with flow.load(Config(executors=[HighThroughputExecutor(provider=AdHocProvider(["alice@node1"]))])):
    LOADED = time.monotonic()
    assert where().result(timeout=60) == "node1"
    tell(result=time.monotonic() - BEGUN, load=LOADED - BEGUN)
"""
HEAD = (
    PREAMBLE[: PREAMBLE.index("import flow_core")]
    + PREAMBLE[PREAMBLE.index("def tell") : PREAMBLE.index("def channels")]
)


def main() -> None:
    """Measure and print the median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds = []
    with tempfile.TemporaryDirectory() as directory:
        machines = Machines(Path(directory) / "machines")
        try:
            machines.start(1, SM_BARE="1")
            for turn in range(rounds + 1):
                begun = time.monotonic()
                script = machines.begin(SCRIPT, preamble=HEAD)
                told = script.told()
                took = time.monotonic() - begun
                script.ended(60)
                print(f"{'first, Flow is brought' if not turn else 'cached'}: {took:.2f} s  {told}", flush=True)
                if turn:
                    seconds.append(took)
        finally:
            machines.stop()
    print(f"script to first result on a bare host, cached: {statistics.median(seconds):.2f} s, median of {rounds}")


if __name__ == "__main__":
    main()
