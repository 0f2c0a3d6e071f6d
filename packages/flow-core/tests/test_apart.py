"""What may hang in code of the user's is known before, and done where it holds up its own task alone."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from kernel_apps import Load

import flow_core as flow
from flow_core.files import File
from flow_core.futures import callbacks
from flow_core.futures.callbacks import hook_calls, packing_calls
from flow_core.graph.plain_data import are_harmless
from flow_core.graph.task import Task
from flow_core.hooks import Handling
from flow_core.kernel import call_dependencies
from flow_core.kernel.isolation import Isolation
from flow_core.testing import MemoryExecutor

SOON_S = 30.0


class Mine:
    """A class of a user's."""


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(plain)
def test_plain_data_is_harmless(value: object) -> None:
    assert are_harmless((value,), {"named": value})


def _inside(data: st.DataObject, value: object) -> object:
    """Hide a value in containers."""
    for _ in range(data.draw(st.integers(0, 4))):
        around: list[Callable[[object], object]] = [
            lambda v: [1, v, "x"],
            lambda v: (v,),
            lambda v: {"key": v, "other": 2},
            lambda v: {("a", 1): [v]},
        ]
        value = data.draw(st.sampled_from(around))(value)
    return value


@given(st.data())
def test_an_object_of_a_users_class_is_found_wherever_it_hides(data: st.DataObject) -> None:
    value = _inside(data, data.draw(st.sampled_from([Mine(), {Mine(): 1}, OrderedDict(), len.__call__, lambda: 1])))
    assert not are_harmless((1, value), {})
    assert not are_harmless((), {"value": value})


