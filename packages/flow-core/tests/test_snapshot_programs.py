"""Random programs that change what functions name between calls: however they are run, they give what Python gives."""

from __future__ import annotations

import functools
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flow_core.apps.decorators import python_app
from flow_core.config import Config
from flow_core.executors.futures import FuturesExecutor
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.kernel.kernel import DataFlowKernel

OWN = """
import fractions
LIMIT = 1
TABLE = {"a": 1}
def helper(x): return x + LIMIT
def named(name): return globals()["LIMIT"], getattr(Kind, name)
class Kind:
    step = 1
    def far(self, x): return helper(x) * self.step, TABLE["a"]
class Share(fractions.Fraction):
    pass
share = Share(1, 2)
share.note = 1
"""

SCRIPT = """
import functools, importlib, sys, types
import programs_own as own

FIRST = SECOND = 1
def by_name(x, name="LIMIT"):
    return (globals()["FIRST"], eval("SECOND + x"), getattr(own, name), sys.modules["programs_own"].TABLE["a"],
            importlib.import_module("programs_" + "own").helper(x), own.named("step"), own.share.note)
def called(given, x):
    if isinstance(given, dict):
        return [called(one, x) for one in given.values()]
    if isinstance(given, list):
        return [called(one, x) for one in given]
    if isinstance(given, types.ModuleType):
        return given.LIMIT, given.Kind().far(x)
    if hasattr(given, "note"):
        return given.note
    made = given() if isinstance(given, type) else given
    if hasattr(made, "far"):
        return made.far(x)
    return made and (made(x) if callable(made) else (made.up(x), made.rated(x)))

LIMIT = 1
NAMES = [1, [2]]
TABLE = {"a": 1}
settings = types.SimpleNamespace(limit=1)
picked = functools.partial(max, [0])

class Kind:
    step = 1
    def up(self, x): return x + self.step

def made(start):
    count = start
    def closed(): return count
    def put(value):
        nonlocal count
        count = value
    return closed, put

closed, put = made(1)

RATE = STEP = 1
def deep(x): return x * STEP
class Base:
    def rated(self, x): return x + RATE
class Other:
    def rated(self, x): return x - RATE
class Named(Base):
    unit = 1
    def up(self, x): return super().rated(x) * self.unit
    @property
    def stepped(self): return deep(self.unit)
class Only(Base):
    unit = 1
    def up(self, x): return deep(x) + self.unit
    def again(self, x): return Only().up(x)
class Held(Only): pass
only = Only()
held = {"in": [Held]}
later = functools.partial(lambda cls, x: cls().up(x), Held)

def inner(x): return x + LIMIT
def outer(x, *, by=1): return inner(x) * by
def f(x, extra=[0], given=None):
    return (by_name(x), called(given, x), x,
            Named().up(x), Named().stepped, only.up(x), only.again(x), held["in"][0]().rated(x), later(x),
            LIMIT, repr(NAMES), sorted(TABLE.items(), key=repr), settings.limit, repr(picked([x])),
            Kind().up(x), closed(), outer(x), [inner(one) for one in extra])
"""

