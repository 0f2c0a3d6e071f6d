"""What a container costs a pool: seconds to the first task, and tasks a second, with none and with each runtime given.

    python benchmarks/containers/pools.py podman=IMAGE apptainer=/path/of/image.sif ...

Turns are taken in rounds, so that what else the machine does counts for all alike; printed are the best of each.
"""

from __future__ import annotations

import sys
import tempfile
import time

import flow
from flow import Config, Container, HighThroughputExecutor, python_app
from flow.providers import LocalProvider

ROUNDS = 3
TASKS = 5000


@python_app
def nothing() -> None:
    return


def measure(container: Container | None) -> tuple[float, float]:
    """Return seconds to the first task, and tasks a second after it."""
    pool = HighThroughputExecutor(max_workers=1, container=container, provider=LocalProvider(max_blocks=1))
    with tempfile.TemporaryDirectory() as run_dir:
        began = time.monotonic()
        with flow.load(Config(executors=[pool], run_dir=run_dir)):
            nothing().result(120)
            first = time.monotonic()
            for future in [nothing() for _ in range(TASKS)]:
                future.result(120)
            return first - began, TASKS / (time.monotonic() - first)


def main() -> None:
    """Measure what the command line names."""
    chosen: dict[str, Container | None] = {"none": None}
    for word in sys.argv[1:]:
        runtime, _, image = word.partition("=")
        # The release of Debian's charliecloud makes directories for binds in images that can be written only.
        options = ["--write"] if runtime == "charliecloud" else []
        chosen[runtime] = Container(image, runtime, options=options)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
    for _ in range(ROUNDS):
        for name, container in chosen.items():
            found[name].append(measure(container))
    for name, pairs in found.items():
        start, rate = min(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
        print(f"{name:14} first task after {start:5.2f} s   {rate:7.0f} tasks/s")


if __name__ == "__main__":
    main()
