"""Replay the trace of a real workflow: its graph, its files, its running times, scaled down.

A trace is a JSON file in WfCommons' WfFormat (version 1.5). Each traced task becomes a call of one app: it reads its
input files, is busy for its scaled running time, and writes its output files at their scaled size. What is in a file
follows from its name and from what was in the files that its task has read: two runs of a trace have made the same if
the digests of their files are equal. Files made by one task and read by another travel as ``DataFuture``s, so that the
graph of the run is the graph of the trace. At the end the times at which tasks really ran are checked against it.

    python replay.py [TRACE ...] [--scale 0.001] [--size-scale 0.00001] [--executor threads|htex] [--workers 2]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import flow
from flow import AppFuture, Config, File, python_app
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor

HERE = Path(__file__).resolve().parent
TRACES = sorted((HERE / "traces").glob("*.json"))
LARGEST_FILE = 10_000_000


@dataclass(frozen=True)
class TracedTask:
    """One task of a trace: what it read and wrote, how long it ran, and which tasks it came after."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parents: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Trace:
    """A workflow that once ran: its tasks, parents first, and the size of each file in bytes."""

    name: str
    tasks: tuple[TracedTask, ...]
    sizes: dict[str, int]

    def critical_path(self) -> float:
        """Return the seconds the workflow takes on endless resources."""
        ends: dict[str, float] = {}
        for task in self.tasks:
            ends[task.name] = task.seconds + max((ends[parent] for parent in task.parents), default=0.0)
        return max(ends.values())


def load_trace(path: Path) -> Trace:
    """Read a WfFormat 1.5 file; tasks come out in an order in which parents are before their children."""
    workflow = json.loads(path.read_text())["workflow"]
    seconds = {task["id"]: task["runtimeInSeconds"] for task in workflow["execution"]["tasks"]}
    tasks = {
        task["id"]: TracedTask(
            task["id"],
            tuple(task["inputFiles"]),
            tuple(task["outputFiles"]),
            tuple(task["parents"]),
            seconds[task["id"]],
        )
        for task in workflow["specification"]["tasks"]
    }
    ordered: dict[str, TracedTask] = {}
    while len(ordered) < len(tasks):
        ready = [task for task in tasks.values() if task.name not in ordered and ordered.keys() >= set(task.parents)]
        if not ready:
            raise ValueError(f"{path}: the tasks of this trace depend on each other in a circle")
        ordered.update((task.name, task) for task in ready)
    sizes = {file["id"]: file["sizeInBytes"] for file in workflow["specification"]["files"]}
    return Trace(path.stem, tuple(ordered.values()), sizes)


def content(name: str, made_of: Sequence[str], size: int) -> bytes:
    """Return what is in a file of that name, made of inputs with these digests."""
    return hashlib.shake_256("\n".join([name, *made_of]).encode()).digest(size)


def digest(path: str | Path) -> str:
    """Return the digest of what is in a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@python_app
def traced_task(seconds, made, files, inputs=(), outputs=()):
    """Wait for all inputs, read the files among them, be busy, write the outputs; return when this began and ended."""
    began = time.time()
    digests = [digest(path) for path in inputs[:files]]
    time.sleep(seconds)
    for path, (name, size) in zip(outputs, made, strict=True):
        Path(path).write_bytes(content(name, digests, size))
    return began, time.time()


def replay(trace: Trace, directory: Path, scale: float, size_scale: float) -> dict[str, AppFuture[tuple[float, float]]]:
    """Call the app once for each traced task, on files of that directory; return its future by the task's name."""

    def size_of(name: str) -> int:
        return min(LARGEST_FILE, max(1, int(trace.sizes[name] * size_scale)))

    files: dict[str, object] = {}
    futures: dict[str, AppFuture[tuple[float, float]]] = {}
    for task in trace.tasks:
        for name in task.inputs:
            if name not in files:
                (directory / name).write_bytes(content(name, (), size_of(name)))
                files[name] = File(str(directory / name))
        future = traced_task.options(label=task.name)(
            task.seconds * scale,
            [(name, size_of(name)) for name in task.outputs],
            len(task.inputs),
            inputs=[*(files[name] for name in task.inputs), *(futures[parent] for parent in task.parents)],
            outputs=[File(str(directory / name)) for name in task.outputs],
        )
        files.update(zip(task.outputs, future.outputs, strict=True))
        futures[task.name] = future
    return futures


def digests(trace: Trace, directory: Path) -> dict[str, str]:
    """Return the digest of each file of a replay that is done, by its name."""
    return {name: digest(directory / name) for name in trace.sizes}


def violations(trace: Trace, times: dict[str, tuple[float, float]]) -> list[str]:
    """Return what is wrong with the order of a run: tasks that began before one of their parents had ended."""
    return [
        f"{task.name} began before {parent} had ended"
        for task in trace.tasks
        for parent in task.parents
        if times[task.name][0] < times[parent][1]
    ]


def run(trace: Trace, scale: float, size_scale: float) -> list[str]:
    """Replay a trace on the loaded configuration, print how it went, return what was wrong."""
    with tempfile.TemporaryDirectory(prefix="flow-replay-") as directory:
        began = time.perf_counter()
        futures = replay(trace, Path(directory), scale, size_scale)
        times = {name: future.result() for name, future in futures.items()}
        elapsed = time.perf_counter() - began
        made = hashlib.sha256("\n".join(digests(trace, Path(directory)).values()).encode()).hexdigest()
    wrong = violations(trace, times)
    work = sum(task.seconds for task in trace.tasks) * scale
    print(
        f"{trace.name}: {len(trace.tasks)} tasks, {len(trace.sizes)} files in {elapsed:.2f} s "
        f"with digest {made[:16]} (critical path {trace.critical_path() * scale:.2f} s, work {work:.2f} s), "
        f"{'order respected' if not wrong else f'{len(wrong)} TASKS OUT OF ORDER'}"
    )
    return wrong


def main() -> None:
    """Replay traces and fail if their order was not respected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="*", type=Path, default=TRACES)
    parser.add_argument("--scale", type=float, default=0.001, help="factor on running times")
    parser.add_argument("--size-scale", type=float, default=1e-5, help="factor on file sizes")
    parser.add_argument("--executor", choices=("threads", "htex"), default="threads")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    executor = (
        ThreadPoolExecutor(max_threads=options.workers)
        if options.executor == "threads"
        else HighThroughputExecutor(max_workers=options.workers)
    )
    with flow.load(Config(executors=[executor])):
        wrong = [
            complaint
            for path in options.traces
            for complaint in run(load_trace(path), options.scale, options.size_scale)
        ]
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
