"""What a function is at a call: noticed when it changes, sent as it was, and never remembered as something else."""

from __future__ import annotations

import functools
import logging
import textwrap
import threading
import traceback
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flow_core.apps.decorators import join_app, python_app
from flow_core.config import Config
from flow_core.errors import ConfigurationError, ExecutorBroken, SerializationError
from flow_core.executors.futures import FuturesExecutor
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.kernel.kernel import DataFlowKernel
from flow_core.snapshot.finder import LARGE_ELEMENTS, FunctionLooks


class Inline(Executor):
    """A pool that runs what it is given at once, here, from its bytes: as another process would."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def script(source: str, **names: object) -> types.ModuleType:
    """Return a module as a script would be, which no other process can import."""
    module = types.ModuleType("__main__")
    module.__dict__.update(names)
    exec(textwrap.dedent(source), module.__dict__)
    return module


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., DataFlowKernel]]:
    """Return a way to begin a run, on a pool that gets bytes or on threads."""
    kernels: list[DataFlowKernel] = []

    def begin(threads: bool = False, **settings: Any) -> DataFlowKernel:
        executor = ThreadPoolExecutor("own") if threads else FuturesExecutor("own", Inline())
        kernels.append(DataFlowKernel(Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), **settings)))
        return kernels[-1]

    yield begin
    for kernel in kernels:
        kernel.cleanup()


@dataclass
class Settings:
    limit: int = 1


class Slotted:
    __slots__ = ("limit",)


def set_slot(value: Any) -> None:
    value.limit = 2


MUTABLE: list[tuple[object, Callable[[Any], object]]] = [
    ([1], lambda v: v.append(2)),
    ([1, 2], lambda v: v.reverse()),
    ([[1]], lambda v: v[0].append(2)),
    ({"a": 1}, lambda v: v.update(a=2)),
    ({"a": 1}, lambda v: v.update(a=1.0)),
    ({"a": {"b": 1}}, lambda v: v["a"].update(b=2)),
    ({1}, lambda v: v.add(2)),
    (([1],), lambda v: v[0].append(2)),
    (bytearray(b"a"), lambda v: v.extend(b"b")),
    (deque([1]), lambda v: v.append(2)),
    (OrderedDict(a=1), lambda v: v.update(a=2)),
    (defaultdict(lambda: 0), lambda v: v.update(a=2)),
    (Settings(), lambda v: setattr(v, "limit", 2)),
    (Slotted(), set_slot),
    (types.SimpleNamespace(limit=1), lambda v: setattr(v, "limit", 2)),
    (functools.partial(max, [1]), lambda v: v.args[0].append(2)),
    (list(range(2 * LARGE_ELEMENTS)), lambda v: v.append(2)),
    (bytearray(100_000), lambda v: v.extend(b"b")),
]


@pytest.mark.parametrize(("value", "change"), MUTABLE)
def test_a_value_that_is_changed_in_place_is_noticed(value: object, change: Callable[[Any], object]) -> None:
    module = script("def f(): return VALUE", VALUE=value)
    looks = FunctionLooks(module.f, whole=False)
    assert looks.unchanged()
    change(value)
    assert not looks.unchanged()


CLOSURE = """
def make():
    n = 1
    def f(): return n
    def put():
        nonlocal n
        n = 2
    return f, put
