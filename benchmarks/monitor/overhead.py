"""Time no-op tasks on HTEX without monitoring, with it, and with resource samples once a second; print ratios.

    python benchmarks/monitor/overhead.py [--tasks 20000] [--rounds 5]

Each measurement is a fresh process, the kinds take turns; figures are medians over the rounds. What is timed is from
the first submission to the last result, as a script sees it; what the clean-up takes on top is shown beside it. The
bars are 0.7 of the throughput without monitoring, 0.6 with samples. On a machine that does other things look at the CPU
time per task as well: of the script's process, and of it with the projection.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

KINDS = ("without", "monitored", "sampled")
BARS = {"monitored": 0.7, "sampled": 0.6}


def noop() -> None:
    """Do nothing: what is timed is the engine."""


def measure(kind: str, tasks: int) -> dict[str, float]:
    """Run the job in this process; return tasks per second and seconds of clean-up."""
    import flow
    from flow.config import Config
    from flow.executors import HighThroughputExecutor
    from flow.monitoring import MonitoringHub
    from flow.providers import LocalProvider

    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    executor = HighThroughputExecutor(label="htex", address="127.0.0.1", max_workers=2, provider=provider)
    hub = None
    if kind != "without":
        hub = MonitoringHub(resource_monitoring_enabled=kind == "sampled", resource_monitoring_interval=1)
    flow.load(Config(executors=[executor], strategy="none", monitoring=hub))
    app = flow.python_app(noop)
    for future in [app() for _ in range(200)]:
        future.result()
    time.sleep(1)
    began, cpu = time.perf_counter(), time.process_time()
    futures = [app() for _ in range(tasks)]
    for future in futures:
        future.result()
    ran, cpu = time.perf_counter() - began, time.process_time() - cpu
    del futures
    began = time.perf_counter()
    flow.dfk().cleanup()
    return {"throughput": tasks / ran, "cleanup_s": time.perf_counter() - began, "script_us": 1e6 * cpu / tasks}


def in_a_fresh_process(kind: str, tasks: int) -> dict[str, float]:
    before = _cpu_of_children()
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, os.path.abspath(__file__), "--one", kind, "--tasks", str(tasks)],
            cwd=directory, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
    if not lines:
        raise SystemExit(f"{kind}: failed\n{done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(lines[-1][8:])
    return {**figures, "cpu_us": 1e6 * (_cpu_of_children() - before) / tasks}


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run all kinds in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print("FIGURES " + json.dumps(measure(options.one, options.tasks)), flush=True)
        return
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            found[kind].append(in_a_fresh_process(kind, options.tasks))
    medians = {kind: statistics.median(one["throughput"] for one in found[kind]) for kind in KINDS}
    print(f"{options.tasks} no-op tasks on HTEX, medians of {options.rounds} rounds")
    head = ("tasks/s", "ratio", "bar", "clean-up s", "script us", "CPU us/task")
    print(f"{'kind':10s} {head[0]:>9s} {head[1]:>6s} {head[2]:>5s} {head[3]:>11s} {head[4]:>10s} {head[5]:>12s}")
    for kind in KINDS:
        cleanup = statistics.median(one["cleanup_s"] for one in found[kind])
        script = statistics.median(one["script_us"] for one in found[kind])
        cpu = statistics.median(one["cpu_us"] for one in found[kind])
        bar = BARS.get(kind, "")
        ratio = medians[kind] / medians["without"]
        print(f"{kind:10s} {medians[kind]:9.0f} {ratio:6.2f} {bar!s:>5s} {cleanup:11.2f} {script:10.1f} {cpu:12.0f}")


if __name__ == "__main__":
    main()
