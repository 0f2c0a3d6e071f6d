"""Failures that nobody looked at: what counts as a look, what is told of them, and when."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from kernel_apps import Load, add, divide

import flow_core as flow
from flow_core.errors import ConfigurationError, DependencyError, UnseenFailures
from flow_core.futures.unseen import FailureLedger, LookedAt
from flow_core.kernel import unseen
from flow_core.testing import MemoryExecutor


@flow.python_app
def fail(text: str = "no") -> Any:
    raise ValueError(text)


@flow.python_app
def make_badly(outputs: list[flow.File]) -> None:
    raise ValueError("no file")


@flow.join_app
def join(future_of: Callable[[], Any]) -> Any:
    return future_of()


def test_the_log_has_a_traceback_for_each_kind_that_is_told_of(tmp_path: Path) -> None:
    with flow.load(flow.Config(run_dir=str(tmp_path))) as kernel:
        futures = [fail("first"), fail("second"), make_badly(outputs=[]), divide(1, 0)]
        concurrent.futures.wait(futures, 30)
        run_dir = kernel.run_dir
    unseen._runs.clear()
    log = (run_dir / "flow.log").read_text()
    assert log.count("Traceback (most recent call last)") == 2
    assert "(fail) failed first with ValueError:" in log
    assert "raise ValueError(text)" in log
    assert "(divide) failed first with ZeroDivisionError:" in log
    assert "kernel.py" not in log


async def _await(future: Any) -> None:
    with pytest.raises(ValueError, match="no"):
        await future


def _raises(future: Any) -> None:
    with pytest.raises(ValueError, match="no"):
        future.result(10)


LOOKS: dict[str, Callable[[Any], object]] = {
    "result": _raises,
    "exception": lambda future: future.exception(10),
    "await": lambda future: asyncio.run(_await(future)),
    "a callback": lambda future: future.add_done_callback(lambda _: None),
    "a callback of a part": lambda future: future[0].add_done_callback(lambda _: None),
    "a part of the result": lambda future: future["key"].exception(10),
    "a part of a part": lambda future: future.name[0].exception(10),
    "a dependent": lambda future: add(future).exception(10),
    "a dependent's dependent": lambda future: add(add(future)).exception(10),
    "a dependent on a part": lambda future: add(future[0]).exception(10),
    "a join app": lambda future: join(lambda: future).exception(10),
    "one of many parents": lambda future: add(future, fail()).exception(10),
}
GLANCES: dict[str, Callable[[Any], object]] = {
    "nothing": lambda future: None,
    "done": lambda future: future.done(),
    "repr": repr,
    "wait": lambda future: concurrent.futures.wait([future], 10),
    "as_completed": lambda future: list(concurrent.futures.as_completed([future], 10)),
    "map": lambda future: list(flow.map(lambda one: one, [future])),
    "unordered map": lambda future: list(flow.map(lambda one: one, [future], ordered=False)),
    "a part that nobody looks at": lambda future: future[0],
    "a dependent that nobody looks at": lambda future: add(add(future)),
    "cancel": lambda future: future.cancel(),
}


def _count(kernel: Any) -> int:
    return int(kernel._parts.unseen.ledger.count)


@pytest.mark.parametrize("when", ["before the failure", "after it"])
@pytest.mark.parametrize("way", LOOKS)
def test_what_counts_as_a_look(load: Load, way: str, when: str) -> None:
    kernel = load()
    future = fail()
    if when == "after it":
        kernel.wait_for_current_tasks()
        assert _count(kernel) == 1
    LOOKS[way](future)
    kernel.wait_for_current_tasks()
    assert _within(lambda: _count(kernel) == 0)
    assert kernel._parts.unseen is not None
    assert kernel._parts.unseen.ledger.dependents == 0


def _within(true: Callable[[], bool]) -> bool:
    """Wait for what a callback does, which may come a moment after the wait for its future is over."""
    for _ in range(1000):
        if true():
            return True
        concurrent.futures.wait([concurrent.futures.Future()], 0.01)
    return False


@pytest.mark.parametrize("way", GLANCES)
def test_what_does_not(load: Load, way: str) -> None:
    kernel = load()
    future = fail()
    kernel.wait_for_current_tasks()
    GLANCES[way](future)
    kernel.wait_for_current_tasks()
    assert _count(kernel) == 1
    future.exception(10)
    assert _count(kernel) == 0


def test_a_file_that_was_not_made_tells_of_its_task(load: Load, tmp_path: Path) -> None:
    kernel = load()
    future = make_badly(outputs=[flow.File(str(tmp_path / "out"))])
    dependent = add(future.outputs[0])
    kernel.wait_for_current_tasks()
    assert _count(kernel) == 1
    dependent.exception(10)
    assert _count(kernel) == 0
    future = make_badly(outputs=[flow.File(str(tmp_path / "out"))])
    kernel.wait_for_current_tasks()
    future.outputs[0].exception(10)
    assert _count(kernel) == 0


def test_a_failure_of_a_future_of_others_is_that_of_the_task_that_was_not_run(load: Load) -> None:
    kernel = load()
    foreign: concurrent.futures.Future[int] = concurrent.futures.Future()
    foreign.set_exception(KeyError("from elsewhere"))
    future = add(foreign)
    kernel.wait_for_current_tasks()
    assert _count(kernel) == 1
    future.exception(10)
    assert _count(kernel) == 0


def test_cancelled_tasks_and_their_dependents_are_no_failures(load: Load) -> None:
    kernel = load(MemoryExecutor("memory"))
    future = add(1)
    add(future)
    future.cancel()
    add(2)
    kernel.cleanup()
    assert _count(kernel) == 0


def test_an_eager_error_that_the_next_call_raises_was_seen(load: Load) -> None:
    kernel = load(lazy_errors=False)
    fail()
    kernel.wait_for_current_tasks()
    with pytest.raises(DependencyError):
        add(1)
    assert _count(kernel) == 0


def test_the_text_counts_kinds_and_shows_one_of_each_that_is_unseen(load: Load) -> None:
    kernel = load()
    futures = [fail("bad 0"), fail("bad 1"), divide(1, 0)]
    add(futures[2])
    kernel.wait_for_current_tasks()
    futures[0].exception(10)
    told = kernel._parts.unseen
    assert told is not None
    assert _within(lambda: told.text().count("such as") == 2)
    assert told.text().splitlines() == [
        f"2 tasks failed and nobody looked (1 more could not be run because of that); see {kernel.run_dir}/flow.log",
        "  1 x ValueError, such as task 1 (fail): ValueError: bad 1",
        "  1 x ZeroDivisionError, such as task 2 (divide): ZeroDivisionError: division by zero",
    ]
    flow.clear()
    assert "2 tasks failed and nobody looked" in (kernel.run_dir / "flow.log").read_text()


def _leave_with_a_failure(load: Load, error: BaseException | None = None) -> None:
    with load(unseen_failures="raise") as kernel:
        fail()
        kernel.wait_for_current_tasks()
        if error is not None:
            raise error


def test_raise_raises_where_the_run_ends_and_once(load: Load) -> None:
    with pytest.raises(UnseenFailures, match="1 task failed and nobody looked") as caught:
        _leave_with_a_failure(load)
    assert caught.value.count == 1
    assert "ValueError: no" in caught.value.examples[0]
    kernel = load(unseen_failures="raise")
    fail()
    kernel.wait_for_current_tasks()
    with pytest.raises(UnseenFailures):
        flow.clear()
    assert not kernel.is_open
    kernel.cleanup()


def test_raise_does_not_hide_what_is_being_raised(load: Load) -> None:
    with pytest.raises(KeyError, match="the script's own"):
        _leave_with_a_failure(load, KeyError("the script's own"))
    unseen._runs.clear()  # else the tests would end with exit code 1


def test_an_unknown_mode_is_refused_with_advice() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'report'"):
        flow.Config(unseen_failures="reports")  # type: ignore[arg-type]  # the point of the test


_SCRIPT = """
import atexit, sys

