"""Tasks of ranks in virtual time: placed whole and never twice, starved by nobody, near the best schedule known.

``FLOW_MIXES=1000`` runs that many generated mixes.
"""

from __future__ import annotations

import os
import random
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings, strategies as st

from flow_core.apps.special import task_spec
from flow_core.interfaces.call import TaskSpec
from flow_executors.testing.virtual import VirtualRun

MIXES = int(os.environ.get("FLOW_MIXES", "6"))
TOLERANCE = 1.15

Shape = tuple[int, int]
"""Nodes and slots on each; 0 nodes: so many slots anywhere in one block."""
Job = tuple[float, Shape]


class Mix:
    """Tasks of all widths for nodes of two blocks."""

    def __init__(
        self, chance: random.Random, nodes: int, slots: int, seconds: float, lengths: tuple[float, ...]
    ) -> None:
        self.nodes, self.slots = nodes, slots
        self.blocks = [str(node * 2 // nodes) for node in range(nodes)]
        self.lengths: dict[int, float] = {}
        self.specs: dict[int, TaskSpec] = {}
        self.jobs: list[Job] = []
        stated = chance.random() < 0.5  # whether users state walltimes
        area = 0.0
        while area < seconds * nodes * slots:
            length = chance.choice(lengths) * chance.uniform(0.5, 1.5)
            shape, asked = self._shape(chance)
            key = len(self.jobs) + 1
            walltime_s = length * chance.uniform(1, 3) if stated else None
            if asked or walltime_s:
                self.specs[key] = task_spec("app", walltime_s, asked)
            self.lengths[key] = length
            self.jobs.append((length, shape))
            area += length * max(1, shape[0]) * shape[1]

    def _shape(self, chance: random.Random) -> tuple[Shape, dict[str, object]]:
        slots, kind = self.slots, chance.random()
        if kind < 0.15:
            shape = (
                chance.choice([one for one in (1, 2, 3, 4, 8) if one <= max(1, self.nodes // 4)]),
                chance.randint(1, slots),
            )
            return shape, {"nodes": shape[0], "ranks_per_node": shape[1]}
        if kind < 0.25:
            ranks = chance.randint(2, slots * 2)
            return (0, ranks), {"ranks": ranks}
        if kind < 0.3:
            return (2, slots), {"nodes": 2, "exclusive": True}
        if kind < 0.5:
            cores = chance.randint(1, slots)
            return (1, cores), {"cores": cores}
        return (1, 1), {}

    def run(self) -> tuple[VirtualRun, float]:
        """Run it; return the run and when the last task ended."""
        run = VirtualRun([self.slots] * self.nodes, blocks=self.blocks)
        return run, run.run(self.lengths, self.specs)

    def best_s(self) -> float:
        """Return the end of the best schedule known, of several that know all lengths and starve whom they like."""
        orders = [
            self.jobs,
            sorted(self.jobs, key=lambda job: -job[0]),
            sorted(self.jobs, key=lambda job: -job[0] * max(1, job[1][0]) * job[1][1]),
            sorted(self.jobs, key=lambda job: (-job[1][0] * job[1][1], -job[0])),
        ]
        return min(self._listed_s(order) for order in orders)

    def _listed_s(self, jobs: list[Job]) -> float:
        free = [self.slots] * self.nodes
        blocks = [[n for n, block in enumerate(self.blocks) if block == name] for name in dict.fromkeys(self.blocks)]
        now, events, waiting = 0.0, list[tuple[float, int, list[tuple[int, int]]]](), jobs
        while waiting or events:
            left, failed = [], set[Shape]()
            for job in waiting:
                found = None if job[1] in failed else _first_fit(job[1], free, blocks)
                if found is None:
                    failed.add(job[1])
                    left.append(job)
                    continue
                for node, slots in found:
                    free[node] -= slots
                heappush(events, (now + job[0], len(events) + id(job), found))
            waiting = left
            now, _, found = heappop(events)
            for node, slots in found:
                free[node] += slots
        return now


def _first_fit(shape: Shape, free: list[int], blocks: list[list[int]]) -> list[tuple[int, int]] | None:
    nodes, slots = shape
    for block in blocks:
        if nodes:
            fitting = sorted((node for node in block if free[node] >= slots), key=lambda node: (free[node], node))
            if len(fitting) >= nodes:
                return [(node, slots) for node in fitting[:nodes]]
        elif sum(free[node] for node in block) >= slots:
            found, left = [], slots
            for node in sorted(block, key=lambda node: -free[node]):
                found.append((node, min(left, free[node])))
                left -= found[-1][1]
                if not left:
                    return found
    return None


def check_placements(mix: Mix, run: VirtualRun) -> None:
    """Check that each task ran once, and each task of ranks whole, on nodes of one block."""
    assert set(run.started.values()) == {1}
    block_of = {f"n{node}": block for node, block in enumerate(mix.blocks)}
    wide = {key for key, spec in mix.specs.items() if spec.resources.ranks is not None}
    assert run.placements.keys() == wide
    for key, placement in run.placements.items():
        asked, names = mix.specs[key].resources, [place.node for place in placement.places]
        assert placement.ranks == asked.ranks
        assert len(set(names)) == len(names)
        assert len({block_of[name] for name in names}) == 1
        if asked.ranks is not None and asked.ranks <= asked.nodes * asked.ranks_per_node:
            assert len(names) == asked.nodes
        if asked.exclusive:
            assert all(place.slots == mix.slots for place in placement.places)


@given(
    st.integers(0, 2**32),
    st.integers(4, 24),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([(1.0,), (0.5, 3.0), (1.0, 9.0)]),
)
@settings(max_examples=MIXES * 2, deadline=None)
def test_tasks_of_all_widths_run_once_and_book_no_node_twice(
    seed: int, nodes: int, slots: int, lengths: tuple[float, ...]
) -> None:
    # That no node is booked twice is checked by the nodes themselves, at each start.
    mix = Mix(random.Random(seed), nodes, slots, 12.0, lengths)
    run, _ = mix.run()
    check_placements(mix, run)


@pytest.mark.timeout(120)
@given(st.integers(0, 2**32))
@settings(max_examples=max(1, MIXES // 3), deadline=None)
def test_a_thousand_nodes_are_booked_once(seed: int) -> None:
    mix = Mix(random.Random(seed), 1000, 4, 2.0, (1.0, 3.0))
    run, _ = mix.run()
    check_placements(mix, run)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mixed_lengths_end_within_15_percent_of_the_best_schedule_known() -> None:
    ratios = []
    for seed in range(MIXES):
        mix = Mix(
            random.Random(seed), *random.Random(seed).choice([(8, 4), (16, 4), (32, 2)]), 150.0, (1.0, 2.0, 5.0, 10.0)
        )
        run, end = mix.run()
        check_placements(mix, run)
        ratios.append(end / mix.best_s())
    mean = sum(ratios) / len(ratios)
    assert mean <= TOLERANCE, f"{mean:.3f} of the best, by mix: {[round(ratio, 3) for ratio in ratios]}"


def test_urgent_wide_tasks_wait_no_longer_than_what_runs() -> None:
    lengths = dict.fromkeys(range(1, 81), 1.0) | {81: 1.0}
    specs = {81: task_spec("app", None, {"nodes": 4, "ranks_per_node": 2, "priority": 5})}
    run = VirtualRun([2, 2, 2, 2])
    run.run(lengths, specs)
    assert run.begun[81] <= 1.1


def test_tasks_whose_walltime_ends_before_the_nodes_are_free_run_on_kept_ones() -> None:
    long = task_spec("app", 20.0, {"cores": 2})
    wide = task_spec("app", None, {"nodes": 2, "ranks_per_node": 2})
    short = task_spec("app", 1.0, {"cores": 2})
    other = task_spec("app", None, {"cores": 2, "memory": 1})
    lengths = {1: 20.0, 2: 1.0, 3: 0.5, 4: 0.5}
    run = VirtualRun([2, 2])
    run.run(lengths, {1: long, 2: wide, 3: short, 4: other})
    # The second node is kept for the wide task until the first is free: only what ends before may use it.
    assert run.begun[3] < 1.0
    assert run.begun[2] >= 20.0
    assert run.begun[4] > run.begun[2]


def test_small_tasks_of_ranks_share_nodes() -> None:
    spec = task_spec("app", None, {"ranks": 2})
    run = VirtualRun([4, 4])
    end = run.run(dict.fromkeys(range(1, 5), 1.0), dict.fromkeys(range(1, 5), spec))
    assert end < 1.5
    assert sorted(len(run.placements[key].places) for key in range(1, 5)) == [1, 1, 1, 1]


def test_ranks_alone_take_as_few_nodes_as_have_room() -> None:
    run = VirtualRun([4, 4, 4])
    run.run({1: 1.0, 2: 1.0}, {1: task_spec("app", None, {"ranks": 6}), 2: task_spec("app", None, {"ranks": 4})})
    assert [place.ranks for place in run.placements[1].places] == [4, 2]
    assert [place.ranks for place in run.placements[2].places] == [4]