f, put = make()
"""


@pytest.mark.parametrize(
    ("source", "change"),
    [
        ("N = 1\ndef f(): return N", "N = 2"),
        ("N = 1\ndef f(): return N", "N = True"),
        ("N = 1\ndef f(): return N", "del N"),
        ("def f(): return N", "N = 1"),
        ("def f(): return len([])", "def len(x): return 7"),
        ("N = 1\ndef f(): return [N for _ in 'x']", "N = 2"),
        ("def g(): return 1\ndef f(): return g()", "def g(): return 2"),
        ("def g(): return 1\ndef h(): return g()\ndef f(): return h()", "def g(): return 2"),
        ("def g(): return 1\ndef f(): return g()", "g.__code__ = (lambda: 2).__code__"),
        ("def g(x=1): return x\ndef f(): return g()", "g.__defaults__ = (2,)"),
        ("def g(*, x=1): return x\ndef f(): return g()", "g.__kwdefaults__['x'] = 2"),
        ("def f(x=[]): return x", "f.__defaults__[0].append(1)"),
        ("class C:\n    x = 1\ndef f(): return C.x", "C.x = 2"),
        ("class C:\n    def m(self): return 1\ndef f(): return C().m()", "C.m = lambda self: 2"),
        ("class C: x = 1\ndef f(): return C.x", "class C: x = 2"),
        ("class B: x = 1\nclass C(B): pass\ndef f(): return C.x", "B.x = 2"),
        (CLOSURE, "put()"),
        ("import functools\n@functools.lru_cache\ndef g(): return 1\ndef f(): return g()", "def g(): return 2"),
    ],
)  # fmt: skip
def test_a_name_that_comes_to_mean_something_else_is_noticed(source: str, change: str) -> None:
    module = script(source)
    looks = FunctionLooks(module.f, whole=False)
    assert looks.unchanged()
    exec(change, module.__dict__)
    assert not looks.unchanged()


def test_what_it_does_not_name_is_not_looked_at() -> None:
    module = script("N = 1\nM = []\ndef f(): return N")
    looks = FunctionLooks(module.f, whole=False)
    module.M.append(1)
    exec("N = 1\ndef g(): pass", module.__dict__)
    assert looks.unchanged()


def test_locks_loggers_and_hostile_objects_are_known_by_identity() -> None:
    class Hostile:
        def __reduce_ex__(self, protocol: object) -> str:
            raise RuntimeError("no")

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

        __hash__ = None  # type: ignore[assignment]  # as hostile as can be

    for value in (threading.Lock(), logging.getLogger("x"), Hostile()):
        module = script("def f(): return VALUE", VALUE=value)
        looks = FunctionLooks(module.f, whole=False)
        assert looks.unchanged()
        module.VALUE = threading.Lock()
        assert not looks.unchanged()


def test_of_a_large_value_an_element_in_between_is_seen_if_all_is_looked_at() -> None:
    values = list(range(2 * LARGE_ELEMENTS))
    module = script("def f(): return VALUE", VALUE=values)
    samples, whole = FunctionLooks(module.f, whole=False), FunctionLooks(module.f, whole=True)
    values[1] = -1
    assert samples.unchanged()
    assert not whole.unchanged()


def test_each_call_runs_what_its_function_was_at_the_call(load: Callable[..., DataFlowKernel]) -> None:
    module = script("LIMIT = 0\ndef f(): return LIMIT")
    app = python_app(module.f, data_flow_kernel=load())
    futures = []
    for module.LIMIT in (10, 20, 30):
        futures.append(app())
    assert [future.result() for future in futures] == [10, 20, 30]


def test_a_task_that_waits_keeps_the_function_of_its_call(load: Callable[..., DataFlowKernel]) -> None:
    module = script("LIMIT = 0\ndef f(x): return x, LIMIT")
    app = python_app(module.f, data_flow_kernel=load(), cache=True)
    first: Future[int] = Future()
    waits = app(first)
    module.LIMIT = 1
    first.set_result(7)
    assert waits.result() == (7, 0)
    assert app(7).result() == (7, 1)


def test_a_function_given_to_submit_is_as_it_was_at_the_call(load: Callable[..., DataFlowKernel]) -> None:
    module = script("LIMIT = 0\ndef f(): return LIMIT")
    kernel = load()
    futures = []
    for module.LIMIT in (10, 20, 30):
        futures.append(kernel.submit(module.f))
    assert [future.result() for future in futures] == [10, 20, 30]


def test_once_keeps_the_function_of_the_first_call(load: Callable[..., DataFlowKernel]) -> None:
    module = script("LIMIT = 0\ndef f(): return LIMIT")
    app = python_app(module.f, data_flow_kernel=load(), snapshot="once")
    results = []
    for module.LIMIT in (10, 20):
        results.append(app().result())
    assert results == [10, 10]


def test_an_unknown_snapshot_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="snapshot must be one of 'call', 'whole', 'once'"):
        python_app(snapshot="never")(lambda: 1)


def test_uncached_apps_on_threads_are_neither_looked_at_nor_packed(load: Callable[..., DataFlowKernel]) -> None:
    class Counted:
        looks = 0

        def __reduce_ex__(self, protocol: object) -> str:
            Counted.looks += 1
            return "never"

    module = script("def f(): return type(VALUE).__name__", VALUE=Counted())
    app = python_app(module.f, data_flow_kernel=load(threads=True))
    assert app().result() == "Counted"
    assert Counted.looks == 0


def test_a_function_that_cannot_travel_fails_its_own_task(load: Callable[..., DataFlowKernel]) -> None:
    module = script("def f(): return VALUE", VALUE=threading.Lock())
    app = python_app(module.f, data_flow_kernel=load())
    with pytest.raises(SerializationError, match="f cannot be sent"):
        app().result()


def test_a_result_of_changed_globals_is_remembered_as_that(load: Callable[..., DataFlowKernel]) -> None:
    module = script("LIMIT = 10\ndef f(x): return x > LIMIT")
    first = load(checkpoint_mode="task_exit")
    app = python_app(module.f, data_flow_kernel=first, cache=True)
    assert app(50).result()
    module.LIMIT = 100
    assert not app(50).result()
    module.LIMIT = 10
    assert app(50).result()
    assert first.summary().memoized == 1
    first.cleanup()
    again = load(checkpoint_files=[str(first.run_dir)])
    later = python_app(module.f, data_flow_kernel=again, cache=True)
    module.LIMIT = 100
    assert not later(50).result()
    assert again.summary().memoized == 1


GATE = """
import threading
entered, go = threading.Event(), threading.Event()
LIMIT = 10
def f(x):
    entered.set()
    assert go.wait(30)
    return x > LIMIT