atexit.register(lambda: print("an earlier handler"))
import flow_core as flow

@flow.python_app
def fail(number):
    raise ValueError(f"bad {number}")

mode, how = sys.argv[1:]
flow.load(flow.Config(unseen_failures=mode))
futures = [fail(number) for number in range(3)]
flow.dfk().wait_for_current_tasks()
if how == "cleared":
    flow.clear()
if how == "seen at last":
    flow.clear()
    [future.exception() for future in futures]
if how == "broken":
    futures[0].result()
"""


@pytest.mark.parametrize(
    ("mode", "how", "count", "code"),
    [
        ("report", "plain", 3, 0),
        ("report", "cleared", 3, 0),
        ("report", "seen at last", 0, 0),
        ("report", "broken", 2, 1),
        ("raise", "plain", 3, 1),
        ("raise", "cleared", 3, 1),
        ("ignore", "plain", 0, 0),
    ],
)
def test_a_script_tells_at_its_end(tmp_path: Path, mode: str, how: str, count: int, code: int) -> None:
    command = [sys.executable, "-c", _SCRIPT, mode, how]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout == "an earlier handler\n"
    assert done.stderr.count("nobody looked") == bool(count)
    if count:
        assert f"{count} tasks failed and nobody looked" in done.stderr
        assert f"{count} x ValueError, such as task" in done.stderr
        assert os.path.join("runinfo", "000", "flow.log") in done.stderr


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 3))))
def test_the_ledger_counts_right_and_keeps_little(events: list[tuple[str, bool, int]]) -> None:
    ledger = FailureLedger()
    model: dict[str, int] = {}
    marks: list[tuple[str, LookedAt, int]] = []
    dependents = 0
    for number, (kind, new, many) in enumerate(events):
        if new or not marks:
            mark = ledger.failed(number, kind)
            mark.describe("a line")
            marks.append((kind, mark, many))
            model[kind] = model.get(kind, 0) + 1
            for _ in range(many):
                ledger.depends([mark])
            dependents += many
        else:
            kind, mark, with_it = marks.pop(number % len(marks))
            mark.see()
            mark.see()
            model[kind] -= 1
            dependents -= with_it
        assert {kind.name: kind.count for kind in ledger.shown()} == {k: n for k, n in model.items() if n}
        assert ledger.count == sum(model.values())
        assert ledger.dependents == dependents
        assert all(len(kind.samples) <= 5 for kind in ledger.kinds.values())


def test_kinds_are_bounded_too() -> None:
    ledger = FailureLedger()
    marks = [ledger.failed(number, f"Kind{number}") for number in range(1000)]
    assert len(ledger.kinds) <= 101
    assert ledger.count == 1000
    for mark in marks:
        mark.see()
    assert ledger.count == 0
