"""Tasks of ranks on two managers of this machine, each of which has the name of a node of its own where that can be."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flow_core.apps.special import task_spec
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors.htex import HighThroughputExecutor
from flow_executors.testing.local_run import interchange_pid, make_executor, run_id_of, wait_gone, wait_until
from flow_providers.local.provider import LocalProvider

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


def own_names() -> bool:
    """Whether processes here can have a host name of their own."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    return subprocess.run(["unshare", "--uts", "hostname", "node1"], capture_output=True, check=False).returncode == 0


NAMED = own_names()


def on_two_nodes(command: str, tasks_per_node: int, nodes_per_block: int) -> str:
    """Launch a manager a node, under a name of its own where that can be."""
    named = "unshare --uts bash -c 'hostname node$0; eval \"$1\"' $number" if NAMED else "bash -c 'eval \"$1\"' $number"
    return (
        f"IFS= read -r -d '' FLOW_COMMAND <<'END_OF_COMMAND' || true\n{command}\nEND_OF_COMMAND\n"
        f'for number in $(seq {nodes_per_block}); do {named} "$FLOW_COMMAND" & done; wait\n'
    )


@pytest.fixture
def two(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Start an executor with one block of two managers that have two workers each; a parameter is its max_blocks."""
    most = getattr(request, "param", 1)
    provider = LocalProvider(init_blocks=1, max_blocks=most, nodes_per_block=2, launcher=on_two_nodes)
    driver = Driver(make_executor(provider=provider), tmp_path, 30.0)
    driver.start()
    try:
        wait_until(lambda: len(executor_of(driver).connected_managers()) == 2, "two managers did not come")
        yield driver
    finally:
        driver.release()
        driver.shutdown()
        wait_gone(run_id_of(driver))


def executor_of(driver: Driver) -> HighThroughputExecutor:
    assert isinstance(driver.executor, HighThroughputExecutor)
    return driver.executor


def ask(driver: Driver, func: Callable[..., object], *args: object, **asked: object) -> TryKey:
    return driver.submit_call(Call(func, args, spec=task_spec("app", None, asked)))


def held(driver: Driver, name: str, **asked: object) -> TryKey:
    key = ask(driver, calls.hold, str(driver.gates), name, **asked)
    driver.wait_held(name)
    return key


def test_a_task_of_two_nodes_has_both_to_itself_while_it_runs(two: Driver) -> None:
    wide = held(two, "wide", nodes=2, ranks_per_node=2)
    narrow = [two.hold(f"narrow{number}") for number in range(2)]
    small = ask(two, calls.double, 2, ranks=1)
    two.executor.flush()
    # The interchange's answer: it has the last of them, and has placed what it would place.
    text = "it needs 1 node of one block at once, for 1 rank: 0 nodes have room for a share now (of 2 of a block)"
    two.poll(lambda: text in [cause.text for cause in two.executor.why_waiting(small)], "it does not wait for a node")
    assert not any((two.gates / f"narrow{number}.started").exists() for number in range(2))
    two.release("wide")
    assert two.outcome(wide).verdict is Verdict.OK
    for number in range(2):
        two.wait_held(f"narrow{number}")
    two.release()
    assert [outcome.verdict for outcome in two.outcomes([*narrow, small])] == [Verdict.OK] * 3


def test_tasks_of_ranks_and_others_fill_both_nodes(two: Driver) -> None:
    keys = [ask(two, calls.double, number, nodes=2, ranks_per_node=1) for number in range(10)]
    keys += [two.submit(calls.double, number) for number in range(50)]
    keys += [ask(two, calls.double, number, ranks=3) for number in range(5)]
    assert {outcome.verdict for outcome in two.outcomes(keys)} == {Verdict.OK}


def manager_pids(driver: Driver) -> set[int]:
    return {manager.pid for manager in executor_of(driver).connected_managers()}


def test_a_killed_member_ends_the_task_as_one_loss_that_names_its_node(two: Driver) -> None:
    wide = held(two, "wide", nodes=2, ranks_per_node=2)
    head = head_of(two, wide)
    (member,) = manager_pids(two) - {head}
    os.kill(member, signal.SIGKILL)
    outcome = two.outcome(wide)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert outcome.loss.kind is LossKind.MANAGER
    assert "where 2 of its 4 ranks were, is lost" in outcome.loss.reason
    if NAMED:
        assert "node node1" in outcome.loss.reason or "node node2" in outcome.loss.reason


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_block_that_has_lost_a_node_is_replaced_for_a_task_of_two_when_what_it_runs_is_over(
    two: Driver, how: signal.Signals
) -> None:
    lose_member(two, how)
    narrow = two.hold("narrow")
    two.wait_held("narrow")
    wide = ask(two, calls.double, 2, nodes=2, ranks_per_node=2)
    text = "has 1 of its 2 managers left: it takes nothing new, and is replaced when what runs there is over"
    two.poll(lambda: any(text in cause.text for cause in two.executor.why_waiting(wide)), "the block is not drained")
    two.release("narrow")
    assert two.outcome(narrow).verdict is Verdict.OK
    assert two.outcome(wide).value == 4


@pytest.mark.parametrize("two", [2], indirect=True)
def test_another_block_comes_beside_one_that_has_lost_a_node_for_a_task_of_two(two: Driver) -> None:
    lose_member(two, signal.SIGKILL)
    narrow = two.hold("narrow")
    two.wait_held("narrow")
    assert two.outcome(ask(two, calls.double, 2, nodes=2, ranks_per_node=2)).value == 4
    two.release("narrow")
    assert two.outcome(narrow).verdict is Verdict.OK


def lose_member(driver: Driver, how: signal.Signals) -> None:
    """Kill or stop the other manager of a task of two nodes, and wait for the end of the task."""
    wide = held(driver, "lost", nodes=2, ranks_per_node=2)
    (member,) = manager_pids(driver) - {head_of(driver, wide)}
    os.kill(member, how)
    assert driver.outcome(wide).verdict is Verdict.LOST


def test_a_killed_head_frees_the_other_node(two: Driver) -> None:
    wide = held(two, "wide", nodes=2, ranks_per_node=2)
    os.kill(head_of(two, wide), signal.SIGKILL)
    assert two.outcome(wide).verdict is Verdict.LOST
    assert two.outcome(two.submit(calls.double, 2)).value == 4


def test_a_running_task_of_two_nodes_is_cancelled_with_its_parts(two: Driver) -> None:
    wide = held(two, "wide", nodes=2, ranks_per_node=2)
    two.executor.cancel([wide], kill=True)
    assert two.outcome(wide).verdict is Verdict.CANCELLED
    again = held(two, "again", nodes=2, ranks_per_node=2)
    two.release()
    assert two.outcome(again).verdict is Verdict.OK


def test_a_task_of_two_nodes_beyond_its_walltime_frees_both(two: Driver) -> None:
    call = Call(calls.hold, (str(two.gates), "late"), spec=task_spec("app", 1.0, {"nodes": 2, "ranks_per_node": 2}))
    outcome = two.outcome(two.submit_call(call))
    assert outcome.verdict is Verdict.APP_ERROR
    assert two.outcome(ask(two, calls.double, 2, nodes=2, ranks_per_node=2)).value == 4


def test_a_killed_interchange_loses_tasks_of_several_nodes_and_keeps_others(two: Driver) -> None:
    wide = held(two, "wide", nodes=2, ranks_per_node=1)
    small = held(two, "small", ranks=1)
    os.kill(interchange_pid(two), signal.SIGKILL)
    outcome = two.outcome(wide)
    assert outcome.verdict is Verdict.LOST
    two.release("small")
    assert two.outcome(small).verdict is Verdict.OK
    two.release()
    assert two.outcome(ask(two, calls.double, 2, nodes=2, ranks_per_node=2)).value == 4


def head_of(driver: Driver, key: TryKey) -> int:
    """Return the pid of the manager where a task runs."""
    texts = [cause.text for cause in driver.executor.why_waiting(key)]
    found = [match for text in texts if (match := re.search(r"manager \S+\.(\d+) of 'htex'.*, with ranks on", text))]
    assert found, texts
    return int(found[0][1])
