"""Mixed lengths in virtual time: prefetching, stealing back and recalls end near the ideal schedule, whatever comes.

``FLOW_MIXES=1000`` runs that many generated mixes.
"""

from __future__ import annotations

import os
import random

import pytest

from flow_core.interfaces.call import Resources, TaskSpec
from flow_executors.testing.virtual import VirtualRun, ideal_s

MIXES = int(os.environ.get("FLOW_MIXES", "100"))
TOLERANCE = 1.10
MOST = 1500
"""About how many tasks a mix has at most."""
START_S = 0.005
"""Until the first task can run and after the last one has: messages, not scheduling."""


def mix(chance: random.Random, slots: int) -> list[float]:
    """Return lengths of tasks that keep so many slots busy for half a second to a few seconds."""
    kind = chance.choice(["even", "two", "rare", "spread", "steps", "long last", "long first", "growing"])
    total = slots * chance.uniform(0.5, 2.5)
    short = max(chance.choice([0.0003, 0.001, 0.004, 0.02]), total / MOST)
    long = chance.choice([0.01, 0.05, 0.2])
    lengths: list[float] = []
    left = total
    while left > 0:
        at = 1 - left / total
        seconds = {
            "even": short,
            "two": chance.choice([short, long]),
            "rare": long if chance.random() < 0.02 else short,
            "spread": min(0.3, chance.lognormvariate(0, 1.5) * max(short, 0.001)),
            "steps": (short, long)[int(at * 6) % 2],
            "long last": long if at > 0.7 else short,
            "long first": long if at < 0.3 else short,
            "growing": short + at * long,
        }[kind]
        lengths.append(seconds)
        left -= seconds
    return lengths


@pytest.mark.timeout(1800 if MIXES > 100 else 60)
@pytest.mark.parametrize("managers", ["one", "several"])
def test_mixed_lengths_end_within_a_tenth_of_the_ideal_schedule(managers: str) -> None:
    worst = (0.0, -1)
    for seed in range(MIXES // 2):
        chance = random.Random(seed)
        number = 1 if managers == "one" else chance.randint(2, 6)
        slots = [chance.choice([1, 2, 2, 4, 8]) for _ in range(number)]
        lengths = mix(chance, sum(slots))
        run = VirtualRun(slots)
        end = run.run(dict(enumerate(lengths, start=1)))
        assert set(run.started.values()) == {1}
        worst = max(worst, ((end - START_S) / ideal_s(lengths, sum(slots)), seed))
    assert worst[0] <= TOLERANCE, f"seed {worst[1]}: {worst[0]:.3f} of the ideal"


def test_short_tasks_do_not_wait_behind_a_long_one() -> None:
    run = VirtualRun([2])
    run.run(dict.fromkeys(range(1, 300), 0.0005) | {300: 0.5} | dict.fromkeys(range(301, 700), 0.0005))
    assert max(when for key, when in run.ended.items() if key != 300) < 0.3
    assert run.steals


def test_a_manager_that_runs_dry_gets_what_another_has_not_started() -> None:
    run = VirtualRun([2, 2])
    lengths = dict.fromkeys(range(1, 2000), 0.0005) | dict.fromkeys(range(2000, 2100), 0.02)
    end = run.run(lengths)
    assert end <= TOLERANCE * ideal_s(list(lengths.values()), 4) + START_S


def test_wide_tasks_among_narrow_ones_keep_all_busy() -> None:
    run = VirtualRun([4, 4])
    wide = TaskSpec(Resources(cores=4.0))
    lengths = dict.fromkeys(range(1, 800), 0.01)
    specs = dict.fromkeys(range(1, 800, 20), wide)
    end = run.run(lengths, specs)
    used = sum(seconds * (4 if key in specs else 1) for key, seconds in lengths.items())
    assert end <= 1.3 * used / 8
