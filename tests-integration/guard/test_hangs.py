"""Values whose own methods do not return, on every kind of executor: their task waits and is told of, others go on."""

from __future__ import annotations

import concurrent.futures
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest

import flow
from flow_core.executors.futures import FuturesExecutor
from flow_core.guard import one_line
from flow_executors.htex import HighThroughputExecutor
from flow_executors.llex import LowLatencyExecutor
from flow_executors.testing.local_run import wait_until
from flow_providers.local.provider import LocalProvider

pytestmark = pytest.mark.slow

SOON_S = 5.0
SENT = ("htex", "llex", "pool")
"""Executors to whose workers values are sent."""


def _pool() -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"))


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[flow.DataFlowKernel]:
    """A run with an executor of each kind, whose end is tried too: nothing that hangs may hold it up."""
    hostile.RELEASE.clear()
    hostile.REACHED.clear()
    hostile.ARMED.clear()
    _GO.clear()
    provider = {"init_blocks": 1, "min_blocks": 1, "max_blocks": 1}
    blocks = [
        HighThroughputExecutor("htex", max_workers=1, provider=LocalProvider(**provider)),  # type: ignore[arg-type]
        LowLatencyExecutor("llex", max_workers=1, provider=LocalProvider(**provider)),  # type: ignore[arg-type]
    ]
    executors = [flow.ThreadPoolExecutor("threads", max_threads=2), *blocks, FuturesExecutor("pool", _pool)]
    loaded = flow.load(flow.Config(executors=executors, run_dir=tmp_path))
    try:
        for label in ("threads", *SENT):
            assert on(label, _add)(1).result(50) == 2
        yield loaded
        began = time.monotonic()
        loaded.cleanup(10.0)
        assert time.monotonic() - began < 25
        assert loaded._reactor.bugs == 0
    finally:
        hostile.RELEASE.set()
        _GO.set()
        flow.clear()


