"""Executors that are added to a running kernel."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from kernel_apps import Load, add

import flow_core as flow
from flow_core.errors import ConfigurationError, ExecutorError, KernelClosedError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.executor import ShutdownReport
from flow_core.interfaces.staging import Staging
from flow_core.testing import MemoryExecutor

SCALE = 3


@flow.python_app(executors=["late"])
def on_late(x: int) -> int:
    return x


@flow.python_app
def where(_: object = None) -> tuple[int, int]:
    return os.getpid(), SCALE


def test_an_app_that_names_it_runs_there_once_it_is_added(load: Load) -> None:
    kernel = load(ThreadPoolExecutor("threads"))
    with pytest.raises(ConfigurationError, match="'late'"):
        on_late(1)
    kernel.add_executors([ThreadPoolExecutor("late")])
    assert on_late(1).result(10) == 1
    assert list(kernel.executors) == ["threads", "late"]
    assert [one.label for one in kernel.config.executors] == ["threads", "late"]  # type: ignore[union-attr]


def test_calls_of_all_executors_go_there_too_also_after_earlier_calls(load: Load) -> None:
    one, two = MemoryExecutor("one"), MemoryExecutor("two")
    kernel = load(one, executor_chooser=lambda labels, task: labels[-1])
    first = add(1)
    one.finish(one.wait_submitted(1)[0], 2)
    assert first.result(10) == 2
    kernel.add_executors([two])
    second = add(2)
    two.finish(two.wait_submitted(1)[0], 3)
    assert second.result(10) == 3
    assert not one.waiting


def test_a_task_that_waited_already_may_go_to_another_process(load: Load) -> None:
    gate = threading.Event()

    @flow.python_app(executors=["threads"])
    def wait() -> bool:
        return gate.wait(30)

    kernel = load(ThreadPoolExecutor("threads", 1), executor_chooser=lambda labels, task: labels[-1])
    future = where(wait())
    with ProcessPoolExecutor(1) as pool:
        kernel.add_executors([pool])
        gate.set()
        assert future.result(30) == (pool.submit(os.getpid).result(30), 3)
        kernel.cleanup()


def test_those_that_were_added_are_shut_down_at_the_end(load: Load) -> None:
    kernel, late = load(), Closing("late")
    kernel.add_executors([late])
    future = on_late(1)
    kernel.cleanup()
    assert future.cancelled()
    assert late.closed
    with pytest.raises(KernelClosedError, match="cleaned up"):
        kernel.add_executors([MemoryExecutor("later")])


class Closing(MemoryExecutor):
    closed = False

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        self.closed = True
        return super().shutdown(timeout_s)


class Failing(MemoryExecutor):
    def start(self, context: Any) -> None:
        raise OSError("no room")


WRONG: list[tuple[Any, type[Exception], str]] = [
    ([MemoryExecutor("threads")], ConfigurationError, "label 'threads'"),
    (MemoryExecutor("x"), ConfigurationError, "must be a list"),
    ([5], ConfigurationError, "no executor"),
    ([Failing("bad")], ExecutorError, "'bad' could not be started"),
    ([Closing("fine"), Failing("bad")], ExecutorError, "'bad' could not be started"),
]


@pytest.mark.parametrize(("given", "kind", "told"), WRONG)
def test_what_cannot_be_added_is_refused_and_changes_nothing(
    load: Load, given: Any, kind: type[Exception], told: str
) -> None:
    kernel = load(ThreadPoolExecutor("threads"))
    with pytest.raises(kind, match=told):
        kernel.add_executors(given)
    kernel.add_executors([])
    assert list(kernel.executors) == ["threads"]
    assert add(1).result(10) == 2
    if isinstance(given, list) and len(given) == 2:
        assert given[0].closed


class Refusing(Staging):
    """A staging method of the user's own."""

    def can_stage_in(self, file: flow.File) -> bool:
        return file.scheme == "mine"

    def stage(self, transfers: Any) -> Any:
        raise OSError("no such server")


def test_staging_methods_come_with_it(load: Load) -> None:
    kernel = load()
    kernel.add_executors([ThreadPoolExecutor("late", storage_access=[Refusing()])])

    @flow.python_app(executors=["late"])
    def reads(inputs: list[flow.File]) -> int:
        return len(inputs)

    error = reads(inputs=[flow.File("mine://host/x")]).exception(10)
    assert "no such server" in str(error)
    assert "Refusing" in str(error)


def test_many_calls_while_executors_are_added_all_end(load: Load) -> None:
    kernel = load(ThreadPoolExecutor("threads", 2))
    stop = threading.Event()
    futures: list[Any] = []

    def call() -> None:
        while not stop.is_set() and len(futures) < 20_000:
            futures.append(add(1))

    thread = threading.Thread(target=call)
    thread.start()
    for number in range(5):
        kernel.add_executors([ThreadPoolExecutor(f"more{number}", 1)])
    stop.set()
    thread.join(30)
    assert {future.result(30) for future in futures} <= {2}
    assert set(kernel.executors) == {"threads", *(f"more{n}" for n in range(5))}