"""


def test_on_threads_a_result_is_not_remembered_if_its_globals_changed_meanwhile(
    load: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture
) -> None:
    module = script(GATE)
    kernel = load(threads=True)
    app = python_app(module.f, data_flow_kernel=kernel, cache=True)
    future = app(50)
    assert module.entered.wait(30)
    module.LIMIT = 100
    module.go.set()
    assert not future.result()
    module.LIMIT = 10
    assert app(50).result()
    assert kernel.summary().memoized == 0
    (warning,) = [record.getMessage() for record in caplog.records if "is not remembered" in record.getMessage()]
    assert "global 'LIMIT'" in warning


def test_who_follows_a_call_whose_globals_changed_runs_itself(load: Callable[..., DataFlowKernel]) -> None:
    module = script(GATE)
    kernel = load(threads=True)
    app = python_app(module.f, data_flow_kernel=kernel, cache=True)
    first, follower = app(50), app(50)
    assert module.entered.wait(30)
    module.LIMIT = 100
    module.go.set()
    assert not first.result()
    assert follower.result()
    assert kernel.summary().memoized == 0


def test_a_hostile_object_that_it_names_fails_no_call_on_threads_and_its_own_elsewhere(
    load: Callable[..., DataFlowKernel],
) -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> object:
            raise SystemExit(name)

        def __reduce_ex__(self, protocol: object) -> str:
            raise SystemExit("no")

        def __sizeof__(self) -> int:
            raise SystemExit("no")

    for threads in (True, False):
        module = script("def f(): return VALUE is not None", VALUE=Hostile())
        app = python_app(module.f, data_flow_kernel=load(threads=threads), cache=threads)
        error = app().exception()
        assert error is None if threads else isinstance(error, SerializationError)


def test_errors_about_what_cannot_be_sent_show_no_frames_of_flow(load: Callable[..., DataFlowKernel]) -> None:
    app = python_app(script("def f(): return LOCK", LOCK=threading.Lock()).f, data_flow_kernel=load())
    error = app().exception()
    assert isinstance(error, SerializationError)
    assert "global 'LOCK' of f()" in str(error)
    assert error.__traceback__ is None
    assert error.__cause__ is not None
    assert error.__cause__.__traceback__ is None


@pytest.mark.parametrize("full", [True, False])
def test_errors_of_a_broken_executor_show_frames_of_flow_only_if_asked_for(
    full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FuturesExecutor):
        def submit(self, key: Any, call: Any, /) -> None:
            raise ExecutorBroken("it is broken")

    if full:
        monkeypatch.setenv("FLOW_FULL_TRACEBACKS", "1")
    with DataFlowKernel(Config(executors=[Broken("own", Inline())], run_dir=str(tmp_path / "runs"))) as kernel:
        error = python_app(int, data_flow_kernel=kernel)().exception()
    assert isinstance(error, ExecutorBroken)
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    assert any("flow_core" in file for file in files) == full


def test_a_default_counts_as_it_was_at_the_call(load: Callable[..., DataFlowKernel]) -> None:
    module = script("def f(x, seen=[]): return x, seen")
    app = python_app(module.f, data_flow_kernel=load(), cache=True)
    first: Future[int] = Future()
    waits = app(first)
    module.f.__defaults__[0].append("later")
    first.set_result(7)
    assert waits.result() == (7, [])
    assert app(7).result() == (7, ["later"])


def test_a_result_is_not_remembered_if_an_argument_changed_after_its_key_was_made(
    tmp_path: Path, load: Callable[..., DataFlowKernel]
) -> None:
    given = [1]

    class Late(FuturesExecutor):
        def submit(self, key: Any, call: Any, /) -> None:
            given.append(2)
            super().submit(key, call)

    executor = Late("own", Inline())
    with DataFlowKernel(Config(executors=[executor], run_dir=str(tmp_path / "runs"))) as kernel:
        app = python_app(lambda values: sum(values), data_flow_kernel=kernel, cache=True)
        assert app(given).result() == 3
        assert app([1]).result() == 1


def test_a_result_is_not_remembered_if_an_argument_changed_while_its_thread_ran(
    load: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture
) -> None:
    kernel = load(threads=True)
    entered, go = threading.Event(), threading.Event()

    def total(values: list[int]) -> int:
        entered.set()
        assert go.wait(30)
        return sum(values)

    app = python_app(total, data_flow_kernel=kernel, cache=True)
    given = [1, 2]
    first, follower = app(given), app([1, 2])
    assert entered.wait(30)
    given.append(50)
    go.set()
    with caplog.at_level(logging.WARNING):
        assert first.result() == 53
        assert follower.result() == app([1, 2]).result() == 3
    assert [record for record in caplog.records if "argument 'values'" in record.getMessage()]


@pytest.mark.parametrize("threads", [True, False])
def test_a_task_that_changes_its_own_argument_is_remembered_only_where_it_has_a_copy(
    threads: bool, load: Callable[..., DataFlowKernel]
) -> None:
    kernel = load(threads=threads)

    def append(values: list[int]) -> list[int]:
        values.append(0)
        return values

    app = python_app(append, data_flow_kernel=kernel, cache=True)
    assert app([1]).result() == app([1]).result() == [1, 0]
    assert kernel.summary().memoized == (0 if threads else 1)


def test_the_body_of_a_cached_join_app_is_not_remembered_as_what_it_was(load: Callable[..., DataFlowKernel]) -> None:
    kernel = load()
    module = script("N = 1\ndef double(x): return 2 * x\ndef body(first): return double(first + N)")
    module.double = python_app(module.double, data_flow_kernel=kernel)
    join = join_app(module.body, data_flow_kernel=kernel, cache=True)
    first: Future[int] = Future()
    joined = join(first)
    module.N = 2
    first.set_result(1)
    assert joined.result() == 4
    module.N = 1
    assert join(1).result() == 4
    assert kernel.summary().memoized == 0


CLASSES = """
class Kind:
    step = 1
    def up(self, x): return x + self.step
