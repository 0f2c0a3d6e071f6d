"""Failures of apps: types, causes, dependents, retries."""

from __future__ import annotations

import math
import pickle
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from kernel_apps import Load, add, divide, total

import flow_core as flow
from flow_core.errors import AppTimeout, BashExitFailure, DeadlockError, DependencyError, HookError, JoinError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.futures.app_future import AppFuture
from flow_core.testing import MemoryExecutor


def test_an_exception_keeps_its_type(load: Load) -> None:
    load()
    with pytest.raises(ZeroDivisionError):
        divide(1, 0).result(10)


def test_the_root_cause_reaches_a_thousand_levels(load: Load) -> None:
    load()
    future: Any = divide(1, 0)
    for _ in range(1_000):
        future = add(future)
    error = future.exception(20)
    assert isinstance(error, DependencyError)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "ZeroDivisionError" in str(error)
    assert future.task_status() == "dep_fail"


def test_other_branches_go_on_and_all_causes_are_named(load: Load) -> None:
    load()
    bad, worse, good = divide(1, 0), total(inputs=["x"]), add(1)
    join = total(inputs=[bad, good, worse])
    error = join.exception(10)
    assert isinstance(error, DependencyError)
    assert {type(e) for e in error.dependent_exceptions} == {ZeroDivisionError, TypeError}
    assert add(good).result(10) == 3


@pytest.mark.parametrize("way", ["arguments", "inputs", "keywords", "many", "resolver"])
def test_causes_are_in_the_order_of_the_arguments_not_of_the_failing(load: Load, way: str) -> None:
    executor = MemoryExecutor("memory")
    load(executor, dependency_resolver=_own_resolver if way == "resolver" else None)
    parents = [add(number) for number in range(12 if way == "many" else 3)]
    if way == "inputs":
        child = total(inputs=parents)
    elif way == "keywords":
        child = take(b=parents[0], a=parents[1], c=parents[2])
    else:
        child = take(*parents)
    errors = [ValueError(str(number)) for number in range(len(parents))]
    keys = list(executor.waiting)
    for place in [2, 0, 1, *range(3, len(parents))]:
        executor.fail(keys[place], errors[place])
    failure = child.exception(10)
    assert isinstance(failure, DependencyError)
    assert failure.dependent_exceptions == errors
    assert failure.__cause__ is errors[0]
    told = [(one.exception, one.task_id, one.who, one.root_task_id) for one in failure.dependent_failures]
    assert told == [(errors[n], n, f"task {n} (add)", n) for n in range(len(parents))]


@flow.python_app
def take(*args: object, **kwargs: object) -> None:
    return None


def _own_resolver(value: object, result: Callable[[Any], object]) -> object:
    return result(value) if isinstance(value, AppFuture) else value


def test_of_a_dependency_that_was_not_run_either_the_task_that_really_failed_is_known(load: Load) -> None:
    load()
    bad = divide(1, 0)
    foreign: Future[float] = Future()
    foreign.set_exception(ValueError("foreign"))
    error = total(inputs=[add(bad), bad, foreign]).exception(10)
    assert isinstance(error, DependencyError)
    told = [(type(one.exception).__name__, one.task_id, one.root_task_id) for one in error.dependent_failures]
    zero = "ZeroDivisionError"
    assert told == [(zero, bad.tid + 1, bad.tid), (zero, bad.tid, bad.tid), ("ValueError", None, None)]
    copy = pickle.loads(pickle.dumps(error))
    assert [one.task_id for one in copy.dependent_failures] == [one.task_id for one in error.dependent_failures]


def test_a_join_tells_which_of_its_futures_failed(load: Load) -> None:
    load()

    @flow.join_app
    def parts() -> Any:
        return [add(1), divide(1, 0), add(divide(2, 0))]

    error = parts().exception(10)
    assert isinstance(error, JoinError)
    assert [(one.task_id, one.root_task_id) for one in error.dependent_failures] == [(2, 2), (4, 3)]


def test_retries_are_made_and_only_the_last_failure_is_seen(load: Load) -> None:
    load(retries=2)
    tries: list[int] = []

    @flow.python_app
    def flaky(good_at: int) -> int:
        tries.append(1)
        if len(tries) < good_at:
            raise ValueError(f"try {len(tries)}")
        return len(tries)

    assert flaky(3).result(10) == 3
    tries.clear()
    with pytest.raises(ValueError, match="try 3"):
        flaky(9).result(10)


