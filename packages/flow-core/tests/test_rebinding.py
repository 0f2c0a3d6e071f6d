"""Calls on threads that begin when names are bound anew: they see what can be fixed as it was at the call."""

from __future__ import annotations

import logging
import textwrap
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor as Threads
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flow_core.apps.decorators import join_app, python_app
from flow_core.config import Config
from flow_core.executors.futures import FuturesExecutor
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.kernel.kernel import DataFlowKernel
from flow_core.snapshot.snapshots import Snapshots

LIVE = "as it is now and not as it was"


def script(source: str) -> types.ModuleType:
    """Return a module as a script would be."""
    module = types.ModuleType("__main__")
    exec(textwrap.dedent(source), module.__dict__)
    return module


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., DataFlowKernel]]:
    """Give a function that begins a run on threads."""
    kernels: list[DataFlowKernel] = []

    def begun(*executors: Any) -> DataFlowKernel:
        given = [*executors] or [ThreadPoolExecutor()]
        kernels.append(DataFlowKernel(Config(executors=given, run_dir=str(tmp_path / "runs"))))
        return kernels[-1]

    yield begun
    for kernel in kernels:
        kernel.cleanup()


def late(kernel: DataFlowKernel, module: types.ModuleType, change: str, **options: Any) -> object:
    """Call ``f`` of a module, change something, and let the call begin only then; return its result."""
    app, parent = python_app(module.f, data_flow_kernel=kernel, **options), Future[int]()
    future = app(parent)
    exec(textwrap.dedent(change), module.__dict__)
    parent.set_result(1)
    return future.result(timeout=30)


FIXED = {
    "a global": ("LIMIT = 1\ndef f(x): return LIMIT", "LIMIT = 2"),
    "a global that is gone": ("LIMIT = 1\ndef f(x): return LIMIT", "del LIMIT"),
    "a list that is another": ("NAMES = [1]\ndef f(x): return NAMES[0]", "NAMES = [2]"),
    "a helper": ("def g(): return 1\ndef f(x): return g()", "def g(): return 2"),
    "a global of a helper": ("L = 1\ndef g(): return L\ndef f(x): return g()", "L = 2"),
    "a helper and its global": ("L = 1\ndef g(): return L\ndef f(x): return g()", "L = 2\ndef g(): return 3"),
    "what a helper of a helper names": ("L = 1\ndef h(): return L\ndef g(): return h()\ndef f(x): return g()", "L = 2"),
    "a recursive helper": ("L = 1\ndef g(n): return g(n - 1) if n else L\ndef f(x): return g(3)", "L = 2"),
    "two that call each other": (
        "L = 1\ndef g(n): return h(n - 1) if n else L\ndef h(n): return g(n)\ndef f(x): return g(3)",
        "L = 2\ndef h(n): return 5",
    ),
    "code within code": ("L = 1\ndef f(x): return [(lambda: L)() for _ in 'x'][0]", "L = 2"),
    "a helper that is handed on": ("L = 1\ndef g(x): return L\ndef f(x): return list(map(g, [x]))[0]", "L = 2"),
    "in a loop over something": ("L = 1\ndef f(x):\n    for _ in 'xy': x += L\n    return x - 2", "L = 2"),
    "beside builtins and imports": (
        "import math\nL = 1\ndef f(x):\n    import os.path\n    return len('x') * int(math.cos(0)) * L",
        "L = 2",
    ),
    "a class": ("class C:\n    n = 1\ndef f(x): return C.n", "class C:\n    n = 2"),
    "a variable": (
        "def made():\n    for n in (1, 2):\n        def f(x): return n\n        yield f\ng = made()\nf = next(g)",
        "next(g)",
    ),
    "a helper that is a variable": (
        "L = 1\ndef wrapped(g):\n    def f(x): return g()\n    return f\nf = wrapped(lambda: L)",
        "L = 2",
    ),
    "by a keyword's default": ("L = 1\ndef f(x, *, by=3): return L * by - 2", "L = 2"),
    "of a generator": ("L = 1\ndef g():\n    yield L\ndef f(x): return next(g())", "L = 2"),
}


@pytest.mark.parametrize("case", FIXED)
@pytest.mark.parametrize("cache", [False, True])
def test_a_call_that_begins_late_sees_what_its_function_named_when_it_was_made(
    begin: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture, case: str, cache: bool
) -> None:
    source, change = FIXED[case]
    module = script(source)
    assert late(begin(), module, change, cache=cache) == 1
    assert LIVE not in caplog.text


