"""Threads of a pool that do not come back from a report: they are not idle, and others work in their place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kernel_apps import Load, add

import flow_core as flow
from flow_core.errors import AppTimeout
from flow_core.executors.threads import ThreadPoolExecutor

pytestmark = pytest.mark.timeout(60)


@flow.python_app
def fail() -> None:
    raise ValueError("this one fails")


class NoLock:
    """Stands in the place of a handler's lock, so that several threads hang in it at once."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class Hanging(logging.Handler):
    """A handler of the user's that does not return for what the given tasks have failed with."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = threading.Semaphore(0)
        self.go_on = threading.Event()

    def createLock(self) -> None:  # noqa: N802  # the name is logging's
        self.lock: Any = NoLock()

    def emit(self, record: logging.LogRecord) -> None:
        if "this one fails" in record.getMessage():
            self.hangs.release()
            self.go_on.wait(30)


@pytest.fixture
def handler() -> Iterator[Hanging]:
    hanging = Hanging()
    logging.getLogger("flow").addHandler(hanging)
    yield hanging
    hanging.go_on.set()
    logging.getLogger("flow").removeHandler(hanging)


def test_a_thread_that_hangs_in_its_report_is_not_taken_for_idle(load: Load, handler: Hanging) -> None:
    load(ThreadPoolExecutor(max_threads=2))
    fail()
    assert handler.hangs.acquire(timeout=20)

    assert add(1).result(20) == 2


def test_others_work_in_the_place_of_threads_that_hang_in_their_reports(load: Load, handler: Hanging) -> None:
    kernel = load(ThreadPoolExecutor(max_threads=2))
    failing = [fail(), fail()]
    assert all(handler.hangs.acquire(timeout=20) for _ in failing)

    assert [add(number).result(20) for number in range(4)] == [1, 2, 3, 4]

    handler.go_on.set()
    assert all(isinstance(one.exception(20), ValueError) for one in failing)
    assert [add(number).result(20) for number in range(50)] == list(range(1, 51))
    kernel.wait_for_current_tasks()
    load_now = kernel.executors["threads"].load()
    assert (load_now.waiting, load_now.running) == (0, 0)


def test_the_wait_for_a_thread_names_those_that_hang_in_reports(load: Load, handler: Hanging) -> None:
    kernel = load(ThreadPoolExecutor(max_threads=1))
    fail()
    assert handler.hangs.acquire(timeout=20)
    blocked = threading.Event()
    first = flow.python_app(blocked.wait)(20)
    waiting = [add(number) for number in range(2)]
    try:
        texts = (str(kernel.why_waiting()) for _ in iter(int, 1))
        assert "Hanging.emit" in next(text for text in texts if "has not come back" in text)
    finally:
        blocked.set()
    assert first.result(20) is True
    assert [one.result(20) for one in waiting] == [1, 2]


def test_a_report_that_hangs_does_not_keep_walltimes_from_being_kept(load: Load, handler: Hanging) -> None:
    load(ThreadPoolExecutor(max_threads=2))
    asleep = threading.Event()
    held = flow.python_app(asleep.wait).options(walltime=0.2)
    try:
        fail()
        assert handler.hangs.acquire(timeout=20)
        assert [type(held(30).exception(20)) for _ in range(2)] == [AppTimeout, AppTimeout]
    finally:
        asleep.set()
