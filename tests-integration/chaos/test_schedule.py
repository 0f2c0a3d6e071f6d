"""Tasks of mixed lengths on real workers end near the ideal schedule. Apart from the others, since it looks at time."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

import flow_core as flow
from flow_core import Config, python_app
from flow_executors import HighThroughputExecutor
from flow_executors.testing.virtual import ideal_s
from flow_providers import LocalProvider

TOLERANCE = 1.30
TRIES = 4


@python_app
def sleep(seconds):
    import time

    time.sleep(seconds)


@pytest.mark.chaos
@pytest.mark.timeout(180)
@pytest.mark.parametrize("blocks", [1, 2])
def test_mixed_lengths_end_within_30_percent_of_the_ideal_schedule(tmp_path: Path, blocks: int) -> None:
    executor = HighThroughputExecutor(
        label="htex",
        max_workers=2,
        cores_per_worker=0.5,
        provider=LocalProvider(init_blocks=blocks, min_blocks=blocks, max_blocks=blocks),
    )
    chance = random.Random(5)
    lengths = [chance.choice([0.001, 0.002, 0.02, 0.2]) for _ in range(120)]
    ideal = ideal_s(lengths, 2 * blocks)
    ratios = []
    with flow.load(Config(executors=[executor], run_dir=str(tmp_path / "runinfo"))):
        while len(executor.connected_managers()) < blocks:
            time.sleep(0.01)
        for future in [sleep(0.001) for _ in range(50)]:
            future.result(timeout=60)
        while len(ratios) < TRIES and min(ratios, default=9.0) > TOLERANCE:
            began = time.monotonic()
            for future in [sleep(seconds) for seconds in lengths]:
                future.result(timeout=60)
            ratios.append((time.monotonic() - began) / ideal)
    assert min(ratios) <= TOLERANCE, ratios
