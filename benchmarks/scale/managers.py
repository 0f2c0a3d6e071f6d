"""Load one interchange with thousands of simulated managers: what a task costs there, and what waiting costs.

    python benchmarks/scale/managers.py [--managers 1,10,100,1000,8192] [--tasks 262144] [--idle 30] [--plot FILE]

Real encrypted connections from a few processes on this machine, 32 slots each; the tasks do nothing. CPU is that of the
interchange with all its threads. *batched*: a message carries as many tasks and results as there are at once; *singly*:
every result is a message of its own. Bars: registered in 30 s, a task within twice that of one manager, 400 MB, 3% of a
core for heartbeats of 8,192 managers.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.outcome import Ended, Outcome, Place
from flow_executors.client.client import Client
from flow_executors.client.interchange_process import InterchangeSettings, listen
from flow_executors.client.receiver import ReceiverCallbacks
from flow_executors.testing.managers import Fleet, FleetProcess, raise_descriptor_limit
from flow_executors.wire.auth import make_pair
from flow_executors.wire.transport import listen_locally

SLOTS = 32
PROCESSES = 4


@dataclass
class Figures:
    """What was seen with so many managers."""

    managers: int
    slots: int
    register_s: float
    register_cpu_s: float
    batched_us: float
    singly_us: float
    tasks_a_second: float
    rss_idle_mb: float
    rss_loaded_mb: float
    idle_percent: float


class Counter:
    """A listener that counts."""

    def __init__(self) -> None:
        self.count = 0
        self.target = 0
        self.reached = threading.Event()

    def started(self, tries: Sequence[tuple[TryKey, int, Place]]) -> None:
        """Take note of nothing."""

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        self.count += len(outcomes)
        if self.count >= self.target:
            self.reached.set()

    def ended(self, tries: Sequence[Ended]) -> None:
        self.finished([make() for _, make in tries])


def noop() -> None:
    """Do nothing: nobody runs it."""


class Rig:
    """A client, its interchange, and a fleet."""

    def __init__(self, directory: Path, managers: int, slots: int, singly: bool, stack: ExitStack) -> None:
        self.listener = Counter()
        self.keys = 0
        server, block = make_pair(), make_pair()
        _, socket = listen(("127.0.0.1",), None, (40000, 50000), "scale")
        stack.callback(socket.close)
        local = stack.enter_context(listen_locally())
        site = InterchangeSettings(
            "scale",
            f"scale-{managers}",
            directory,
            socket,
            local,
            "127.0.0.1",
            server,
            30.0,
            120.0,
            managers_per_block=managers,
        )
        hooks = ReceiverCallbacks(lambda *_: None, lambda *_: None, lambda *_: None, lambda *_: None)
        self.client = Client(site, self.listener, hooks, logging.getLogger("scale"), "benchmark")
        self.client.start()
        stack.callback(self.client.close, 10.0)
        self.client.wait_ready(20.0)
        self.client.admit(block.public, "0")
        assert self.client.incarnation is not None
        self.pid = self.client.incarnation.process.pid
        before, began = cpu_s(self.pid), time.monotonic()
        shares = [managers // PROCESSES + (n < managers % PROCESSES) for n in range(PROCESSES)]
        fleets = [
            Fleet(site.run_id, site.port, server.public.decode(), block.public.decode(), block.secret.decode(), "0",
                  share, sum(shares[:n]), slots, slots, singly)
            for n, share in enumerate(shares) if share
        ]  # fmt: skip
        processes = [stack.enter_context(FleetProcess(fleet)) for fleet in fleets]
        for process in processes:
            process.wait_registered(240.0)
        while len(self.client.directory.managers) < managers:
            time.sleep(0.005)
        self.register_s = time.monotonic() - began
        self.register_cpu_s = cpu_s(self.pid) - before

    def run(self, tasks: int) -> tuple[float, float]:
        """Run so many tasks; return CPU us a task and tasks a second."""
        listener = self.listener
        listener.reached.clear()
        listener.target = listener.count + tasks
        call, submit, first = Call(noop), self.client.submit, self.keys + 1
        self.keys += tasks
        before, began = cpu_s(self.pid), time.monotonic()
        for key in range(first, first + tasks):
            submit(TryKey(key), call)
        self.client.flush()
        if not listener.reached.wait(300):
            raise TimeoutError(f"{listener.target - listener.count} of {tasks} tasks have no outcome")
        return (cpu_s(self.pid) - before) / tasks * 1e6, tasks / (time.monotonic() - began)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, with all its threads."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()
    ) / 1e9  # fmt: skip


def rss_mb(pid: int) -> float:
    """Memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def measure(managers: int, tasks: int, idle_s: float, slots: int = SLOTS) -> Figures:
    """Measure with so many managers of so many slots each."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        rig = Rig(Path(directory), managers, slots, False, stack)
        idle_mb, before, began = rss_mb(rig.pid), cpu_s(rig.pid), time.monotonic()
        time.sleep(idle_s)
        idle = (cpu_s(rig.pid) - before) / (time.monotonic() - began) * 100
        rig.run(min(tasks, 10_000))
        batched_us, rate = min(rig.run(tasks) for _ in range(2))
        loaded_mb = rss_mb(rig.pid)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        worst = Rig(Path(directory), managers, slots, True, stack)
        singly_us, _ = worst.run(max(1000, tasks // 4))
    return Figures(
        managers, managers * slots, round(rig.register_s, 2), round(rig.register_cpu_s, 2), round(batched_us, 2),
        round(singly_us, 2), round(rate), round(idle_mb, 1), round(loaded_mb, 1), round(idle, 2),
    )  # fmt: skip


def table(rows: Sequence[Figures]) -> str:
    """Return the figures as a table in Markdown."""
    head = (
        "| managers | slots | all registered, s (CPU s) | CPU us a task, batched | the same, one result a message | "
        "tasks/s | memory idle, loaded MB | CPU idle |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "\n".join(
        f"| {r.managers:,} | {r.slots:,} | {r.register_s:g} ({r.register_cpu_s:g}) | {r.batched_us:g} "
        f"| {r.singly_us:g} | {r.tasks_a_second:,} | {r.rss_idle_mb:g}, {r.rss_loaded_mb:g} | {r.idle_percent:g}% |"
        for r in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--managers", default="1,10,100,1000,8192")
    parser.add_argument("--tasks", type=int, default=262_144)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of idleness to look at")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    raise_descriptor_limit(1024)
    rows = []
    for managers in map(int, options.managers.split(",")):
        rows.append(measure(managers, options.tasks, options.idle))
        print(rows[-1], flush=True)
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.plot:
        from plot import draw

        options.plot.write_text(draw([(r.managers, r.batched_us, r.singly_us) for r in rows]))


if __name__ == "__main__":
    main()
