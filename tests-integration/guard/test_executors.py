"""Hostile values, exceptions, arguments and callbacks on every kind of executor: only their own task suffers."""

from __future__ import annotations

import concurrent.futures
import logging
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hostile
import pytest

import flow
from flow_core.errors import DependencyError, HookError, RemoteError, SerializationError
from flow_core.executors.futures import FuturesExecutor
from flow_core.futures.callbacks import user_calls
from flow_core.guard import text_of
from flow_executors.htex import HighThroughputExecutor
from flow_executors.llex import LowLatencyExecutor
from flow_providers.local.provider import LocalProvider

SOON_S = 5.0
EXECUTORS = ("threads", "htex", "llex", "pool")


def _pool() -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"))


@pytest.fixture(scope="module", autouse=True)
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[flow.DataFlowKernel]:
    """One run with an executor of each kind, for all tests: each leaves it as it was, which is what they are about."""
    provider = {"init_blocks": 1, "min_blocks": 1, "max_blocks": 1}
    blocks = [
        HighThroughputExecutor("htex", max_workers=1, provider=LocalProvider(**provider)),  # type: ignore[arg-type]
        LowLatencyExecutor("llex", max_workers=1, provider=LocalProvider(**provider)),  # type: ignore[arg-type]
    ]
    executors = [flow.ThreadPoolExecutor("threads", max_threads=1), *blocks, FuturesExecutor("pool", _pool)]
    with flow.load(flow.Config(executors=executors, run_dir=tmp_path_factory.mktemp("runs"))) as loaded:
        for label in EXECUTORS:
            assert on(label, _add)(1).result(50) == 2
        yield loaded


def on(label: str, func: Callable[..., Any]) -> Callable[..., Any]:
    return flow.python_app(func, executors=[label])


def _add(x: int) -> int:
    return x + 1


def _raise(name: str) -> None:
    raise hostile.KINDS[name]("what happened")


def _give(name: str) -> object:
    return hostile.KINDS[name]("a value")


def _after(value: object) -> str:
    return "it ran"


def _others_go_on(label: str) -> None:
    assert [on(each, _add)(1).result(SOON_S) for each in EXECUTORS] == [2] * len(EXECUTORS)
    assert on(label, _add)(2).result(SOON_S) == 3


@pytest.mark.parametrize("label", EXECUTORS)
@pytest.mark.parametrize("name", hostile.KINDS)
def test_a_hostile_exception_is_the_tasks_own_and_reaches_what_depends_on_it(label: str, name: str) -> None:
    future = on(label, _raise)(name)
    dependent = on(label, _after)(future)
    error = future.exception(SOON_S)
    assert type(error) in (hostile.KINDS[name], RemoteError)
    if type(error) is RemoteError:
        assert hostile.KINDS[name].__name__ in str(error)
        assert "what happened" in str(error)
    told = dependent.exception(SOON_S)
    assert type(told) is DependencyError
    assert f"task {future.tid}" in str(told)
    assert "failed with" in str(told)
    _others_go_on(label)


@pytest.mark.parametrize("label", EXECUTORS)
@pytest.mark.parametrize("name", hostile.KINDS)
def test_a_hostile_value_is_a_result_or_an_error_that_names_it(label: str, name: str) -> None:
    future = on(label, _give)(name)
    dependent = on(label, _after)(future)
    error = future.exception(SOON_S)
    if error is None:
        assert type(future.result()) is hostile.KINDS[name]
        told = dependent.exception(SOON_S)
        assert told is None or type(told) in (HookError, SerializationError)
        assert told is None or f"task {dependent.tid} (_after)" in str(told) or "_after" in str(told)
    else:
        assert type(error) is SerializationError
        assert "cannot be pickled" in str(error)
        assert type(dependent.exception(SOON_S)) is DependencyError
    _others_go_on(label)


@pytest.mark.parametrize("label", EXECUTORS)
@pytest.mark.parametrize("name", hostile.KINDS)
def test_a_hostile_argument_reaches_the_task_or_is_named(label: str, name: str) -> None:
    value = hostile.KINDS[name]("an argument")
    try:
        future = on(label, _after)(value)
    except BaseException as error:  # at the call, in the caller's own thread: it looks whether it is a future
        assert text_of(error) == "hostile"  # noqa: PT017
    else:
        error = future.exception(SOON_S)
        assert error is None or "_after" in str(error)
    _others_go_on(label)


@pytest.mark.parametrize("label", EXECUTORS)
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), ValueError("odd")], ids=repr)
def test_what_a_callback_raises_stops_no_result(
    label: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def callback(_future: object) -> None:
        raise error

    future = on(label, _add)(1)
    future.add_done_callback(callback)
    assert future.result(SOON_S) == 2
    _others_go_on(label)
    assert user_calls.drain(SOON_S)
    assert type(error).__name__ in caplog.text
    assert "the callback test_what_a_callback_raises_stops_no_result.<locals>.callback of <AppFuture" in caplog.text


@pytest.mark.parametrize("label", EXECUTORS)
def test_a_callback_that_blocks_or_waits_for_another_task_holds_up_nobody(label: str) -> None:
    release, waited = threading.Event(), concurrent.futures.Future[int]()
    first = on(label, _add)(1)
    first.add_done_callback(lambda _future: release.wait(30))
    first.add_done_callback(lambda _future: waited.set_result(on(label, _add)(5).result(20)))
    try:
        assert waited.result(SOON_S) == 6
        _others_go_on(label)
    finally:
        release.set()


@pytest.mark.parametrize("label", EXECUTORS)
def test_a_hostile_function_is_refused_or_runs_and_nothing_else(label: str) -> None:
    class Call:
        __name__ = "call"

        def __call__(self) -> None:
            sys.exit("the task")

        __bool__ = __len__ = __eq__ = __hash__ = hostile.exits  # type: ignore[assignment]

    try:
        future = on(label, Call())()
    except BaseException as error:  # where it is made an app, in the caller's own thread
        assert text_of(error) == "hostile"  # noqa: PT017
    else:
        assert future.exception(SOON_S) is not None
    _others_go_on(label)


def test_nothing_above_was_a_bug_of_flow(kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture) -> None:
    assert kernel._reactor.bugs == 0
    assert not [record for record in caplog.records if record.levelno >= logging.CRITICAL]