def on(label: str, func: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return flow.python_app(func, executors=[label], **options)


_GO = threading.Event()


def _when_told() -> int:
    _GO.wait(60)
    return 1


def _add(x: int) -> int:
    return x + 1


def _give(name: str) -> object:
    return getattr(hostile, name)()


def _raise(name: str) -> None:
    raise getattr(hostile, name)


def _take(*_values: object) -> str:
    return "taken"


def _others_go_on() -> None:
    """Call what has nothing to do with it, in chains and at once: each thread of the script is used by it."""
    for label in ("threads", *SENT):
        assert on(label, _add)(on(label, _add)(1)).result(SOON_S) == 3
        assert on(label, _take)([1, {2: "3"}], on("threads", _add)(4)).result(SOON_S) == "taken"


def _is_told(future: Any, place: str, where: str, caplog: pytest.LogCaptureFixture) -> None:
    """Wait until the task is named, with where it hangs: in the log, and by itself."""
    wait_until(lambda: place in hostile.REACHED, f"nothing was {place}", SOON_S)
    _others_go_on()
    assert not future.done()
    assert where in future.why().line
    who = f"task {future.tid} ("
    told = lambda: any(who in line and where in line and "not returned" in line for line in caplog.messages)  # noqa: E731
    wait_until(told, "the log does not name it", SOON_S)
    _others_go_on()


@pytest.mark.parametrize("label", SENT)
def test_an_argument_that_cannot_be_packed_in_finite_time_holds_up_its_own_task(
    label: str, kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture
) -> None:
    victim = on(label, _take)(on("threads", _give)("HangsPacked"))
    _is_told(victim, "packed", "HangsPacked.__reduce__", caplog)
    assert f"the packing of its arguments for executor '{label}'" in victim.why().line


@pytest.mark.parametrize("label", SENT)
def test_the_same_argument_given_by_the_caller_holds_up_the_caller(
    label: str, kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture
) -> None:
    caller = threading.Thread(target=lambda: on(label, _take)(hostile.HangsPacked()), daemon=True)
    caller.start()
    wait_until(lambda: "packed" in hostile.REACHED, "nothing was packed", SOON_S)
    _others_go_on()
    (victim,) = [task.future for task in kernel._unfinished()]
    _is_told(victim, "packed", "HangsPacked.__reduce__", caplog)
    assert caller.is_alive()


@pytest.mark.parametrize("label", ["threads", *SENT])
def test_an_argument_of_a_cached_call_that_has_no_key_in_finite_time_holds_up_its_own_task(
    label: str, kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture
) -> None:
    victim = on(label, _take, cache=True)(on("threads", _give)("HangsPacked"))
    _is_told(victim, "packed", "HangsPacked.__reduce__", caplog)
    assert "the key for its arguments" in victim.why().line


def test_a_result_that_cannot_be_stored_in_finite_time_holds_up_its_own_task(
    kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture
) -> None:
    victim = on("threads", _give, cache=True, cache_globals="named")("HangsPacked")
    _is_told(victim, "packed", "HangsPacked.__reduce__", caplog)
    assert "the storing of its result" in victim.why().line


@pytest.mark.parametrize("label", SENT)
def test_a_result_that_cannot_be_unpacked_in_finite_time_holds_up_its_own_task(
    label: str, kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture
) -> None:
    victim = on(label, _give)("HangsUnpacked")
    dependent = on(label, _take)(victim)
    _is_told(victim, "unpacked", "_made_again", caplog)
    assert "the unpacking of its result" in victim.why().line
    assert f"task {victim.tid}" in dependent.why().line


@pytest.mark.parametrize("label", ["threads", *SENT])
def test_an_exception_that_does_not_say_what_it_is_is_that_of_its_own_task(
    label: str, kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture
) -> None:
    victim = on(label, _raise)("HangsTold")
    _others_go_on()
    error = victim.exception(2 * SOON_S)
    assert "HangsTold" in one_line(error)
    assert f"task {victim.tid} (_raise) failed" in caplog.text
    _others_go_on()


def test_a_value_that_does_not_say_of_what_class_it_is_holds_up_nobody(kernel: flow.DataFlowKernel) -> None:
    victim = on("threads", _give)("HangsAsked")
    assert on("threads", _take)(victim).result(SOON_S) == "taken"
    assert on("threads", _take)(hostile.HangsAsked()).result(SOON_S) == "taken"
    _others_go_on()


def _own_future() -> hostile.HangsAsFuture:
    made = hostile.HangsAsFuture()
    made.set_result(1)
    return made


@pytest.mark.parametrize("label", ["threads", *SENT])
@pytest.mark.parametrize(
    ("make", "where"),
    [(lambda: hostile.HangsSearched([1]), "HangsSearched.__iter__"), (_own_future, "HangsAsFuture.result")],
    ids=["a list", "a future"],
)
def test_an_argument_that_cannot_be_searched_holds_up_its_own_task(
    label: str, make: Callable[[], Any], where: str, kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture
) -> None:
    # The search when all it waits for is done is on the thread that brings the last result.
    last = on("htex", _add)(on("threads", _when_told)())
    victim = on(label, _take)(last, make())
    hostile.ARMED.set()
    _GO.set()
    _is_told(victim, "searched", where, caplog)
    hostile.ARMED.clear()


def test_a_result_of_a_join_that_cannot_be_searched_holds_up_its_own_task(
    kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture
) -> None:
    hostile.ARMED.set()
    victim = flow.join_app(lambda: hostile.HangsSearched([on("htex", _add)(1)]))()
    _is_told(victim, "searched", "HangsSearched.__iter__", caplog)
    assert "the search for futures in its result" in victim.why().line
    hostile.ARMED.clear()


def test_a_result_of_a_join_that_can_be_searched_only_once_holds_up_its_own_task(
    kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture
) -> None:
    last = on("htex", _add)(on("threads", _when_told)())
    victim = flow.join_app(lambda: hostile.HangsSearched([last]))()
    wait_until(lambda: victim.task_status() == "joining", "the join does not wait", SOON_S)
    hostile.ARMED.set()
    # As it was found when the body returned: the list is not searched again, which would hang.
    assert f"task {last.tid}" in victim.why(2).line
    _GO.set()
    _is_told(victim, "searched", "HangsSearched.__iter__", caplog)
    assert "the search for results in its result" in victim.why().line
    hostile.ARMED.clear()


def _give_freed(script: int, what: str = "a result") -> object:
    return hostile.HangsFreed(script, what)


def _raise_freed(script: int) -> None:
    raise hostile.Base(hostile.HangsFreed(script, "an exception"))


@pytest.fixture
def records_of_text() -> Iterator[None]:
    """Let no handler of pytest's keep an exception or a task, which would not be freed then."""

    def made(*args: Any, **named: Any) -> logging.LogRecord:
        record = before(*args, **named)
        record.msg, record.args, record.exc_info = record.getMessage(), (), None
        return record  # type: ignore[no-any-return]  # the standard library does not say what a factory returns

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(made)
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.parametrize("label", ["threads", *SENT])
def test_values_whose_freeing_does_not_return_hold_up_nobody(
    label: str, records_of_text: None, kernel: flow.DataFlowKernel, caplog: pytest.LogCaptureFixture
) -> None:
    script, whats = os.getpid(), ["an argument", "an argument of a cached call", "a result", "a remembered result"]
    on(label, _take)(hostile.HangsFreed(script, whats[0]))
    on(label, _take, cache=True)(hostile.HangsFreed(script, whats[1]))
    on(label, _give_freed)(script)
    on(label, _give_freed, cache=True)(script, whats[3])
    on(label, _give_freed)(script, "a result for a callback").add_done_callback(lambda _future: None)
    on(label, _raise_freed)(script)
    whats += ["a result for a callback", "an exception"]
    for what in whats:
        wait_until(lambda what=what: f"freed: {what}" in hostile.REACHED, f"{what} was not freed", SOON_S)  # type: ignore[misc]
        _others_go_on()
    told = lambda: sum("the freeing of" in line and "HangsFreed.__del__" in line for line in caplog.messages)  # noqa: E731
    wait_until(lambda: told() >= len(whats), "the log does not name them", SOON_S)
    _others_go_on()
