"""Hours of load in milliseconds: what strategies are worth."""

import pytest

from flow_core.interfaces.scaling import BlockLimits
from flow_executors.scaling.simulate import SimulatedCluster, compare, curves, simulate, table
from flow_executors.scaling.strategies import htex_auto_scale, none, simple

LIMITS = BlockLimits(init_blocks=1, min_blocks=0, max_blocks=10)


@pytest.mark.parametrize("strategy", [none, simple, htex_auto_scale])
@pytest.mark.parametrize("curve", sorted(curves()))
def test_every_task_ends_and_blocks_stay_within_bounds(curve, strategy):
    arrivals = curves()[curve]
    figures = simulate(arrivals, strategy, LIMITS)
    assert figures.makespan_s >= max(when + length for when, length in arrivals)
    assert figures.most_blocks <= 10
    assert 0 < figures.utilisation <= 1


def test_scaling_out_shortens_a_burst():
    burst = curves()["burst"]
    assert simulate(burst, simple, LIMITS).makespan_s < simulate(burst, none, LIMITS).makespan_s / 4


def test_releasing_single_blocks_wastes_less_on_a_long_tail():
    tail = curves()["long tail"]
    auto, plain = simulate(tail, htex_auto_scale, LIMITS), simulate(tail, simple, LIMITS)
    assert auto.wasted_slot_s < plain.wasted_slot_s / 2
    assert auto.makespan_s == plain.makespan_s


def test_half_the_parallelism_uses_fewer_blocks():
    steps = curves()["steps"]
    half = BlockLimits(init_blocks=1, min_blocks=0, max_blocks=10, parallelism=0.25)
    assert simulate(steps, simple, half).most_blocks < simulate(steps, simple, LIMITS).most_blocks


def test_a_site_without_a_queue_starts_at_once():
    figures = simulate([(0.0, 10.0)], simple, LIMITS, SimulatedCluster(queue_s=0.0, start_s=0.0))
    assert figures.makespan_s == 10.0


def test_the_comparison_is_a_table_of_every_curve_and_strategy():
    rows = compare(LIMITS)
    assert len(table(rows).splitlines()) == 1 + len(rows) == 1 + 3 * len(curves())
