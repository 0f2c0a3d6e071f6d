"""Simulation of scaling in virtual time: load curves played through the core, a day in milliseconds.

``python -m flow_executors.scaling.simulate`` prints what each strategy makes of each curve.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flow_core.interfaces.scaling import BlockLimits, Load, Strategy
from flow_executors.scaling.scaling_core import ScalingCore
from flow_executors.scaling.strategies import htex_auto_scale, none, simple
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

Arrivals = Sequence[tuple[float, float]]
"""(when, how long) of each task, in seconds, ordered by when"""


@dataclass(frozen=True, slots=True)
class SimulatedCluster:
    """How the simulated scheduler and nodes behave; times in seconds."""

    slots_per_block: int = 4
    queue_s: float = 60.0
    start_s: float = 5.0
    period_s: float = 5.0
    max_idletime_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it.

    Attributes:
        makespan_s: When the last task ended.
        utilisation: Busy slot time over paid slot time.
        wasted_slot_s: Paid slot time in which nothing ran.
        mean_wait_s: How long tasks waited on average.
        most_blocks: Most blocks at once.
        blocks: Blocks started in all.
        timeline: (time, waiting, running, blocks with nodes) at each look.
    """

    makespan_s: float
    utilisation: float
    wasted_slot_s: float
    mean_wait_s: float
    most_blocks: int
    blocks: int
    timeline: tuple[tuple[float, int, int, int], ...]


@dataclass(slots=True)
class _SimulatedNode:
    running: int = 0
    idle_since: float = 0.0
    up_at: float = 0.0
    draining: bool = False


@dataclass(slots=True)
class _Simulation:
    site: SimulatedCluster
    core: ScalingCore
    now: float = 0.0
    order: int = 0
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    waiting: deque[tuple[float, float]] = field(default_factory=deque)
    nodes: dict[str, _SimulatedNode] = field(default_factory=dict)
    running: int = 0
    unfinished: int = 0
    busy_s: float = 0.0
    paid_s: float = 0.0
    waited_s: float = 0.0
    last_end: float = 0.0
    most: int = 0
    timeline: list[tuple[float, int, int, int]] = field(default_factory=list)

    def at(self, when: float, action: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.events, (when, self.order, action))

    # -- tasks

    def arrive(self, length: float) -> None:
        self.waiting.append((self.now, length))
        self.place()

    def place(self) -> None:
        for name, node in self.nodes.items():
            while self.waiting and not node.draining and node.running < self.site.slots_per_block:
                arrived, length = self.waiting.popleft()
                self.waited_s += self.now - arrived
                self.busy_s += length
                node.running += 1
                self.running += 1
                self.at(self.now + length, lambda name=name: self.finish(name))  # type: ignore[misc]  # bound now

    def finish(self, name: str) -> None:
        node = self.nodes[name]
        node.running -= 1
        self.running -= 1
        self.unfinished -= 1
        self.last_end = self.now
        if not node.running:
            node.idle_since = self.now
        self.place()

    # -- blocks

    def look(self) -> None:
        core, slots = self.core, self.site.slots_per_block
        idle = {name: 0.0 if node.running else self.now - node.idle_since for name, node in self.nodes.items()}
        core.told({name: (slots, seconds) for name, seconds in idle.items()})
        decision = core.decide(Load(len(self.waiting), self.running), self.now)
        for _ in range(decision.add):
            self.submit()
        for name in decision.release:
            core.release(name, self.now)
            if name in self.nodes:
                self.nodes[name].draining = True
                if not self.nodes[name].running:
                    self.end(name)
        core.cancelling(decision.cancel, self.now)
        for name in decision.cancel:
            self.end(name)
        self.timeline.append((self.now, len(self.waiting), self.running, len(self.nodes)))
        self.most = max(self.most, core.occupied)
        self.at(self.now + self.site.period_s, self.look)

    def submit(self) -> None:
        name = self.core.new_block()
        self.core.submitted(name, f"job-{name}", self.now)
        self.at(self.now + self.site.queue_s + self.site.start_s, lambda: self.begin(name))

    def begin(self, name: str) -> None:
        if self.core.blocks[name].ended:
            return
        self.core.changed(name, JobStatus(JobState.RUNNING), self.now)
        self.core.joined(name, self.now)
        self.nodes[name] = _SimulatedNode(idle_since=self.now, up_at=self.now)
        self.place()

    def end(self, name: str) -> None:
        node = self.nodes.pop(name, None)
        if node is not None:
            self.paid_s += (self.now - node.up_at) * self.site.slots_per_block
            self.core.left(name, "", self.now)
        self.core.changed(name, JobStatus(JobState.COMPLETED), self.now)