SHARED = {
    "a flag": ("STOP = False\ndef f(x): return 2 if STOP else 1", "STOP = True", "STOP"),
    "what a loop waits for": (
        "STATE = 'on'\ndef f(x):\n    while STATE == 'on': pass\n    return 2",
        "STATE = 'off'",
        "STATE",
    ),
    "what a helper asks in a loop": (
        "STATE = 'on'\ndef on(): return STATE == 'on'\ndef f(x):\n    while True:\n        if not on(): return 2",
        "STATE = 'off'",
        "STATE",
    ),
    "what another function writes": (
        "N = 1\ndef load():\n    global N\n    N = 2\ndef f(x): return N",
        "load()",
        "N",
    ),
    "what another app writes": (
        "from flow_core import python_app as app\nN = 1\n@app\ndef g():\n    global N\n    N = 2\ndef f(x): return N",
        "g.__wrapped__()",
        "N",
    ),
    "what a sibling writes": (
        "def m():\n n = 1\n def f(x): return n\n def g():\n  nonlocal n\n  n = 2\n return f, g\nf, g = m()",
        "g()",
        "n",
    ),
    "what a method reads too": (
        "L = 1\nclass C:\n    def m(self): return L\ndef f(x): return max(L, C().m())",
        "L = 2",
        "L",
    ),
    "a helper in a list too": (
        "L = 1\ndef g(): return L\nall = [g]\ndef f(x): return max(g(), all[0]())",
        "L = 2",
        "L",
    ),
    "of code that asks for all names": ("L = 1\ndef f(x): return L if globals() else 0", "L = 2", "L"),
    "in the body of a class": ("L = 1\ndef f(x):\n    class C:\n        l = L\n    return C.l", "L = 2", "L"),
    "beside a name that it writes": (
        "L = 1\ndef f(x):\n    global M\n    M = L\n    return L",
        "L = 2",
        "L",
    ),
}


@pytest.mark.parametrize("case", SHARED)
def test_what_may_tell_a_call_something_or_is_shared_stays_as_it_is_and_is_named(
    begin: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture, case: str
) -> None:
    source, change, name = SHARED[case]
    assert late(begin(), script(source), change) == 2
    assert f"with {name} {LIVE}" in caplog.text


def test_a_call_with_fixed_names_still_sees_others_as_they_are_when_it_reads_them(
    begin: Callable[..., DataFlowKernel],
) -> None:
    source = """
    import threading
    entered, go = threading.Event(), threading.Event()
    L, STOP = 1, False
    def f(x):
        first = L
        entered.set()
        assert go.wait(30)
        return first, L, STOP, later()
    """
    kernel, module, parent = begin(), script(source), Future[int]()
    future = python_app(module.f, data_flow_kernel=kernel)(parent)
    module.L = 2
    parent.set_result(1)
    assert module.entered.wait(30)
    module.L, module.STOP, module.later = 3, True, lambda: "now"
    module.go.set()
    assert future.result(timeout=30) == (1, 1, True, "now")


def test_once_names_were_seen_to_change_a_call_that_runs_keeps_what_it_had(
    begin: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture
) -> None:
    source = """
    import threading
    entered, go = threading.Semaphore(0), threading.Event()
    L = 0
    def f():
        entered.release()
        assert go.wait(30)
        return L
    """
    kernel, module = begin(ThreadPoolExecutor(max_threads=4)), script(source)
    app, futures = python_app(module.f, data_flow_kernel=kernel), []
    for module.L in (10, 20, 30):
        futures.append(app())
        assert module.entered.acquire(timeout=30)
    module.L = 40
    module.go.set()
    assert [future.result(timeout=30) for future in futures] == [40, 20, 30]
    (told,) = [line for line in caplog.messages if "began on threads before" in line]
    assert told.startswith("task 0 (f) began on threads before L was bound anew")


def test_a_sweep_that_is_not_waited_for_gives_each_its_own_on_threads(begin: Callable[..., DataFlowKernel]) -> None:
    kernel, parent = begin(), Future[None]()
    module = script("LIMIT = 0\ndef scaled(x): return x * LIMIT\ndef f(x, _): return scaled(x), LIMIT")
    app, futures = python_app(module.f, data_flow_kernel=kernel), []
    for module.LIMIT in (10, 20, 30):
        futures.append(app(2, parent))
    parent.set_result(None)
    assert [future.result(timeout=30) for future in futures] == [(20, 10), (40, 20), (60, 30)]


def test_a_join_body_and_a_wrapped_pool_of_threads_see_what_was_named_too(begin: Callable[..., DataFlowKernel]) -> None:
    with Threads(1) as pool:
        kernel, parent = begin(FuturesExecutor("own", pool)), Future[int]()
        module = script("L = 1\ndef f(x): return L")
        module.inner = python_app(lambda x: x, data_flow_kernel=kernel)
        exec("def body(x): return inner(L)", module.__dict__)
        futures = [
            python_app(module.f, data_flow_kernel=kernel)(parent),
            join_app(module.body, data_flow_kernel=kernel)(parent),
        ]
        module.L = 2
        parent.set_result(1)
        assert [future.result(timeout=30) for future in futures] == [1, 1]


