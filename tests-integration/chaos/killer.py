"""Kills, and stops for a while, processes of a run, chosen at random from a printed seed."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field

import psutil

_MODULES = {
    "flow_executors.interchange": "interchange",
    "flow_executors.manager": "manager",
    "flow_executors.direct": "manager",
    "flow_providers.jobs.reaper": "reaper",
}


def processes_of(run_id: str) -> dict[str, list[psutil.Process]]:
    """Return the processes of a run by role: interchange, manager, fork server, worker, task, reaper."""
    found: dict[str, list[psutil.Process]] = {}
    seen = set()
    for root in psutil.process_iter(["cmdline"]):
        try:
            if root.pid == os.getpid() or run_id not in " ".join(root.info["cmdline"] or ()):
                continue
            for process in [root, *root.children(recursive=True)]:
                if process.pid not in seen and process.status() != psutil.STATUS_ZOMBIE:
                    seen.add(process.pid)
                    found.setdefault(role_of(process), []).append(process)
        except psutil.Error:
            continue
    return found


def role_of(process: psutil.Process) -> str:
    """Tell a process's role by the name forked ones give themselves, or by the module it was started with."""
    name = process.name()
    if name.startswith("flow-w"):  # as a child of a worker is called, too, until it has become bash
        parent = process.parent()
        return "worker" if parent is None or not parent.name().startswith("flow-w") else "task"
    if name.startswith("flow-forkserver"):
        return "fork server"
    command = " ".join(process.cmdline())
    for module, role in _MODULES.items():
        if module in command:
            return role if command.split()[0].rpartition("/")[2].startswith("python") else "script"
    return "other"


@dataclass
class Killer:
    """A thread that does one bad thing after another until it is told to stop.

    Attributes:
        run_id: The run to hit.
        seed: Where its choices come from.
        period_s: Mean seconds between two hits.
        odds: How often each kind of hit is chosen.
    """

    run_id: str
    seed: int
    period_s: float = 0.7
    odds: tuple[tuple[str, int], ...] = (
        ("worker", 12),
        ("manager", 2),
        ("freeze", 2),
        ("interchange", 2),
        ("fork server", 1),
        ("stop worker", 3),
        ("stop fork server", 1),
    )
    done: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Killer:
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(30)

    def _run(self) -> None:
        chance = random.Random(self.seed)
        kinds = [kind for kind, odds in self.odds for _ in range(odds)]
        while not self._stop.wait(chance.expovariate(1 / self.period_s)):
            self._hit(chance.choice(kinds), chance)

    def _hit(self, kind: str, chance: random.Random) -> None:
        victims = processes_of(self.run_id).get("manager" if kind == "freeze" else kind.removeprefix("stop "), [])
        if not victims:
            return
        victim = chance.choice(sorted(victims, key=lambda process: process.pid))
        try:
            if kind == "freeze":
                victim.send_signal(signal.SIGSTOP)
                self._stop.wait(chance.uniform(0.1, 3.0))
                victim.send_signal(signal.SIGCONT)
            elif kind.startswith("stop "):
                victim.send_signal(signal.SIGSTOP)  # for good: it is for others to notice
            else:
                victim.send_signal(signal.SIGKILL)
            self.done[kind] += 1
        except psutil.NoSuchProcess:
            return