CHANGES = {
    "a global": "LIMIT = {0}",
    "an element": "NAMES[1].append({0})",
    "an element less": "NAMES[1] = NAMES[1][1:]",
    "a key": "TABLE[{0}] = {0}",
    "a value": "TABLE['a'] = {0}",
    "an attribute": "settings.limit = {0}",
    "another object": "settings = types.SimpleNamespace(limit={0})",
    "an argument of a partial": "picked = functools.partial(max, [{0}])",
    "what a partial holds": "picked.args[0].append({0})",
    "a class attribute": "Kind.step = {0}",
    "a method": "Kind.up = lambda self, x: x - {0}",
    "a class": "class Kind:\n    step = {0}\n    def up(self, x): return x * self.step",
    "a variable": "put({0})",
    "a closure": "closed, put = made({0})",
    "a helper": "def inner(x): return x * {0}",
    "a helper of a helper": "def outer(x, *, by={0}): return inner(x) - by",
    "the code of a helper": "inner.__code__ = (lambda x: x + {0}).__code__",
    "a default of a helper": "outer.__kwdefaults__ = {{'by': {0}}}",
    "a default": "f.__defaults__ = ([{0}], None)",
    "a default in place": "f.__defaults__[0].append({0})",
    "a global of methods": "RATE = {0}",
    "a global of a helper of methods": "STEP = {0}",
    "a method of a base": "Base.rated = lambda self, x: x * {0}",
    "a base": "Named.__bases__ = (Other,)",
    "an attribute of the class of an instance": "Only.unit = {0}",
    "a class of which there are instances": "class Only(Base):\n    def up(self, x): return x - {0}\n"
    "    def again(self, x): return RATE",
    "a class that is held": "class Held(Base):\n    def up(self, x): return x * {0} + RATE",
    "an instance": "only = Only()",
    "what is held": "held['in'][0] = Held",
    "a global by its name": "FIRST = {0}",
    "a global in a text": "SECOND = {0}",
    "data of a module": "own.LIMIT = {0}",
    "an element of a module": "own.TABLE['a'] = {0}",
    "code of a module": "own.helper = lambda x: x - {0}",
    "a class of a module": "own.Kind.step = {0}",
    "a method of a class of a module": "own.Kind.far = lambda self, x: (x, {0}, own.LIMIT)",
    "an attribute that pickle drops": "own.share.note = {0}",
    "an attribute that pickle drops, of another object": "own.share = own.Share(1, 3)\nown.share.note = {0}",
    "a class in a partial": "later = functools.partial(later.func, Held)",
}
VALUES = ("0", "1", "2", "1.0", "True", "-1")
Program = list[tuple[str, str, int]]
programs = st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.sampled_from(VALUES), st.integers(0, 6)), max_size=8)
EXAMPLES = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., DataFlowKernel]]:
    """Give a function that begins a run on an executor."""
    kernels: list[DataFlowKernel] = []

    def begun(executor: Any, **options: Any) -> DataFlowKernel:
        kernels.append(DataFlowKernel(Config(executors=[executor], run_dir=str(tmp_path / "runs"), **options)))
        return kernels[-1]

    yield begun
    for kernel in kernels:
        kernel.cleanup()


def run(program: Program, kernel: DataFlowKernel, finish: Callable[[Future[Any]], None], **options: Any) -> None:
    """Run a program; ``finish`` is told each future once it was made. All must be what Python gives at the calls.

    Cached calls, each of which is waited for, are given classes and instances too.
    """
    sys.modules.pop("programs_own", None)
    script = types.ModuleType("__main__")
    exec(textwrap.dedent(SCRIPT), script.__dict__)
    app = python_app(data_flow_kernel=kernel, **options)(script.f)
    expected, futures = [], []
    for change, value, argument in [("a global", "1", 1), *program]:
        exec(CHANGES[change].format(value), script.__dict__)
        given = _given(script, argument) if options else None
        expected.append(repr(script.f(argument, given=given)))
        futures.append(app(argument, given=given))
        finish(futures[-1])
    finish(futures[-1])
    assert [repr(future.result(timeout=30)) for future in futures] == expected


def _given(script: types.ModuleType, argument: int) -> object:
    own = script.own
    functions = {"f": [own.helper, functools.partial(own.helper), script.inner], "k": own.Kind, "o": [own.Kind().far]}
    return [None, script.only, script.Held, functions, [own.Kind(), own.share], [own], [script.Kind().up]][argument]


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a module of the user's own where all processes import it from."""
    (tmp_path / "programs_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("programs_own", None)


def processes() -> FuturesExecutor:
    return FuturesExecutor("pool", lambda: ProcessPoolExecutor(1, get_context("spawn")))


def test_a_process_gets_each_call_as_it_was_made(begin: Callable[..., DataFlowKernel]) -> None:
    kernel = begin(processes())

    @EXAMPLES
    @given(programs)
    def check(program: Program) -> None:
        run(program, kernel, lambda _future: None)

    check()


@pytest.mark.parametrize("way", ["process", "threads"])
def test_what_is_remembered_is_what_each_call_gives_over_runs(begin: Callable[..., DataFlowKernel], way: str) -> None:
    done: list[Program] = []

    def check_on(**options: Any) -> tuple[DataFlowKernel, Callable[[Program], None]]:
        kernel = begin(ThreadPoolExecutor() if way == "threads" else processes(), **options)
        return kernel, lambda program: run(program, kernel, lambda future: future.exception(timeout=30), cache=True)

    first, once = check_on(checkpoint_mode="task_exit")

    @EXAMPLES
    @given(programs)
    def check(program: Program) -> None:
        once(program)
        done.append(program)

    check()
    first.cleanup()
    again, replay = check_on(checkpoint_files=[str(first.run_dir)])
    for program in done:
        replay(program)
    summary = again.summary()
    assert summary.memoized == summary.submitted
