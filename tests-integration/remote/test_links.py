"""Cuts and deaths between a laptop and nodes that share nothing with it: no task is lost, and nothing is left."""

from __future__ import annotations

import time

import pytest
from machines import Machines, wait_until

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

CUT_S = 20


def test_tasks_run_on_all_nodes(machines: Machines) -> None:
    machines.start(1, 2)
    said = machines.run('with flow.load(config("node1", "node2")):\n    tell(nodes=everywhere(2))\n')
    assert said == [{"nodes": ["node1", "node2"]}]
    assert [machines.processes(node) for node in (1, 2)] == [[], []]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["htex", pytest.param("llex", marks=pytest.mark.soak)])
def test_a_link_that_is_cut_for_a_while_costs_no_task(machines: Machines, kind: str) -> None:
    machines.start(1, 2)
    script = machines.begin(
        f"""
with flow.load(config("node1", "node2", kind={kind!r}, options={{"retries": 0, "infrastructure_retries": 0}})):
    tell(nodes=everywhere(2))
    naps = [nap(0.5) for _ in range(40)]
    naps[0].result(timeout=50)
    tell(begun=True)
    tell(done=len([one.result(timeout=100) for one in naps]))
"""
    )
    assert script.told() == {"nodes": ["node1", "node2"]}
    script.told()
    machines.do("cut", 2)
    try:
        time.sleep(CUT_S)
    finally:
        machines.do("heal", 2)
    assert script.ended()[-1] == {"done": 40}


LONG = """
with flow.load(config("node1", "node2", heartbeat_period=2, heartbeat_threshold=8)):
    everywhere(2)
    naps = [nap(300) for _ in range(4)]
    while sum(one.task_status() == "running" for one in naps) < 4:
        time.sleep(0.1)
    tell(begun=True)
    naps[0].result()
"""


def test_nothing_of_a_script_that_is_killed_is_left_on_nodes(machines: Machines) -> None:
    machines.start(1, 2)
    script = machines.begin(LONG)
    script.told()
    assert all(machines.processes(node) for node in (1, 2))
    script.kill()
    wait_until(lambda: not any(machines.processes(node) for node in (1, 2)), "managers do not end")


@pytest.mark.slow
def test_nothing_of_a_laptop_that_lost_its_power_is_left_on_nodes(machines: Machines) -> None:
    machines.start(1, 2)
    script = machines.begin(LONG)
    script.told()
    machines.power_off()
    wait_until(lambda: not any(machines.processes(node) for node in (1, 2)), "managers do not end")


AWAY = """
with flow.load(config("node1", options={"infrastructure_retries": 0}, heartbeat_period=1, heartbeat_threshold=90)):
    one = nap(25)
    while one.task_status() != "running":
        time.sleep(0.1)
    tell(begun=str(one.why()))
    end = time.monotonic() + 60
    while "the link is down" not in str(one.why()) and time.monotonic() < end:
        time.sleep(0.2)
    tell(why=str(one.why()))
    tell(done=one.result(timeout=90))
"""


@pytest.mark.slow
def test_a_task_beyond_a_link_that_is_down_is_not_said_to_run(machines: Machines) -> None:
    machines.start(1)
    script = machines.begin(AWAY)
    assert " is running" in str(script.told()["begun"])
    machines.do("cut", 1)
    try:
        why = str(script.told()["why"])
    finally:
        machines.do("heal", 1)
    assert "ran when its node was last heard of" in why
    assert "the link is down, or the node is" in why
    assert "node node1" in why
    assert " is running" not in why
    assert script.ended(120)[-1] == {"done": "node1"}