def simulate(
    arrivals: Arrivals,
    strategy: Strategy,
    limits: BlockLimits,
    site: SimulatedCluster | None = None,
    *,
    horizon_s: float = 86_400.0,
) -> Figures:
    """Play a load curve through the scaling core. Pure; ends with the last task, at ``horizon_s`` at the latest."""
    site = site or SimulatedCluster()
    world = _Simulation(site, ScalingCore(limits, strategy, site.max_idletime_s), unfinished=len(arrivals))
    for when, length in arrivals:
        world.at(when, lambda length=length: world.arrive(length))  # type: ignore[misc]  # bound now
    world.at(0.0, world.look)
    while world.unfinished and world.events[0][0] <= horizon_s:
        world.now, _, action = heapq.heappop(world.events)
        action()
    for name in list(world.nodes):
        world.end(name)
    paid = max(world.paid_s, 1e-9)
    return Figures(
        makespan_s=world.last_end,
        utilisation=min(1.0, world.busy_s / paid),
        wasted_slot_s=max(0.0, world.paid_s - world.busy_s),
        mean_wait_s=world.waited_s / max(1, len(arrivals)),
        most_blocks=world.most,
        blocks=len(world.core.blocks),
        timeline=tuple(world.timeline),
    )


def curves() -> dict[str, Arrivals]:
    """Return load curves to compare strategies by: a burst, steps, a sawtooth, a long tail."""
    steps = [(hour * 1800.0 + 2.0 * n, 30.0) for hour, count in enumerate((20, 200, 50, 400, 10)) for n in range(count)]
    sawtooth = [(600.0 * tooth + 1.0 * n, 20.0) for tooth in range(6) for n in range(20 * (tooth % 3 + 1))]
    return {
        "burst": [(0.0, 60.0)] * 200,
        "steps": sorted(steps),
        "sawtooth": sorted(sawtooth),
        "long tail": sorted([(0.0, 20.0)] * 150 + [(0.0, 1800.0)] * 3),
    }


def compare(
    limits: BlockLimits, site: SimulatedCluster | None = None, strategies: Mapping[str, Strategy] | None = None
) -> list[tuple[str, str, Figures]]:
    """Return (curve, strategy, figures) of every strategy on every curve."""
    chosen = strategies or {"none": none, "simple": simple, "htex_auto_scale": htex_auto_scale}
    return [
        (curve, name, simulate(arrivals, strategy, limits, site))
        for curve, arrivals in curves().items()
        for name, strategy in chosen.items()
    ]


def table(rows: Sequence[tuple[str, str, Figures]]) -> str:
    """Return the comparison as text."""
    lines = [
        f"{'curve':10} {'strategy':16} {'makespan s':>10} {'use':>6} {'wasted slot h':>13} {'wait s':>8} {'blocks':>6}"
    ]
    lines += [
        f"{curve:10} {name:16} {figures.makespan_s:10.0f} {figures.utilisation:6.0%} "
        f"{figures.wasted_slot_s / 3600:13.1f} {figures.mean_wait_s:8.1f} {figures.blocks:6d}"
        for curve, name, figures in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(compare(BlockLimits(init_blocks=1, min_blocks=0, max_blocks=10))))  # noqa: T201 - its purpose