def test_a_retry_handler_prices_failures(load: Load) -> None:
    def handler(error: BaseException, task: Any) -> float:
        return 0.0 if isinstance(error, KeyError) else 10.0

    load(retries=1, retry_handler=handler)
    tries: list[int] = []

    @flow.python_app
    def fail(kind: type[Exception]) -> None:
        tries.append(1)
        if len(tries) < 5 or kind is ValueError:
            raise kind(len(tries))

    assert fail(KeyError).result(10) is None
    assert len(tries) == 5
    with pytest.raises(ValueError, match="6"):
        fail(ValueError).result(10)


def _exits(error: BaseException, task: Any) -> float:
    sys.exit(3)


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (lambda error, task: {}["key"], "raised KeyError: 'key'"),
        (_exits, "raised SystemExit: 3"),
        (lambda error, task: -1, "returned -1, which is no cost of 0 or more"),
        (lambda error, task: math.nan, "returned nan"),
        (lambda error, task: "1", "returned '1'"),
        (lambda error, task: None, "raised TypeError"),
    ],
)
def test_a_retry_handler_that_fails_fails_the_task_and_is_named(load: Load, handler: Any, told: str) -> None:
    kernel = load(retries=3, retry_handler=handler)
    error = divide(1, 0).exception(10)
    assert isinstance(error, HookError)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "task 0 (divide) failed with ZeroDivisionError: division by zero and was not tried again" in str(error)
    assert told in str(error)
    assert "retry_handler" in error.hook
    assert kernel.summary().failed == 1
    assert divide(4, 2).result(10) == 2


def test_a_retry_handler_that_takes_long_holds_up_no_other_task(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, retries=1, retry_handler=lambda error, task: float(release.wait(30)))
    release = threading.Event()
    slow, quick = divide(1, 0), divide(4, 2)
    executor.run_all()
    assert quick.result(10) == 2
    assert not slow.done()
    release.set()
    executor.wait_submitted(3)
    executor.run_all()
    assert isinstance(slow.exception(10), ZeroDivisionError)


def test_eager_errors_end_what_is_not_out_and_refuse_new_calls(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, lazy_errors=False)
    failing, running, waiting = divide(1, 0), add(1), add(add(2))
    executor.run(executor.waiting[0])
    assert isinstance(failing.exception(10), ZeroDivisionError)
    assert isinstance(waiting.exception(10), DependencyError)
    with pytest.raises(DependencyError, match="lazy_errors=False"):
        add(5)
    executor.run_all()
    assert running.result(10) == 2


def test_a_walltime_names_the_task_and_the_limit(load: Load) -> None:
    load(MemoryExecutor("memory", slots=1), ThreadPoolExecutor(label="threads", max_threads=1))

    @flow.python_app
    def forever() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            time.sleep(0.005)

    @flow.bash_app
    def sleep() -> str:
        return "sleep 30"

    for label in ("memory", "threads"):
        for app in (forever, sleep):
            future = app.options(walltime=0.05, executors=[label])()
            with pytest.raises(AppTimeout) as caught:
                future.result(20)
            name = app.__name__
            limit = "ran longer than its walltime of 0.05 s and was stopped"
            assert str(caught.value) == f"task {future.tid} ({name}) {limit}"
            assert caught.value.walltime_s == 0.05


def test_a_timeout_that_a_task_raised_itself_is_left_alone(load: Load) -> None:
    load(MemoryExecutor("memory", slots=1))

    @flow.python_app
    def late() -> None:
        raise AppTimeout("the app of mine was late")

    with pytest.raises(AppTimeout, match=r"^the app of mine was late$"):
        late().result(20)


def test_a_deadlock_is_not_tried_again(load: Load) -> None:
    kernel = load(retries=5)
    tries: list[int] = []

    @flow.python_app
    def waits_for_itself() -> None:
        tries.append(1)
        raise DeadlockError("it waits for itself")

    assert isinstance(waits_for_itself().exception(20), DeadlockError)
    assert tries == [1]
    assert kernel.summary().failed == 1


@pytest.mark.parametrize("retries", [0, 2])
def test_the_last_failure_of_a_command_tells_how_often_it_was_tried_again(load: Load, retries: int) -> None:
    load(retries=retries)

    @flow.bash_app
    def fail() -> str:
        return "exit 7"

    error = fail().exception(20)
    assert isinstance(error, BashExitFailure)
    assert (error.exitcode, error.retries) == (7, retries)
    assert error.reason == str(error)
