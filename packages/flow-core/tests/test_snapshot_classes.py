"""Classes that travel by value: each call finds them as they were, with what their methods named."""

from __future__ import annotations

import copy
import pickle
import textwrap
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from flow_core.memo.identity import identify
from flow_core.remote import by_value
from flow_core.remote.contents import meaning
from flow_core.remote.functions import load_function
from flow_core.snapshot.finder import FunctionLooks
from flow_core.snapshot.travel import packed

SCRIPT = """
import abc, enum, functools
LIMIT = 0
CALLS = []
def helper(x): return x + LIMIT
class Base:
    def limited(self, x): return x + LIMIT
class Meta(type):
    def of_class(cls, x): return x + LIMIT
class Kind(Base, metaclass=Meta):
    made = 0
    class Inner:
        def limited(self, x): return x + LIMIT
    def read(self, x): return x + LIMIT
    def through(self, x): return helper(x)
    def above(self, x): return super().limited(x)
    @property
    def limit(self): return LIMIT
    @classmethod
    def low(cls, x): return x + LIMIT
    @staticmethod
    def plain(x): return x + LIMIT
    def _added(self, y, x): return x + y + LIMIT
    added = functools.partialmethod(_added, 0)
    def count(self):
        Kind.made += 1
        return Kind.made
class Abstract(abc.ABC):
    @abc.abstractmethod
    def limited(self, x): ...
class Real(Abstract):
    __slots__ = ("x",)
    def limited(self, x): return x + LIMIT
class Mode(enum.Enum):
    FAST = 1
Mode.FAST.extra = 0
kind = Kind()
def mode(x): return x + Mode.FAST.extra
def read(x): return Kind().read(x)
def through(x): return Kind().through(x)
def inherited(x): return Kind().limited(x)
def above(x): return Kind().above(x)
def limit(x): return x + Kind().limit
def low(x): return Kind.low(x) and Kind.plain(x)
def added(x): return Kind().added(x)
def inner(x): return Kind.Inner().limited(x)
def of_class(x): return Kind.of_class(x)
def real(x): return Real().limited(x)
def instance(x): return kind.read(x)
def given(x, one): return one.read(x) if not isinstance(one, type) else one().read(x)
def both(x, one): return given(x, one) and Kind().read(x)
def count(x): return Kind().count()
def count_given(x, one): return one.count()
def noted(x):
    global LIMIT
    LIMIT = x
    return Kind().read(x)
"""

_functions: dict[bytes, Any] = {}


def on_node(blob: bytes, arguments: bytes) -> object:
    """Run a function as a worker does, which keeps the functions that it has loaded."""
    if blob not in _functions:
        _functions[blob] = load_function(blob)
    function, surroundings = _functions[blob]
    given = pickle.loads(arguments)
    if surroundings is not None:
        surroundings.prepare()
    return function(*given)


@pytest.fixture(scope="module")
def node() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        yield pool


@pytest.fixture
def script() -> Any:
    module = types.ModuleType("__main__")
    exec(textwrap.dedent(SCRIPT), module.__dict__)
    return module


Call = Callable[..., Callable[[], object]]


@pytest.fixture
def call(node: ProcessPoolExecutor) -> Call:
    """Return a way to pack a call now and run it later, as often as one likes."""

    def packed_call(function: Callable[..., object], *args: object) -> Callable[[], object]:
        blob, arguments = packed(function, FunctionLooks(function, whole=False)), by_value.dumps(args)
        return lambda: node.submit(on_node, blob, arguments).result(timeout=30)

    return packed_call


NAMES = ["read", "through", "inherited", "above", "limit", "low", "added", "inner", "of_class", "real", "instance"]


@pytest.mark.parametrize("name", NAMES)
def test_methods_find_what_they_named_at_each_call_whichever_comes_next(script: Any, call: Call, name: str) -> None:
    calls = []
    for script.LIMIT in (0, 5, 7):
        calls.append(call(getattr(script, name), 1))
    assert [each() for each in calls] == [1, 6, 8]
    assert [each() for each in reversed(calls)] == [8, 6, 1]


@pytest.mark.parametrize("name", ["given", "both"])
@pytest.mark.parametrize("what", ["Kind", "kind"])
def test_classes_and_instances_given_as_arguments_are_what_they_were(
    script: Any, call: Call, name: str, what: str
) -> None:
    calls = []
    for script.LIMIT in (0, 5, 7):
        calls.append(call(getattr(script, name), 1, getattr(script, what)))
    assert [each() for each in calls] == [1, 6, 8]
    assert [each() for each in reversed(calls)] == [8, 6, 1]


def test_what_tasks_change_in_a_class_stays_for_those_of_the_same_version(script: Any, call: Call) -> None:
    first = call(script.count, 1)
    script.LIMIT = 5
    other = call(script.count, 1)
    assert [first(), first(), other(), first(), other()] == [1, 2, 1, 3, 2]


def test_an_argument_of_the_same_version_changes_nothing_in_its_class(script: Any, call: Call) -> None:
    assert [call(script.count_given, 1, script.kind)() for _ in range(3)] == [1, 2, 3]


def test_a_function_and_the_methods_it_calls_have_the_same_globals(script: Any, call: Call) -> None:
    noted, read = call(script.noted, 4), call(script.read, 1)
    assert [read(), noted(), read(), noted()] == [1, 8, 1, 8]


def test_a_class_gets_other_bases_where_it_has_other_ones(script: Any, call: Call) -> None:
    exec("class Other:\n    def limited(self, x): return -x", script.__dict__)
    before = call(script.inherited, 1)
    script.Kind.__bases__ = (script.Other,)
    after = call(script.inherited, 1)
    assert [before(), after(), before()] == [1, -1, 1]


def test_members_of_an_enum_have_the_attributes_that_were_set_at_each_call(script: Any, call: Call) -> None:
    calls = []
    for script.Mode.FAST.extra in (0, 5):
        calls.append(call(script.mode, 1))
    assert [calls[0](), calls[1](), calls[0]()] == [1, 6, 1]


def test_what_python_sets_in_a_class_that_is_used_is_no_part_of_it(script: Any) -> None:
    def what_it_is() -> object:
        return meaning(script.Kind), identify(script.read)

    before = what_it_is()
    copy.copy(script.Kind())
    assert script.Kind.__annotations__ == {}
    assert "__slotnames__" in vars(script.Kind)
    assert what_it_is() == before
