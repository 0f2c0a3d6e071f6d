"""Time the projection of a log of no-op tasks, measure what it leaves behind, and what it costs when nothing happens.

    python benchmarks/monitor/projection.py [--tasks 100000] [--idle-s 30]

The log is what a kernel writes for tasks on HTEX. The bars: 20,000 tasks a second, 100 MB for 100,000 tasks, 1 % of a
CPU while a run is idle. Both the time on the clock and that of the CPU are shown: the first means little on a machine
that does other things.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from flow_core import Config, load, python_app
from flow_core.interfaces.events import Event, RunStarted, TaskEnded, TaskSubmitted, TryEnded, TryLaunched
from flow_core.interfaces.outcome import Place, Usage
from flow_monitor import MonitoringHub
from flow_monitor.project.process import GC_THRESHOLD
from flow_monitor.project.rebuild import rebuild
from flow_monitor.testing.made import write_log

_BEGAN = 1_760_000_000_000_000_000


def events(tasks: int, run_dir: Path) -> Iterator[Event]:
    """Yield what the kernel tells of a run of no-op tasks."""
    yield RunStarted(_BEGAN, "r", 1, "noop.py", "noop.py", "0", "3.11", "host", "user", str(run_dir), ("htex",))
    places = [Place("htex", "0", "node", "manager", worker, 100 + worker) for worker in range(2)]
    for task in range(tasks):
        at, place = _BEGAN + task * 50_000, places[task % 2]
        yield TaskSubmitted(at, task, "noop", "python", "", ("htex",), ())
        yield TryLaunched(at + 10, task, 0, (1 << 44) + task, "htex")
        yield TryEnded(at + 30, task, 0, "OK", at + 20, at + 25, "htex", place, Usage(0.001, 0.0, 20_000))
        yield TaskEnded(at + 40, task, "exec_done")


def throughput(tasks: int, directory: Path) -> None:
    """Print how fast a log is projected, and how large the database is then."""
    run_dir, path = directory / "run", directory / "monitoring.db"
    write_log(run_dir, "r", events(tasks, run_dir))
    gc.set_threshold(*GC_THRESHOLD)  # as the projection's process has it
    clock, cpu = time.perf_counter(), time.process_time()
    rebuild(run_dir, f"sqlite:///{path}")
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    print(f"{tasks} tasks: {tasks / clock:.0f} a second on the clock, {tasks / cpu:.0f} a second of CPU")
    print(f"database: {path.stat().st_size / 1e6:.1f} MB")


@python_app
def noop() -> None:
    """Do nothing."""


def idle(seconds: float) -> None:
    """Print the part of a CPU that the projection of an idle run takes."""
    with load(Config(monitoring=MonitoringHub())):
        noop().result()
        (projection,) = psutil.Process(os.getpid()).children()
        time.sleep(15)  # it starts at the lowest priority
        before, began = projection.cpu_times(), time.monotonic()
        time.sleep(seconds)
        after, took = projection.cpu_times(), time.monotonic() - began
    used = after.user + after.system - before.user - before.system
    print(f"idle for {took:.0f} s: {100 * used / took:.2f} % of a CPU")


def main() -> None:
    """Measure as told."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--idle-s", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        throughput(options.tasks, Path(directory))
        idle(options.idle_s)


if __name__ == "__main__":
    main()