def f(x): return Kind().up(x)
def made(): return Kind()
def names(): return sorted(name for name in vars(Kind) if not name.startswith("_"))
"""


def test_a_class_is_what_it_was_at_each_call_also_when_it_comes_back(tmp_path: Path) -> None:
    module = script(CLASSES)
    pool = FuturesExecutor("own", lambda: ProcessPoolExecutor(1))
    with DataFlowKernel(Config(executors=[pool], run_dir=str(tmp_path / "runs"))) as kernel:
        assert [kernel.submit(module.f, 1).result() for module.Kind.step in (1, 5, 1, 5)] == [2, 6, 2, 6]
        module.Kind.other = 1
        assert kernel.submit(module.names).result() == ["other", "step", "up"]
        del module.Kind.other
        assert kernel.submit(module.names).result() == ["step", "up"]


def test_a_result_undoes_nothing_that_the_script_has_changed_in_a_class(tmp_path: Path) -> None:
    module = script(CLASSES)
    pool = FuturesExecutor("own", lambda: ProcessPoolExecutor(1))
    with DataFlowKernel(Config(executors=[pool], run_dir=str(tmp_path / "runs"))) as kernel:
        future = kernel.submit(module.made)
        module.Kind.step = 5
        found = future.result()
        assert type(found) is module.Kind
        assert module.Kind.step == 5


CLOSED = (
    "def made():\n    count = 1\n    def f(): return count\n    def put(value):\n        nonlocal count\n"
    "        count = value\n    return f, put\nf, put = made()"
)


@pytest.mark.parametrize(
    ("source", "change", "named"),
    [
        ("LIMIT = 1\ndef f(): return LIMIT", "LIMIT = 2", "LIMIT"),
        ("LIMIT = 1\ndef g(): return LIMIT\ndef f(): return sum([g() for _ in 'x'])", "LIMIT = 2", "LIMIT"),
        ("def g(): return 1\ndef f(): return g()", "def g(): return 2", "g"),
        (
            "LIMIT = 1\nclass C:\n    def m(self): return LIMIT\nc = [C()]\ndef f(): return c[0].m()",
            "LIMIT = 2",
            "LIMIT",
        ),
        (CLOSED, "put(2)", "count"),
    ],
)
def test_a_call_on_threads_that_begins_with_names_bound_anew_says_so_once(
    load: Callable[..., DataFlowKernel],
    caplog: pytest.LogCaptureFixture,
    source: str,
    change: str,
    named: str,
) -> None:
    kernel, parent = load(threads=True), Future[None]()
    module = script(source)
    app = python_app(lambda _parent: module.f(), data_flow_kernel=kernel)
    app_itself = python_app(module.f, data_flow_kernel=kernel)
    assert app_itself().result() == 1
    with caplog.at_level(logging.WARNING):
        calls = [app(parent), app(parent)]
        exec(change, module.__dict__)
        parent.set_result(None)
        assert [call.result() for call in calls] == [2, 2]
        assert app_itself().result() == 2
    told = [record.getMessage() for record in caplog.records if "runs on a thread, with" in record.getMessage()]
    assert len(told) == 1
    assert f" with {named} as it is now" in told[0]


@pytest.mark.parametrize(
    ("source", "change"),
    [
        ("count = 0\ndef f(x):\n    global count\n    count += 1\n    return count", "count = 5"),
        ("seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)", "seen.append(1)"),
        ("import math\ndef f(x): return math.sin(0) + len('')", "import math"),
        ("def f(x): return x", "other = 1"),
    ],
)
def test_of_a_call_on_threads_what_its_code_writes_and_what_changes_in_place_is_shared(
    load: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture, source: str, change: str
) -> None:
    kernel, parent, module = load(threads=True), Future[None](), script(source)
    app = python_app(module.f, data_flow_kernel=kernel)
    with caplog.at_level(logging.WARNING):
        calls = [app(parent) for _ in range(3)]
        exec(change, module.__dict__)
        parent.set_result(None)
        for call in calls:
            call.result()
    assert "runs on a thread, with" not in caplog.text


def test_the_body_of_a_join_app_that_begins_with_names_bound_anew_says_so(
    load: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture
) -> None:
    kernel, parent = load(), Future[None]()
    module = script(
        "LIMIT = 1\nclass C:\n    def m(self): return LIMIT\ndef f(_): return [C().m(), done()]", done=Future
    )
    module.done = lambda: (given := Future[None]()).set_result(None) or given
    app = join_app(module.f, data_flow_kernel=kernel)
    with caplog.at_level(logging.WARNING):
        call = app(parent)
        module.LIMIT = 2
        parent.set_result(None)
        assert call.result() == [2, None]
    assert "with LIMIT as it is now" in caplog.text


def test_results_that_may_depend_on_globals_by_names_not_known_are_not_remembered(
    load: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture
) -> None:
    module = script("LIMIT = 1\ndef g(x): return globals()[x]\ndef f(x): return g(x)")
    app = python_app(module.f, cache=True, data_flow_kernel=load(threads=True))
    with caplog.at_level(logging.WARNING):
        for module.LIMIT in (1, 2, 1):
            assert app("LIMIT").result() == module.LIMIT
    told = [record.getMessage() for record in caplog.records if "takes globals by names" in record.getMessage()]
    assert len(told) == 1
    assert "Results of cached app 'f' are not remembered, such as that of task 0 (f)" in told[0]
    assert "in g()" in told[0]
    assert "cache_globals='named'" in told[0]


@pytest.mark.parametrize("read", ["sys._getframe().f_globals['LIMIT']", "f.__globals__['LIMIT']"])
def test_nor_are_those_of_code_that_reads_the_globals_of_a_frame_or_of_a_function(
    load: Callable[..., DataFlowKernel], read: str
) -> None:
    module = script(f"import sys\nLIMIT = 1\ndef f(): return {read}")
    app = python_app(module.f, cache=True, data_flow_kernel=load(threads=True))
    for module.LIMIT in (1, 2, 1):
        assert app().result() == module.LIMIT


def test_results_of_code_that_takes_the_script_as_a_module_are_remembered_on_threads_alone(
    load: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture
) -> None:
    module = script("import sys\ndef f(): return 'sys' if sys.modules['__main__'] else 0")
    for threads, number in ((True, 1), (False, 0)):
        kernel = load(threads=threads)
        app = python_app(module.f, cache=True, data_flow_kernel=kernel)
        with caplog.at_level(logging.WARNING):
            assert [app().result() for _ in range(2)] == ["sys", "sys"]
        assert kernel.summary().memoized == number
        assert ("it takes __main__ as a module, in f()" in caplog.text) is not threads


@pytest.mark.parametrize(
    ("source", "given", "told"),
    [
        (
            "def g(x): return eval(x)\ndef f(x): return g(x)",
            "1 + 1",
            "takes globals by names that show only as it runs",
        ),
        ("import sys\ndef f(x): return bool(sys.modules[__name__])", 1, "takes __main__ as a module, in f()"),
    ],
)
def test_a_call_that_goes_to_another_process_without_what_its_code_takes_there_is_told_of_once(
    load: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture, source: str, given: object, told: str
) -> None:
    for options, times in (({}, 1), ({"cache_globals": "named"}, 0)):
        app = python_app(script(source).f, data_flow_kernel=load(), **options)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert app(given).result() in (2, True)
        assert [told in record.getMessage() for record in caplog.records] == [True] * times


def test_text_that_is_run_among_all_globals_is_looked_at_like_other_code(load: Callable[..., DataFlowKernel]) -> None:
    module = script(
        "LIMIT = 1\ndef f():\n    names = {}\n    exec('x = LIMIT', globals(), names)\n    return names['x']"
    )
    kernel = load()
    app = python_app(module.f, cache=True, data_flow_kernel=kernel)
    for module.LIMIT in (1, 2, 1):
        assert app().result() == module.LIMIT
    assert kernel.summary().memoized == 1


def test_nor_are_those_of_calls_with_such_code_among_their_arguments(load: Callable[..., DataFlowKernel]) -> None:
    module = script("LIMIT = 1\ndef g(x): return eval(x)\ndef f(x, by): return by(x)")
    kernel = load(threads=True)
    app = python_app(module.f, cache=True, data_flow_kernel=kernel)
    for module.LIMIT in (1, 2, 1):
        assert app("LIMIT", module.g).result() == module.LIMIT
    assert [app("1", by).result() for by in (int, int)] == [1, 1]
    assert kernel.summary().memoized == 1  # where there is no such code


def test_they_are_where_the_user_says_that_such_globals_make_no_difference(
    load: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture
) -> None:
    module = script("LIMIT = 1\ndef f(x): return eval(x)")
    kernel = load()
    app = python_app(module.f, cache=True, cache_globals="named", data_flow_kernel=kernel)
    with caplog.at_level(logging.WARNING):
        assert [app("1 + 2").result() for _ in range(3)] == [3, 3, 3]
    assert kernel.summary().memoized == 2
    assert not caplog.records


@pytest.mark.parametrize("threads", [False, True])
def test_a_cached_call_sees_each_element_of_a_large_value_also_in_code_among_its_arguments(
    load: Callable[..., DataFlowKernel], threads: bool
) -> None:
    module = script(
        "TABLE = list(range(50_000))\ndef g(x): return TABLE[x]\nclass C:\n    held = TABLE\n"
        "    def m(self, x): return self.held[x]\n"
        "def f(x, given=None): return TABLE[x], given and [one(x) for one in given]"
    )
    app = python_app(module.f, cache=True, data_flow_kernel=load(threads=threads))
    for given in (None, [module.g], [module.C().m]):
        for value in (1, 2, 1):
            module.TABLE[30_001] = value
            assert app(30_001, given).result() == module.f(30_001, given)
