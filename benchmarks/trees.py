"""Do the same jobs with two or more checkouts of Flow in turn: CPU time a task, over all processes, and rate.

    python benchmarks/trees.py BEFORE AFTER [--rounds 7] [--cases noop,trip,chain,bash,inputs,threads,own,output,...]

Each checkout has Flow installed into a ``.venv`` of its own. Each measurement is a fresh process; the trees take turns,
the first to begin changes from round to round, and figures are medians, shown with their ratios to the first tree's.
On a machine that does other things the CPU time counts: it is that of the script and of everything below it, also
of what has left it (managers), while the job runs; starting and ending are not in it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")


def nothing(*_values: object) -> None:
    """Do nothing."""


def take(inputs: object) -> None:
    """Take a list."""


def command() -> str:
    """Return the command that does nothing."""
    return "true"


# -- CPU time of all processes


def _cpu_s(root: int) -> dict[int, float]:
    """Return the CPU time so far of each process below one, with what it has reaped."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
                own = time.clock_gettime((~int(name) << 3) | 2)  # the clock of that process, in nanoseconds
            except OSError:
                continue
            parents[int(name)] = int(fields[1])
            used[int(name)] = own + (int(fields[13]) + int(fields[14])) / _TICKS
    below = {root}
    for _ in range(20):
        below |= {pid for pid, parent in parents.items() if parent in below}
    return {pid: used[pid] for pid in below - {root} if pid in used}


class Measured:
    """What a job took."""

    cpu_s = wall_s = 0.0


@contextmanager
def measured() -> Iterator[Measured]:
    """Measure what is done inside."""
    root, found = int(os.environ["FLOW_BENCH_ROOT"]), Measured()
    before, began = _cpu_s(root), time.perf_counter()
    yield found
    found.wall_s = time.perf_counter() - began
    found.cpu_s = sum(cpu - before.get(pid, 0.0) for pid, cpu in _cpu_s(root).items())


# -- jobs: each returns how many tasks it did, and what they took


@contextmanager
def _htex() -> Iterator[Any]:
    import flow
    from flow.config import Config
    from flow.executors import HighThroughputExecutor
    from flow.providers import LocalProvider

    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    executor = HighThroughputExecutor(label="htex", address="127.0.0.1", max_workers=2, provider=provider)
    with flow.load(Config(executors=[executor], strategy="none")):
        yield flow


def _all(app: Callable[..., Any], tasks: int, *args: object, **kwargs: object) -> None:
    for future in [app(*args, **kwargs) for _ in range(tasks)]:
        future.result()


def _many(app: Callable[..., Any], first: int, tasks: int, **kwargs: object) -> tuple[int, Measured]:
    """Measure many calls at once, after some that do not count."""
    _all(app, first, **kwargs)
    with measured() as found:
        _all(app, tasks, **kwargs)
    return tasks, found


def noop(tasks: int = 30_000) -> tuple[int, Measured]:
    with _htex() as flow:
        return _many(flow.python_app(nothing), 2000, tasks)


def trip(tasks: int = 2000) -> tuple[int, Measured]:
    with _htex() as flow:
        app = flow.python_app(nothing)
        _all(app, 100)
        with measured() as found:
            for _ in range(tasks):
                app().result()
    return tasks, found


def chain(tasks: int = 5000) -> tuple[int, Measured]:
    with _htex() as flow:
        app = flow.python_app(nothing)
        _all(app, 100)
        with measured() as found:
            future = app()
            for _ in range(tasks - 1):
                future = app(future)
            future.result()
    return tasks, found


def bash(tasks: int = 2000) -> tuple[int, Measured]:
    with _htex() as flow:
        return _many(flow.bash_app(command), 100, tasks)


def inputs(tasks: int = 20_000) -> tuple[int, Measured]:
    """Lists of 100 values in ``inputs=``, on threads."""
    import flow_core as flow

    with flow.load(flow.Config()):
        return _many(flow.python_app(take), 1000, tasks, inputs=list(range(100)))


def threads(tasks: int = 50_000) -> tuple[int, Measured]:
    import flow_core as flow

    with flow.load(flow.Config()):
        return _many(flow.python_app(nothing), 1000, tasks)


