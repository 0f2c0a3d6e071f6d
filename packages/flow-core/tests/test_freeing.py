"""Values that are no plain data are freed by a thread of their own, by which their ``__del__`` holds up nobody."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kernel_apps import Load

import flow_core as flow
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.futures.freeing import Section, Sections, free
from flow_core.graph.graph_core import GraphCore
from flow_core.graph.retry import Budgets
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Outcome, Verdict

SOON_S = 30.0
FREED: queue.Queue[str] = queue.Queue()
"""Names of the threads that have freed something."""


class Mine:
    """A value that tells which thread frees it."""

    def __del__(self) -> None:
        FREED.put(threading.current_thread().name)


class Failed(Exception):
    """An exception of the user's."""


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Whatever is freed here is so by reference counts alone."""
    gc.collect()
    while not FREED.empty():
        FREED.get()
    gc.disable()
    yield
    gc.enable()


def take(*_values: object) -> int:
    return 1


def give() -> object:
    return Mine()


def fail() -> None:
    raise Failed(Mine())


def fail_with_a_variable() -> None:
    mine = Mine()
    raise Failed(type(mine).__name__)


def _call_take() -> Any:
    return flow.python_app(take)(Mine())


def _call_nested() -> Any:
    return flow.python_app(take)([{"a": Mine()}])


CALLS: list[Callable[[], Any]] = [
    _call_take,
    _call_nested,
    *(flow.python_app(each) for each in (give, fail, fail_with_a_variable)),
]


@pytest.mark.parametrize("call", CALLS, ids=["argument", "nested", "result", "exception", "variable"])
def test_what_a_task_has_left_is_freed_apart(call: Callable[[], Any], load: Load) -> None:
    load(ThreadPoolExecutor("threads", max_threads=1), initialize_logging=False)
    call()
    assert FREED.get(timeout=SOON_S) == "flow-freeing"


def test_the_exception_of_a_try_that_is_made_again_is_freed_apart(load: Load) -> None:
    load(ThreadPoolExecutor("threads", max_threads=1), retries=1, initialize_logging=False)
    flow.python_app(fail)()
    assert [FREED.get(timeout=SOON_S) for _ in range(2)] == ["flow-freeing"] * 2


def test_a_result_whose_future_is_kept_is_freed_by_who_lets_go_of_it(load: Load) -> None:
    load(ThreadPoolExecutor("threads", max_threads=1))
    future = flow.python_app(give)()
    seen = weakref.ref(future.result(SOON_S))
    assert flow.python_app(take)().result(SOON_S) == 1
    assert seen() is not None
    del future
    # Flow's own references are let go of soon, and it is nobody's then.
    FREED.get(timeout=SOON_S)
    assert seen() is None


def test_a_result_that_comes_too_late_is_left_to_the_shell() -> None:
    core = GraphCore(Budgets())
    late = Outcome(TryKey(7), Verdict.OK, Mine())
    core.finished([late])
    assert core.dropped == 1
    assert core.unused == [late]


def test_a_section_that_goes_on_is_waited_for() -> None:
    sections, section = Sections(), Section()
    sections.add(section)
    section.busy = True
    free([Mine()], None, sections.going())
    free([Mine()])  # behind it, and known to be looked at only when that one is freed
    assert FREED.empty()
    section.number += 1
    assert [FREED.get(timeout=SOON_S) for _ in range(2)] == ["flow-freeing"] * 2


def test_plain_data_is_not_freed_apart(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from flow_core.graph import plain_data
    from flow_core.kernel import reactor

    def never(*_given: object) -> None:
        freed.append(1)

    freed: list[int] = []
    monkeypatch.setattr(plain_data, "free", never)
    monkeypatch.setattr(reactor, "free", never)
    load(ThreadPoolExecutor("threads", max_threads=1))
    app = flow.python_app(lambda *values, **named: [values, named])
    assert app(1, ["2", {3: (4.0, None)}], five=b"6").result(SOON_S) == [(1, ["2", {3: (4.0, None)}]), {"five": b"6"}]
    assert flow.python_app(take)(app(1)).result(SOON_S) == 1
    flow.clear()
    assert not freed
