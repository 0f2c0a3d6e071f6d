"""Time the same jobs on Flow and on the standard library's pools, interleaved, and print ratios.

    python benchmarks/htex/peers.py [--tasks 10000] [--rounds 5] [--peers flow,ppe,parsl,ray,dask] [--json FILE]

Each measurement is a fresh process; figures are medians over the rounds, ratios are taken within one run. Peers that
are not installed are left out with a line that says so.

Jobs, all with no-op functions so that what is timed is the engine:
  throughput  submit N independent tasks, wait for all       tasks/s
  latency     submit one, wait, again and again              median, ms
  chain       N/10 tasks, each on the one before             tasks/s
  memory      growth of this process while N tasks are out   KB a task
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

NEEDS = {"flow": "flow", "threads": "flow", "ppe": "", "tpe": "", "parsl": "parsl", "ray": "ray", "dask": "distributed"}


@dataclass
class Figures:
    """What one peer did in one process."""

    peer: str
    throughput: float
    latency_ms: float
    chain: float
    kb_a_task: float


def noop(*_: object) -> None:
    """Do nothing: what is timed is the engine."""


def resident_kb() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def measure(peer: str, submit: Callable[[], object], chain: Callable[[object], object] | None, tasks: int) -> Figures:
    def result(future: object) -> None:
        future.result()  # type: ignore[attr-defined] # every peer's future has it

    for future in [submit() for _ in range(100)]:
        result(future)
    before, began = resident_kb(), time.perf_counter()
    futures = [submit() for _ in range(tasks)]
    for future in futures:
        result(future)
    throughput = tasks / (time.perf_counter() - began)
    kb = (resident_kb() - before) / tasks
    del futures
    trips = []
    for _ in range(500):
        began = time.perf_counter()
        result(submit())
        trips.append(time.perf_counter() - began)
    links = 0.0
    if chain is not None:
        began = time.perf_counter()
        future = chain(None)
        for _ in range(tasks // 10 - 1):
            future = chain(future)
        result(future)
        links = (tasks // 10) / (time.perf_counter() - began)
    return Figures(peer, round(throughput), round(statistics.median(trips) * 1e3, 3), round(links), round(kb, 2))


def run_flow(peer: str, tasks: int, module: str = "flow") -> Figures:
    import importlib

    system = importlib.import_module(module)
    executors = importlib.import_module(f"{module}.executors")
    providers = importlib.import_module(f"{module}.providers")
    config = importlib.import_module(f"{module}.config").Config
    if peer == "threads":
        executor = executors.ThreadPoolExecutor(max_threads=2)
    else:
        workers = "max_workers" if module == "flow" else "max_workers_per_node"
        options = {"label": "htex", "address": "127.0.0.1", workers: 2}
        provider = providers.LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
        executor = executors.HighThroughputExecutor(provider=provider, **options)
    system.load(config(executors=[executor], strategy="none"))
    app = system.python_app(noop)
    figures = measure(peer, app, app, tasks)
    system.dfk().cleanup()
    return figures


def run_peer(peer: str, tasks: int) -> Figures:
    if peer in ("flow", "threads"):
        return run_flow(peer, tasks)
    if peer == "parsl":
        return run_flow(peer, tasks, "parsl")
    if peer in ("ppe", "tpe"):
        import concurrent.futures

        kind = concurrent.futures.ProcessPoolExecutor if peer == "ppe" else concurrent.futures.ThreadPoolExecutor
        with kind(2) as pool:
            return measure(peer, lambda: pool.submit(noop), None, tasks)
    if peer == "dask":
        from distributed import Client

        with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
            return measure(
                peer, lambda: client.submit(noop, pure=False), lambda f: client.submit(noop, f, pure=False), tasks
            )
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    remote = ray.remote(noop)
    return measure(peer, lambda: remote.remote().future(), None, tasks)


def in_a_fresh_process(peer: str, tasks: int) -> Figures | None:
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, os.path.abspath(__file__), "--one", peer, "--tasks", str(tasks)],
            cwd=directory,
            env={**os.environ, "PATH": os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
    if not lines:
        print(f"{peer}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return Figures(**json.loads(lines[-1][8:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="flow,ppe,parsl,ray,dask")
    parser.add_argument("--json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print("FIGURES " + json.dumps(asdict(run_peer(options.one, options.tasks))), flush=True)
        return
    peers = [peer for peer in options.peers.split(",") if not NEEDS[peer] or importlib.util.find_spec(NEEDS[peer])]
    for peer in set(options.peers.split(",")) - set(peers):
        print(f"{peer} is not installed: left out")
    found: dict[str, list[Figures]] = {peer: [] for peer in peers}
    for _ in range(options.rounds):
        for peer in peers:
            figures = in_a_fresh_process(peer, options.tasks)
            if figures is not None:
                found[peer].append(figures)
    table = {peer: median_of(figures) for peer, figures in found.items() if figures}
    show(table, options.tasks, options.rounds)
    if options.json:
        with open(options.json, "w") as stream:
            json.dump({peer: asdict(figures) for peer, figures in table.items()}, stream, indent=1)


def median_of(figures: list[Figures]) -> Figures:
    columns = {
        name: statistics.median(getattr(one, name) for one in figures)
        for name in ("throughput", "latency_ms", "chain", "kb_a_task")
    }
    return Figures(figures[0].peer, **columns)


def show(table: dict[str, Figures], tasks: int, rounds: int) -> None:
    base = table.get("ppe")
    print(f"{tasks} tasks, medians of {rounds} rounds; x = ratio to ProcessPoolExecutor (ppe) in this run")
    print(f"{'peer':8s} {'tasks/s':>10s} {'x':>6s} {'trip ms':>9s} {'x':>6s} {'chain/s':>9s} {'KB/task':>8s}")
    for peer, one in table.items():
        rate = f"{one.throughput / base.throughput:6.2f}" if base else ""
        trip = f"{one.latency_ms / base.latency_ms:6.2f}" if base else ""
        print(
            f"{peer:8s} {one.throughput:10.0f} {rate:>6s} {one.latency_ms:9.3f} {trip:>6s} "
            f"{one.chain:9.0f} {one.kb_a_task:8.2f}"
        )


if __name__ == "__main__":
    main()
