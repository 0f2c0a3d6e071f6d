"""What a task is told of the end of its block, without any signal."""

from __future__ import annotations

import subprocess

import pytest

from flow_core.errors import AppException, BashExitFailure, Requeue
from flow_core.interfaces.call import NodeContext, TaskSpec
from flow_core.remote import run as remote_run
from flow_core.remote.bash import BashStep
from flow_core.remote.block_end import block_is_ending, on_block_end, run_told, tell, with_callbacks_of
from flow_core.remote.run import execute

TOLD = TaskSpec(warn_before_end_s=5.0)


@pytest.fixture
def acknowledged() -> list[str]:
    return []


@pytest.fixture
def in_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_run, "_worker", 1)


def run(func: object, acknowledged: list[str], *steps: BashStep) -> object:
    """Run a function as a worker runs the function of a task that is to be told."""
    where = NodeContext(main_thread=True)

    def call() -> object:
        return execute(with_callbacks_of(func), (), {}, TOLD, steps, where)  # type: ignore[arg-type]  # callable

    return run_told(call, lambda: acknowledged.append("told"))


def test_callbacks_are_called_once_in_their_order(acknowledged: list[str]) -> None:
    called = []

    def task() -> str:
        on_block_end(lambda: called.append("first"))
        on_block_end(lambda: called.append("second"))
        assert not block_is_ending()
        tell()
        tell()
        assert block_is_ending()
        on_block_end(lambda: called.append("late"))
        return "done"

    assert run(task, acknowledged) == "done"
    assert called == ["first", "second", "late"]
    assert acknowledged == ["told"]
    assert not block_is_ending()


def test_requeue_knows_whether_its_task_was_told(acknowledged: list[str]) -> None:
    def told() -> None:
        tell()
        raise Requeue("later")

    def untold() -> None:
        raise Requeue("later")

    for task, expected in ((told, True), (untold, False)):
        with pytest.raises(Requeue) as raised:
            run(task, acknowledged)
        assert raised.value.told is expected


def test_what_a_callback_raises_is_raised_in_the_task(acknowledged: list[str]) -> None:
    def task() -> None:
        def save() -> None:
            raise OSError("the disk is full")

        on_block_end(save)
        tell()

    with pytest.raises(OSError, match="the disk is full"):
        run(task, acknowledged)


def test_callbacks_are_given_up_when_the_function_has_ended(acknowledged: list[str]) -> None:
    called: list[str] = []

    class Afterwards:
        """A step that is told after the function."""

        def run(self, inner: object, where: NodeContext) -> object:
            """Run, then tell."""
            value = inner()  # type: ignore[operator]
            tell()
            return value

    def task() -> str:
        on_block_end(lambda: called.append("too late"))
        return "done"

    assert run(task, acknowledged, Afterwards()) == "done"  # type: ignore[arg-type]  # a step
    assert called == []


def test_outside_of_workers_no_block_ends() -> None:
    on_block_end(lambda: None)
    tell()
    assert not block_is_ending()


@pytest.mark.usefixtures("in_worker")
def test_a_task_that_did_not_ask_cannot_wait_to_be_told() -> None:
    with pytest.raises(AppException, match="give its app warn_before_end_s"):
        on_block_end(lambda: None)


def test_a_command_that_is_to_begin_at_the_end_of_its_block_does_not(acknowledged: list[str], tmp_path: object) -> None:
    def command() -> str:
        tell()
        return f"touch {tmp_path}/begun"

    with pytest.raises(Requeue, match="when its command was to begin") as raised:
        run(command, acknowledged, BashStep("app", warn_signal=15))
    assert raised.value.told
    assert subprocess.run(["ls", str(tmp_path)], capture_output=True, timeout=10, check=True).stdout == b""


def test_the_exit_code_is_one_like_others_to_a_command_that_was_not_told(acknowledged: list[str]) -> None:
    with pytest.raises(BashExitFailure) as raised:
        run(lambda: "exit 85", acknowledged, BashStep("app", warn_signal=15))
    assert raised.value.exitcode == 85
    assert "would be run again" not in str(raised.value)
