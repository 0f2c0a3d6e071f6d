"""Time no-op tasks on HTEX without monitoring, with it, and with resource samples once a second; print ratios.

    python benchmarks/monitor/overhead.py [--tasks 20000] [--rounds 5]

Each measurement is a fresh process, the kinds take turns; figures are medians over the rounds. What is timed is from
the first submission to the last result, as a script sees it; what the clean-up takes on top is shown beside it. The
bars are 0.7 of the throughput without monitoring, 0.6 with samples.
"""

from __future__ import annotations

import argparse
import json
import os
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
    began = time.perf_counter()
    futures = [app() for _ in range(tasks)]
    for future in futures:
        future.result()
    ran = time.perf_counter() - began
    del futures
    began = time.perf_counter()
    flow.dfk().cleanup()
    return {"throughput": tasks / ran, "cleanup_s": time.perf_counter() - began}


def in_a_fresh_process(kind: str, tasks: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, os.path.abspath(__file__), "--one", kind, "--tasks", str(tasks)],
            cwd=directory, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
    if not lines:
        raise SystemExit(f"{kind}: failed\n{done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(lines[-1][8:])
    return figures


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
    print(f"{'kind':10s} {'tasks/s':>9s} {'ratio':>6s} {'bar':>5s} {'clean-up s':>11s}")
    for kind in KINDS:
        cleanup = statistics.median(one["cleanup_s"] for one in found[kind])
        bar = BARS.get(kind, "")
        print(f"{kind:10s} {medians[kind]:9.0f} {medians[kind] / medians['without']:6.2f} {bar!s:>5s} {cleanup:11.2f}")


if __name__ == "__main__":
    main()
