"""The trace of a real workflow, replayed over nodes that share nothing with the script, makes the same files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from machines import Machines, Script

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "wfformat"
TRACE = "1000genome-chameleon-2ch-250k-001.json"
TASKS, FILES = 82, 94
CUT_S = 20
NO_RETRIES = {"retries": 0, "infrastructure_retries": 0}

REPLAY = """
import itertools
from pathlib import Path

import replay  # lies beside the script, and goes to nodes that do not have it
from flow_core.errors import CleanupIncomplete
from flow_executors import ThreadPoolExecutor

TRACE = replay.load_trace(Path("trace.json"))


def replayed(name, scale):
    # Files have their true sizes, but for four that are cut to 10 MB.
    directory, done = Path(name), itertools.count(1)
    directory.mkdir()
    futures = replay.replay(TRACE, directory, scale, 1.0)
    for future in futures.values():
        future.add_done_callback(lambda _: tell(**{name: next(done)}))
    times = {task: future.result(timeout=200) for task, future in futures.items()}
    tell(wrong=replay.violations(TRACE, times))
    return replay.digests(TRACE, directory)


with flow.load(Config(executors=[ThreadPoolExecutor(max_threads=4)], strategy="none")):
    here = replayed("here", 0.0001)
try:
    with flow.load(config("node1", "node2", **OPTIONS)):
        tell(nodes=everywhere(2))
        there = replayed("there", 0.005)
except CleanupIncomplete as error:
    tell(left=str(error))
differ = [name for name in here if here[name] != there[name]]
tell(files=len(set(here.values())), differ=differ, log=open("runinfo/001/flow.log").read())
"""


def begin(machines: Machines, **options: object) -> Script:
    """Start the script; its nodes have these options."""
    machines.write("replay.py", (EXAMPLE / "replay.py").read_text())
    machines.write("trace.json", (EXAMPLE / "traces" / TRACE).read_text())
    return machines.begin(f"OPTIONS = {options!r}\n" + REPLAY)


def until_done(script: Script, count: int) -> None:
    """Wait until so many tasks are done on nodes."""
    while script.told() != {"there": count}:
        pass


def cut_for_a_while(machines: Machines, whose: str) -> None:
    machines.do("cut", whose)
    try:
        time.sleep(CUT_S)
    finally:
        machines.do("heal", whose)


def same(script: Script, killed: bool = False) -> str:
    """Wait until both runs are over; fail unless all their files are the same. Return the log of the run on nodes."""
    told = script.ended(200)
    assert {"nodes": ["node1", "node2"]} in told
    assert {"there": TASKS} in told
    assert [said["wrong"] for said in told if "wrong" in said] == [[], []]
    assert (told[-1]["files"], told[-1]["differ"]) == (FILES, [])
    # The job on a node without power cannot be ended, and that is told.
    assert any("left" in said for said in told) is killed
    return str(told[-1]["log"])


@pytest.mark.slow
@pytest.mark.parametrize("way", [pytest.param("in the open", marks=pytest.mark.soak), "behind a router"])
def test_a_real_workflow_makes_on_nodes_what_it_makes_here(machines: Machines, way: str) -> None:
    machines.start(1, 2)
    if way == "behind a router":
        machines.do("nat", "on")
    log = same(begin(machines, options=NO_RETRIES))
    assert log.count("does not see the run's directory") == 2
    assert [machines.processes(node) for node in (1, 2)] == [[], []]


@pytest.mark.slow
def test_a_real_workflow_on_bare_hosts_makes_what_it_makes_here(machines: Machines) -> None:
    machines.start(1, 2, SM_BARE="1")
    same(begin(machines, options=NO_RETRIES, provider={"worker_init": ""}))


@pytest.mark.slow
def test_a_real_workflow_whose_node_loses_its_power_makes_the_same(machines: Machines) -> None:
    machines.start(1, 2)
    script = begin(machines, heartbeat_period=2, heartbeat_threshold=8)
    until_done(script, 20)
    machines.do("kill", 2)
    assert "on node2 is lost" in same(script, killed=True)
    assert machines.processes(1) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "whose"),
    [
        pytest.param("in the open", "2", marks=pytest.mark.soak),
        pytest.param("in the open", "laptop", marks=pytest.mark.soak),
        pytest.param("behind a router", "2", marks=pytest.mark.soak),
        ("behind a router", "laptop"),
    ],
)
def test_a_real_workflow_whose_link_is_cut_for_a_while_makes_the_same(machines: Machines, way: str, whose: str) -> None:
    machines.start(1, 2)
    if way == "behind a router":
        machines.do("nat", "on")
    script = begin(machines, options=NO_RETRIES)
    until_done(script, 20)
    cut_for_a_while(machines, whose)
    same(script)
    assert [machines.processes(node) for node in (1, 2)] == [[], []]


@pytest.mark.soak
def test_a_real_workflow_behind_a_router_outlives_a_cut_and_then_the_death_of_a_node(machines: Machines) -> None:
    machines.start(1, 2)
    machines.do("nat", "on")
    script = begin(machines, heartbeat_period=2, heartbeat_threshold=30)
    until_done(script, 20)
    cut_for_a_while(machines, "laptop")
    until_done(script, 40)
    machines.do("kill", 1)
    assert "on node1 is lost" in same(script, killed=True)
    assert machines.processes(2) == []