_OWN_MODULE = """
from dataclasses import dataclass

@dataclass
class Point:
    x: int
    y: float

def take(point):
    return None
"""


def own(tasks: int = 5000) -> tuple[int, Measured]:
    """An object of a small dataclass of the user's own as argument."""
    Path("own_module.py").write_text(_OWN_MODULE)
    sys.path.insert(0, os.getcwd())
    os.environ["PYTHONPATH"] = os.getcwd()
    import own_module  # type: ignore[import-not-found]  # made just now

    with _htex() as flow:
        app = flow.python_app(own_module.take)
        _all(app, 200, own_module.Point(1, 2.0))
        with measured() as found:
            _all(app, tasks, own_module.Point(1, 2.0))
    return tasks, found


def output(tasks: int = 2000) -> tuple[int, Measured]:
    """One declared local output, on threads."""
    import flow_core as flow

    def write(outputs: list[Any]) -> None:
        Path(outputs[0]).touch()

    with flow.load(flow.Config()):
        app = flow.python_app(write)
        for future in [app(outputs=[flow.File(f"warm{number}")]) for number in range(100)]:
            future.result()
        with measured() as found:
            for future in [app(outputs=[flow.File(f"out{number}")]) for number in range(tasks)]:
                future.result()
    return tasks, found


def load(times: int = 200) -> tuple[int, Measured]:
    import flow_core as flow

    with measured() as found:
        for _ in range(times):
            flow.load(flow.Config())
            flow.clear()
    return times, found


def projection(tasks: int = 50_000) -> tuple[int, Measured]:
    import gc

    sys.path.insert(0, os.path.join(os.environ["FLOW_BENCH_TREE"], "benchmarks", "monitor"))
    import projection as job

    run_dir = Path.cwd() / "run"
    job.write_log(run_dir, "r", job.events(tasks, run_dir))
    gc.set_threshold(*job.GC_THRESHOLD)
    with measured() as found:
        job.rebuild(run_dir, f"sqlite:///{Path.cwd() / 'monitoring.db'}")
    return tasks, found


CASES = {job.__name__: job for job in (noop, trip, chain, bash, inputs, threads, own, output, load, projection)}


# -- in turn


def _in_a_fresh_process(case: str, tree: Path) -> tuple[float, float]:
    """Return CPU microseconds a task, and tasks a second."""
    python = tree / ".venv" / "bin" / "python"
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(python.parent), os.environ["PATH"])),
        "FLOW_BENCH_ROOT": str(os.getpid()),
        "FLOW_BENCH_TREE": str(tree),
    }
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [str(python), os.path.abspath(__file__), "--one", case],
            cwd=directory, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    _reap()
    lines = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
    if not lines:
        raise SystemExit(f"{case} of {tree} failed\n{done.stderr[-2000:]}")
    cpu_us, rate = json.loads(lines[-1][8:])
    return cpu_us, rate


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def main() -> None:
    """Run all cases with all trees in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trees", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        tasks, found = CASES[options.one]()
        print("FIGURES " + json.dumps((1e6 * found.cpu_s / tasks, tasks / found.wall_s)), flush=True)
        return
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    trees = [tree.absolute() for tree in options.trees]
    print(f"{'case':12s} {'tree':30s} {'CPU us':>9s} {'ratio':>6s} {'tasks/s':>9s} {'ratio':>6s}")
    for case in options.cases.split(","):
        figures: dict[Path, list[tuple[float, float]]] = {tree: [] for tree in trees}
        for number in range(options.rounds):
            for tree in trees if number % 2 == 0 else reversed(trees):
                figures[tree].append(_in_a_fresh_process(case, tree))
        medians = [tuple(map(statistics.median, zip(*figures[tree], strict=True))) for tree in trees]
        for tree, (cpu, rate) in zip(trees, medians, strict=True):
            ratios = cpu / medians[0][0], rate / medians[0][1]
            print(
                f"{case:12s} {str(tree)[-30:]:30s} {cpu:9.2f} {ratios[0]:6.2f} {rate:9.0f} {ratios[1]:6.2f}", flush=True
            )


if __name__ == "__main__":
    main()
