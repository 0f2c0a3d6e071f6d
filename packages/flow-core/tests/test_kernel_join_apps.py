"""Apps that return futures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from kernel_apps import Load, add, divide, total

import flow_core as flow
from flow_core.errors import DependencyError, JoinError, NotFutureError
from flow_core.testing import MemoryExecutor


@flow.join_app
def fib(n: int) -> Any:
    return add(n, 0) if n < 2 else add(fib(n - 1), fib(n - 2))


@flow.join_app
def countdown(n: int) -> Any:
    return add(0, 0) if n == 0 else countdown(n - 1)


def test_join_apps_compute_recursively(load: Load) -> None:
    load()
    assert fib(7).result(30) == 13


def test_join_apps_nest_a_thousand_deep(load: Load) -> None:
    load()
    assert countdown(1_000).result(40) == 0


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        (lambda: [add(1), add(2)], [2, 3]),
        (lambda: {"a": add(1), "b": [add(2), 5]}, {"a": 2, "b": [3, 5]}),
        (lambda: (add(1), {"k": (add(2),)}), (2, {"k": (3,)})),
        (list, []),
    ],
)
def test_join_apps_return_any_shape(load: Load, shape: Callable[[], Any], wanted: object) -> None:
    load()
    assert flow.join_app(shape)().result(10) == wanted


def test_a_join_app_fails_with_every_cause(load: Load) -> None:
    load()

    @flow.join_app
    def both() -> Any:
        return [divide(1, 0), add(1), total(inputs=["x"])]

    error = both().exception(10)
    assert isinstance(error, JoinError)
    assert {type(e) for e in error.dependent_exceptions} == {ZeroDivisionError, TypeError}
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_its_causes_are_in_the_order_in_which_it_returned_the_futures(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)

    @flow.join_app
    def three() -> Any:
        return [add(number) for number in range(3)]

    future = three()
    keys = executor.wait_submitted(3)
    deadline = time.monotonic() + 10
    while future.task_status() != "joining" and time.monotonic() < deadline:
        time.sleep(0.01)
    errors = [ValueError(str(number)) for number in range(3)]
    for place in (2, 0, 1):
        executor.fail(keys[place], errors[place])
    error = future.exception(10)
    assert isinstance(error, JoinError)
    assert error.dependent_exceptions == errors


@pytest.mark.parametrize("through", [0, 1, 20])
def test_a_join_app_that_would_wait_for_itself_fails_and_says_so(load: Load, through: int) -> None:
    load()
    made: list[Any] = []
    ready = threading.Event()

    @flow.join_app
    def circle() -> Any:
        assert ready.wait(30)
        return [add(1), made[-1]]

    @flow.python_app
    def first(*values: int) -> int:
        return values[0]

    made.append(circle())
    for _ in range(through):
        made.append(first(*([made[-1]] * 10)))
    ready.set()
    error = made[0].exception(10)
    assert isinstance(error, JoinError)
    assert "could ever end" in str(error)
    assert "task 0 (circle)" in str(error)
    assert all(isinstance(future.exception(10), DependencyError) for future in made[1:])


def test_nor_can_it_wait_for_a_part_of_its_own_result(load: Load) -> None:
    load()
    made: list[Any] = []
    ready = threading.Event()

    @flow.join_app
    def circle() -> Any:
        assert ready.wait(30)
        return {"other": add(1)["x"], "own": made[0]["x"][0]}

    made.append(circle())
    ready.set()
    error = made[0].exception(10)
    assert isinstance(error, JoinError)
    assert "its own future" in str(error)


def test_a_join_app_that_returns_no_future_says_so(load: Load) -> None:
    load()
    with pytest.raises(NotFutureError, match="plain"):
        flow.join_app(_plain)().result(10)


def _plain() -> Any:
    return 3


_plain.__name__ = "plain"