@pytest.mark.parametrize(
    "value",
    [
        File("data.txt"),
        np.arange(5000),
        np.float64(1.5),
        datetime.datetime(2020, 1, 1),
        decimal.Decimal("1.5"),
        pathlib.PurePosixPath("/a"),
        uuid.UUID(int=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_of_well_known_types_is_harmless(value: object) -> None:
    assert are_harmless((value, [value]), {})


def test_arrays_of_objects_and_very_long_lists_are_not_taken_for_harmless() -> None:
    circle: list[object] = []
    circle.append(circle)
    for value in (np.array([Mine()], dtype=object), [0] * 5000, [[0] * 600, [0] * 600], circle):
        assert not are_harmless((value,), {})


class Hangs:
    """Work that does not end before it is told to."""

    def __init__(self) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.begun.set()
        self.gate.wait(SOON_S)


def _task() -> Any:
    return object.__new__(Task)


def test_work_for_a_call_that_is_being_made_is_done_by_the_caller_after_all_else() -> None:
    apart, task, done = Isolation(), _task(), list[object]()

    def bring() -> None:
        apart.do(task, _handling(task), lambda: done.append(threading.current_thread()), done.append)
        done.append("brought")

    apart.during_call(task, bring)
    assert done == ["brought", threading.current_thread()]


def test_work_that_follows_from_such_is_done_by_the_caller_too() -> None:
    apart, task, done = Isolation(), _task(), list[object]()

    def first() -> None:
        apart.do(task, _handling(task), lambda: done.append(threading.current_thread()), done.append)

    apart.during_call(task, lambda: apart.do(task, _handling(task), first, done.append))
    assert done == [threading.current_thread()]


def test_work_for_other_tasks_that_a_call_comes_by_is_not_done_by_the_caller() -> None:
    apart, task, other, hangs = Isolation(), _task(), _task(), Hangs()
    apart.during_call(task, lambda: apart.do(other, _handling(other), hangs, lambda _error: None))
    try:
        assert hangs.begun.wait(SOON_S)
        assert hangs.thread is not threading.current_thread()
    finally:
        hangs.gate.set()


def test_work_that_hangs_holds_up_none_of_other_tasks() -> None:
    apart, hangs, done = Isolation(), Hangs(), threading.Event()
    try:
        for work in (hangs, done.set):
            task = _task()
            apart.do(task, _handling(task), work, lambda _error: None)
        assert done.wait(SOON_S)
    finally:
        hangs.gate.set()


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_work_raises_is_given_to_its_task(here: bool, kind: type[BaseException]) -> None:
    apart, task = Isolation(), _task()
    failed: list[BaseException] = []
    told = threading.Event()

    def work() -> None:
        raise kind("no") from None

    def fail(error: BaseException) -> None:
        failed.append(error)
        told.set()

    def bring() -> None:
        apart.do(task, _handling(task), work, fail)

    if here and kind is not KeyboardInterrupt:  # which on the main thread is that of a signal
        apart.during_call(task, bring)
    else:
        bring()
    assert told.wait(SOON_S)
    assert [type(error) for error in failed] == [kind]


def test_a_caller_that_is_interrupted_leaves_the_work_to_others() -> None:
    apart, task, done = Isolation(), _task(), threading.Event()

    def work() -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        done.set()

    with pytest.raises(KeyboardInterrupt):
        apart.during_call(task, lambda: apart.do(task, _handling(task), work, lambda _error: None))
    assert done.wait(SOON_S)


def _handling(task: object) -> Handling:
    return Handling(task, "the packing of", "arguments", " for executor 'x'")


@pytest.mark.parametrize("value", [1, [object], {"a": pathlib.Path}])
def test_an_executor_of_the_users_whose_submit_hangs_holds_up_its_own_tasks(load: Load, value: object) -> None:
    hangs = Hangs()

    class Bad(MemoryExecutor):
        def submit(self, *given: Any) -> None:
            hangs()
            super().submit(*given)

    good, bad = MemoryExecutor("good"), Bad("bad")
    load(good, bad)
    try:
        victim = flow.python_app(lambda x: x, executors=["bad"])(value)  # returns
        assert hangs.begun.wait(SOON_S)
        other = flow.python_app(lambda x: x, executors=["good"])(2)
        good.finish(good.waiting[0], 2)
        assert other.result(SOON_S) == 2
        assert "executor " in victim.why().line
        assert "Bad.submit() is called for it since" in victim.why().line
        assert victim.cancel()
    finally:
        hangs.gate.set()
    assert packing_calls.drain(SOON_S)
    assert not bad.waiting  # what it took too late is taken back


@pytest.mark.parametrize("value", [1, [2], "given"])
def test_a_chooser_that_hangs_is_named_and_holds_up_its_task_and_not_the_call(
    value: object, load: Load, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "_TOLD_S", 0.3)
    hangs = Hangs()

    def choose(labels: list[str], _task: object) -> str:
        hangs()
        return labels[0]

    one = MemoryExecutor("one")
    load(one, MemoryExecutor("other"), executor_chooser=choose)
    victim = flow.python_app(lambda x: x)(value)  # returns
    try:
        assert hangs.begun.wait(SOON_S)
        until = time.monotonic() + SOON_S
        while not any("executor_chooser" in line and "has not returned" in line for line in caplog.messages):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert "choose() is called for it since" in victim.why().line
        other = flow.python_app(lambda x: x, executors=["one"])(2)
        one.finish(one.waiting[0], 2)
        assert other.result(SOON_S) == 2
    finally:
        hangs.gate.set()
    assert hook_calls.drain(SOON_S)
    assert one.waiting


@pytest.mark.parametrize("way", ["returns", "futures", "raises", "times out"])
def test_a_dependency_resolver_that_does_not_return_holds_up_its_own_task_and_not_the_call(
    load: Load, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(call_dependencies, "_SEARCH_S", 0.1)
    hangs, parent = Hangs(), Future[int]()

    def resolver(value: object, result: Any) -> object:
        if value == ["slow"]:
            hangs()
            if way == "raises":
                raise ValueError("no")
            return result(parent) if way == "futures" else value
        return result(value) if isinstance(value, Future) else value

    executor = MemoryExecutor("one")
    load(executor, dependency_resolver=resolver, hook_timeout=0.5 if way == "times out" else 60)
    try:
        victim = flow.python_app(lambda x: x)(["slow"])  # returns
        assert hangs.begun.wait(SOON_S)
        other = flow.python_app(lambda x: x)([2])
        executor.finish(executor.wait_submitted(1)[0], 2)
        assert other.result(SOON_S) == 2
        if way == "times out":
            assert "has not returned for 0.5 s (hook_timeout)" in str(victim.exception(SOON_S))
        else:
            assert "dependency_resolver " in victim.why().line
            assert "() is called for it since" in victim.why().line
    finally:
        hangs.gate.set()
    assert hook_calls.drain(SOON_S)
    if way == "raises":
        assert "raised ValueError: no" in str(victim.exception(SOON_S))
    elif way != "times out":
        if way == "futures":
            assert not executor.waiting
            parent.set_result(3)
        executor.finish(executor.wait_submitted(2)[1], 4)
        assert victim.result(SOON_S) == 4