def test_a_call_that_might_have_travelled_sees_what_it_named_on_a_thread(begin: Callable[..., DataFlowKernel]) -> None:
    from concurrent.futures import ProcessPoolExecutor

    pool = FuturesExecutor("pool", lambda: ProcessPoolExecutor(1, get_context("spawn")))
    kernel, module, parent = (
        begin(ThreadPoolExecutor("threads"), pool),
        script("L = 1\ndef f(x): return L"),
        Future[int](),
    )
    app = python_app(module.f, data_flow_kernel=kernel)
    futures = [app(parent) for _ in range(8)]
    module.L = 2
    parent.set_result(1)
    assert {future.result(timeout=30) for future in futures} == {1}


def test_a_traceback_of_a_call_with_fixed_names_shows_its_own_lines(begin: Callable[..., DataFlowKernel]) -> None:
    kernel, module, parent = begin(), script("L = 0\ndef f(x):\n    return missing + L"), Future[int]()
    future = python_app(module.f, data_flow_kernel=kernel)(parent)
    module.L = 2
    parent.set_result(1)
    error = future.exception(timeout=30)
    assert isinstance(error, NameError)
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert (last.name, last.lineno) == ("f", 3)


def test_a_copy_of_a_helper_can_be_sent_on_and_shares_its_attributes(begin: Callable[..., DataFlowKernel]) -> None:
    from concurrent.futures import ProcessPoolExecutor

    pool = FuturesExecutor("pool", lambda: ProcessPoolExecutor(1, get_context("spawn")))
    kernel, parent = begin(ThreadPoolExecutor("threads"), pool), Future[int]()
    source = """
    L, M = 1, 3
    def other(): return M
    def g(): return L, other()
    def f(x):
        g.seen = x
        return inner(g)
    """
    module = script(source)
    module.inner = python_app(lambda one: one(), data_flow_kernel=kernel, executors=["pool"])
    future = join_app(module.f, data_flow_kernel=kernel)(parent)
    module.L = 2
    parent.set_result(7)
    assert future.result(timeout=30) == (1, 3)
    assert module.g.seen == 7


def test_while_nothing_changes_the_function_itself_runs() -> None:
    module = script("L = 1\ndef g(): return L\ndef f(x): return g()")
    app = python_app(module.f).definition
    snapshots = Snapshots(lambda *_: None)
    found = snapshots.live(app)
    assert found is not None
    assert found.begins("a call") is module.f
    assert snapshots.live(app) is found


def test_many_threads_may_begin_calls_of_one_moment_at_once() -> None:
    module = script("L = 1\ndef g(): return L\ndef f(x): return g()")
    told: list[object] = []
    found = Snapshots(lambda *given: told.append(given[1:])).live(python_app(module.f).definition)
    assert found is not None
    module.L = 2
    barrier, results = threading.Barrier(8), []

    def begins() -> None:
        barrier.wait(30)
        results.append(found.begins("a call")(0))

    threads = [threading.Thread(target=begins) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [1] * 8
    assert told == [("a call", (), ("L",))] * 8


SCRIPT = """
import functools, math
A = B = C = 1
NAMES = [1]
def inner(x): return x + A
def outer(x, *, by=1): return inner(x) * by + B
def handed(x): return [inner(one) for one in (x, B)]
def deep(n): return deep(n - 1) if n > 0 else (A, outer(n))
def twice(g):
    @functools.wraps(g)
    def doubled(x): return g(x), g(x + A)
    return doubled
@twice
def wrapped(x): return x * B + inner(x)
def f(x, _=None):
    return (A, B, C, NAMES[0], inner(x), outer(x), outer(x, by=C), handed(x), deep(x), wrapped(x),
            sorted([x, 3], key=lambda one: one * C), max(map(inner, range(2))), math.floor(B))
"""
CHANGES = (
    "A = {0}",
    "B = {0}",
    "C = {0}",
    "NAMES = [{0}]",
    "A, B = B, A",
    "def inner(x): return x * {0} - A",
    "def outer(x, *, by={0}): return inner(x) - by * C",
    "def handed(x): return [outer(x), {0}]",
    "wrapped = twice(inner)",
    "def deep(n): return {0}, n",
)
programs = st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(-3, 3), st.integers(0, 3)), max_size=8)


def test_random_programs_that_are_not_waited_for_give_on_threads_what_python_gives_at_each_call(
    begin: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture
) -> None:
    kernel = begin()

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
    )
    @given(programs)
    def check(program: list[tuple[str, int, int]]) -> None:
        module, parent, futures, expected = script(SCRIPT), Future[None](), [], []
        app = python_app(module.f, data_flow_kernel=kernel)
        for change, value, argument in [("A = {0}", 1, 1), *program]:
            exec(change.format(value), module.__dict__)
            expected.append(module.f(argument))
            futures.append(app(argument, parent))
        exec("A, B, C = B, C, A\ndef inner(x): return None", module.__dict__)
        parent.set_result(None)
        assert [future.result(timeout=30) for future in futures] == expected

    with caplog.at_level(logging.WARNING):
        check()
    assert LIVE not in caplog.text
