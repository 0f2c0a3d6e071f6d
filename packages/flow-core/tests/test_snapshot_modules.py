"""What a function names of the users own modules: a node is made to have it as the script has, or refuses by name."""

from __future__ import annotations

import builtins
import dataclasses
import functools
import importlib
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import DeserializationError
from flow_core.memo import code_facts
from flow_core.remote import modules as on_node
from flow_core.remote.bringing import pickled_arguments
from flow_core.remote.callables import packing, pickled_simply, report_packing
from flow_core.remote.contents import contents, meaning
from flow_core.remote.functions import BY_VALUE, REFERENCE, load_function
from flow_core.remote.refs import resolve
from flow_core.snapshot.arguments import ArgumentCode
from flow_core.snapshot.finder import FunctionLooks
from flow_core.snapshot.travel import packed

SOURCE = """
import collections, enum, functools, importlib, sys, threading
from flow_core.apps.decorators import python_app
LIMIT = 1
TABLE = {"a": 1}
ALIAS = TABLE
BIG = list(range(50_000))
LOCK = threading.Lock()
SENTINEL = object()
class Bounds:
    upper = 1
    def twice(self): return 2 * self.upper
def helper(x): return x + LIMIT
def f(x): return helper(x), TABLE["a"], ALIAS["a"], Bounds().twice()
def locked(x):
    with LOCK: return helper(x)
def big(x): return BIG[x], helper(x)
def given(x=SENTINEL): return x is SENTINEL
def alone(x): return x
def scaled(x): return x * scaled.factor
scaled.factor = 1
def scales(x): return scaled(x)
class Step:
    by = 1
    def __get__(self, owner, kind): return self.by
class Walk:
    step = Step()
    def far(self, x): return x * self.step
def walked(x): return Walk().far(x)
class Unit(enum.Enum):
    METRE = 1
Unit.METRE.length = 1
def measured(x): return x * Unit.METRE.length
made = collections.defaultdict(int)
def missing(x): return made[x]
@functools.lru_cache
def remembered(x): return x * LIMIT
def recalls(x): return remembered(x), remembered.cache_info().hits
def recalled(x): return remembered(x)
@python_app
def app(x): return x + 1
def taken(): return getattr(sys.modules["USERS"], "LIM" + "IT")
def loaded(name): return importlib.import_module(name).LIMIT
def among_all(): return LIMIT_OF_ALL
def biggest(): return max(BIG)
def finds(): return getattr(sys.modules["USERS"], "NEW", None)
def opens():
    global OPENED
    try:
        OPENED
    except NameError:
        OPENED = 1
        return "opened now"
    return "was open"
def fetched():
    import USERS as users
    return users.LIMIT
"""
HALF = "VALUE = 1\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a module of the user's own, with a file on the path."""
    name = f"users_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE.replace("USERS", name))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(on_node, "_set", {})
    monkeypatch.setattr(on_node, "_originals", {})
    monkeypatch.setattr(on_node, "_remembering", {})
    own = (None, "__main__", name)  # not modules of other tests, which this process has as well
    monkeypatch.setattr(code_facts, "is_local", lambda module: module in own)
    importlib.invalidate_caches()
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


class Node:
    """What would be another process: it has imported the module from its file."""

    def __init__(self, module: types.ModuleType) -> None:
        self._script, self._name = module, module.__name__
        del sys.modules[self._name]
        self.module: Any = importlib.import_module(self._name)
        sys.modules[self._name] = module

    def load(self, blob: bytes) -> Callable[..., object]:
        def call(*args: object) -> object:
            with self._there():
                func, surroundings = load_function(blob)
                if surroundings is not None:
                    surroundings.prepare()
                return func(*args)

        return call

    def unpickle(self, data: bytes) -> Any:
        with self._there():
            return pickle.loads(data)

    @contextmanager
    def _there(self) -> Iterator[None]:
        sys.modules[self._name] = self.module
        here, on_node.here = on_node.here, lambda: (0, "node")
        try:
            yield
        finally:
            on_node.here = here
            sys.modules[self._name] = self._script


def pack(function: Callable[..., object]) -> bytes:
    return packed(function, FunctionLooks(function, whole=False))


def test_a_function_that_names_nothing_of_modules_travels_as_ever(module: Any) -> None:
    assert pack(len) == REFERENCE + b"builtins:len"
    assert pack(lambda: 1).startswith(BY_VALUE)


def test_values_are_what_they_were_at_each_call_whichever_comes_next(module: Any) -> None:
    node = Node(module)
    first = pack(module.f)
    module.LIMIT = 5
    module.TABLE["a"] = 6
    module.Bounds.upper = 7
    second = pack(module.f)
    for _ in range(2):
        assert node.load(first)(1) == (2, 1, 1, 2)
        assert node.load(second)(1) == (6, 6, 6, 14)


def test_a_name_that_was_deleted_is_gone_for_the_calls_after_it_only(module: Any) -> None:
    node = Node(module)
    with_limit, biggest = pack(module.helper), pack(module.biggest)
    big = module.BIG
    del module.LIMIT, module.BIG
    without_limit, without_big = pack(module.helper), pack(module.biggest)
    module.LIMIT, module.BIG = {"a": 1}, big
    for _ in range(2):
        assert node.load(with_limit)(1) == 2
        with pytest.raises(NameError):
            node.load(without_limit)(1)
        assert node.load(biggest)() == 49_999
        with pytest.raises(NameError):
            node.load(without_big)()


def test_a_name_that_the_script_set_and_took_away_again_is_gone(module: Any) -> None:
    node = Node(module)
    module.NEW = 1
    with_new = pack(module.finds)
    del module.NEW
    without = pack(module.finds)
    assert [node.load(blob)() for blob in (without, with_new, without, with_new)] == [None, 1, None, 1]


def test_what_a_task_puts_in_the_place_of_a_deleted_name_stays(module: Any) -> None:
    node = Node(module)
    module.OPENED = 1
    pack(module.opens)
    del module.OPENED
    without = pack(module.opens)
    assert node.load(without)() == "opened now"
    assert node.load(without)() == "was open"


def test_a_dict_comes_back_where_a_task_has_deleted_its_name(module: Any) -> None:
    node = Node(module)
    node.load(pack(module.f))(1)
    del node.module.TABLE
    module.TABLE["a"] = 6
    assert node.load(pack(module.f))(1)[1] == 6
    assert node.load(pack(module.helper))(1) == 2


@pytest.fixture
def own_code() -> Iterator[None]:
    """Have code among arguments bring along what it names, whatever was told before."""
    before = packing()
    report_packing(ArgumentCode())
    yield
    report_packing(before)


def sent(value: object) -> bytes:
    return pickled_arguments(value)


@dataclasses.dataclass
class Holder:
    """Of a module that goes by value."""

    function: Any


@pytest.mark.usefixtures("own_code")
def test_code_anywhere_in_arguments_brings_what_it_names(module: Any) -> None:
    node = Node(module)
    for limit in (5, 7, 5):
        module.LIMIT = module.Bounds.upper = limit
        bounds = module.Bounds()
        given = [module.helper], {"f": functools.partial(module.helper, 1)}, (bounds.twice, 4, {"key": (bounds,)})
        (helper,), parts, (twice, four, keys) = node.unpickle(sent(given))
        assert (helper(1), parts["f"](), twice(), four) == (1 + limit, 1 + limit, 2 * limit, 4)
        assert keys["key"][0].twice() == 2 * limit
        assert type(keys["key"][0]) is node.module.Bounds
        assert node.unpickle(sent({module.Bounds})).pop()().twice() == 2 * limit
        assert node.unpickle(sent([module.remembered]))[0](3) == 3 * limit
        assert node.unpickle(sent([Holder(module.helper)]))[0].function(2) == 2 + limit


@pytest.mark.usefixtures("own_code")
def test_code_by_value_in_arguments_brings_what_it_names_of_modules(module: Any) -> None:
    node = Node(module)
    script = types.ModuleType("__main__")
    script.settings = module  # type: ignore[attr-defined]  # a module takes any
    exec(
        "class Kind:\n    def far(self): return settings.LIMIT, settings.Bounds().twice(), near()\n"
        "def near(): return settings.helper(1)\nlater = lambda: (near(), settings.TABLE['a'])",
        script.__dict__,
    )
    for limit in (5, 7, 5):
        module.LIMIT = module.Bounds.upper = module.TABLE["a"] = limit
        kind, far, later, both = node.unpickle(sent([script.Kind, script.Kind().far, [script.later], script.__dict__]))
        assert kind().far() == far() == both["Kind"]().far() == (limit, 2 * limit, 1 + limit)
        assert later[0]() == both["later"]() == (1 + limit, limit)


@pytest.mark.usefixtures("own_code")
def test_modules_among_arguments_are_what_they_are_in_the_script(module: Any) -> None:
    node = Node(module)
    for limit in (5, 7, 5):
        module.LIMIT = limit
        (there,) = node.unpickle(sent([module]))
        assert there is node.module
        assert (there.LIMIT, there.helper(1)) == (limit, 1 + limit)


_THERE = """
import pickle, sys
from flow_core.remote.fetching import report_fetching
blobs, data = pickle.load(sys.stdin.buffer)
report_fetching(blobs.__getitem__)
first, second = pickle.loads(data)
type(first).count = 5  # as a task may do
(third, _) = pickle.loads(data)
print(type(first) is type(second) is type(third), third.count, third.far())
"""


@pytest.mark.usefixtures("own_code")
def test_a_class_of_arguments_travels_once_and_keeps_what_tasks_change_in_it() -> None:
    script = types.ModuleType("__main__")
    exec("class Kind:\n    count = 1\n    def far(self): return self.count + 1", script.__dict__)
    blobs: dict[bytes, bytes] = {}
    both = [script.Kind(), script.Kind()]
    data = pickled_arguments(both, on_code=blobs.__setitem__)
    assert b"far" not in data
    assert len(blobs) == 1
    there = subprocess.run(
        [sys.executable, "-c", _THERE], input=pickle.dumps((blobs, data)), capture_output=True, timeout=60, check=True
    )
    assert there.stdout == b"True 5 6\n"


@pytest.mark.usefixtures("own_code")
def test_code_in_arguments_that_is_other_there_travels_by_value(module: Any) -> None:
    node = Node(module)
    module.helper = lambda x: 100 * x
    module.Bounds.twice = lambda self: 200
    helper, bounds = node.unpickle(sent([module.helper, module.Bounds()]))
    assert (helper(2), bounds.twice()) == (200, 200)
    script = types.ModuleType("__main__")
    exec("class Kind:\n    def far(self): return settings.helper(1)", script.__dict__)
    script.settings = module  # type: ignore[attr-defined]  # a module takes any
    assert node.unpickle(sent([script.Kind()]))[0].far() == 100
    exec(
        "class Holder:\n    bounds = settings.Bounds\n    def far(self): return self.bounds().twice()", script.__dict__
    )
    assert node.unpickle(sent([script.Holder()]))[0].far() == 200


@pytest.mark.usefixtures("own_code")
def test_a_module_in_arguments_whose_code_is_other_there_travels_by_value(module: Any) -> None:
    node = Node(module)
    del module.LOCK, module.locked, module.BIG, module.big
    module.helper = lambda x: 100 * x
    there = node.unpickle(sent([module]))[0]
    assert there is not node.module
    assert (there.helper(2), there.f(2)[0], there.LIMIT) == (200, 200, 1)
    module.LOCK = threading.Lock()
    module.locked = lambda: module.LOCK
    with pytest.raises(DeserializationError, match=r"is not the same code on this machine as in the script"):
        node.unpickle(sent([module]))


@pytest.mark.usefixtures("own_code")
def test_names_that_a_module_in_arguments_has_since_a_call_are_there_in_the_next(module: Any) -> None:
    node = Node(module)
    del module.LOCK, module.locked
    assert not hasattr(node.unpickle(sent([module]))[0], "ADDED")
    module.ADDED = 5
    assert node.unpickle(sent([module]))[0].ADDED == 5
    module.ADDED = 6
    assert node.unpickle(sent([module]))[0].ADDED == 6


@pytest.mark.usefixtures("own_code")
def test_arguments_without_own_code_are_pickled_once_and_simply(module: Any) -> None:
    for value in ((1, "text", [len], {"key": Path("file")}), f"of {module.__name__}", [f"{module.__name__}s"]):
        assert pickled_simply(value) == pickle.dumps(value, 5)
    assert pickled_simply([module.Bounds()]) is None


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("scales", lambda m, n: setattr(m.scaled, "factor", n)),
        ("walked", lambda m, n: setattr(vars(m.Walk)["step"], "by", n)),
        ("walked", lambda m, n: setattr(m.Step, "by", n)),
        ("measured", lambda m, n: setattr(m.Unit.METRE, "length", n)),
        ("missing", lambda m, n: setattr(m.made, "default_factory", {2: lambda: 4, 3: lambda: 6}[n])),
    ],
)
def test_attributes_and_factories_are_what_they_were_at_each_call(
    module: Any, name: str, change: Callable[[Any, int], None]
) -> None:
    node, blobs = Node(module), []
    for number in (2, 3):
        change(module, number)
        blobs.append(pack(getattr(module, name)))
    assert [node.load(blob)(2) for blob in (blobs[0], blobs[1], blobs[0])] == [4, 6, 4]


def test_a_module_that_is_reached_by_another_name_is_what_it_was(module: Any) -> None:
    node, blobs = Node(module), []
    script = types.ModuleType("__main__")
    exec("def f():\n    s = settings\n    return s.LIMIT, s.helper(1)", script.__dict__)
    script.settings = module  # type: ignore[attr-defined]  # a module takes any
    for module.LIMIT in (2, 3):
        blobs.append(pack(script.f))
    assert [node.load(blob)() for blob in (blobs[0], blobs[1], blobs[0])] == [(2, 3), (3, 4), (2, 3)]


def test_a_remembered_result_is_of_the_version_that_is_called(module: Any) -> None:
    node, blobs = Node(module), []
    for module.LIMIT in (2, 3):
        blobs.append(pack(module.recalls))
    first, second, other = node.load(blobs[0]), node.load(blobs[1]), node.load(pack(module.recalled))
    assert [first(2), first(2)] == [(4, 0), (4, 1)]
    assert [second(2), other(2), second(2)] == [(6, 0), 6, (6, 2)]  # other functions of one version share it
    assert first(2) == (4, 0)


def test_containers_are_set_in_place_so_that_other_names_of_them_hold(module: Any) -> None:
    node = Node(module)
    module.TABLE["a"] = 6
    table = node.module.TABLE
    node.load(pack(module.f))(1)
    assert node.module.ALIAS is node.module.TABLE is table


def test_a_value_that_is_the_same_stays_the_objects_own(module: Any) -> None:
    node = Node(module)
    assert node.load(pack(module.given))()


@pytest.mark.parametrize("how", ["patched", "edited"])
def test_code_that_is_other_there_travels_by_value(module: Any, how: str) -> None:
    if how == "patched":
        node = Node(module)
        module.helper = lambda x: 100 * x
        assert node.load(pack(module.f))(2) == (200, 1, 1, 2)
        assert node.module.helper(2) == 3
    else:
        Path(module.__file__).write_text(SOURCE.replace("x + LIMIT", "x - LIMIT - 1000"))
        importlib.invalidate_caches()
        node = Node(module)
        assert node.module.helper(2) == -999
        assert node.load(pack(module.f))(2) == (3, 1, 1, 2)


def test_a_module_that_is_not_there_travels_by_value(module: Any) -> None:
    blob, name = pack(module.f), module.__name__
    node = Node(module)
    Path(module.__file__).unlink()
    importlib.invalidate_caches()
    node.module = None  # what import makes of a module that it must not find
    assert node.load(blob)(2) == (3, 1, 1, 2)
    assert sys.modules[name] is module


def test_an_app_goes_by_value_where_its_module_cannot_be_imported_whatever_its_body_names(module: Any) -> None:
    blobs = [pack(module.app.__wrapped__), pack(module.alone), pack(module.f)]
    node = Node(module)
    Path(module.__file__).write_text("from nowhere import nothing")
    importlib.invalidate_caches()
    node.module = None
    assert [node.load(blob)(2) for blob in blobs] == [3, 2, (3, 1, 1, 2)]


def test_an_app_whose_code_is_other_there_goes_by_value(module: Any) -> None:
    node = Node(module)
    Path(module.__file__).write_text(SOURCE.replace("return x + 1", "return x + 10_000"))
    importlib.invalidate_caches()
    blob = pack(importlib.reload(module).app.__wrapped__)
    assert node.load(blob)(2) == 10_002


def test_what_a_function_imports_itself_is_set_though_its_own_module_lacks_it_there(module: Any) -> None:
    module.LIMIT = 5
    blob, node = pack(module.fetched), Node(module)
    node.module = types.ModuleType(module.__name__)
    assert node.load(blob)() == 5


def test_what_is_taken_by_names_that_show_at_run_time_is_what_it_was(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, script = Node(module), types.ModuleType("__main__")
    exec("def g(): return LIMIT\ndef f(x): return globals()['LIMIT'] + eval('g() + x')", script.__dict__)
    calls = []
    for limit in (5, 6):
        module.LIMIT = script.LIMIT = limit  # type: ignore[attr-defined]  # a module takes any
        monkeypatch.setattr(builtins, "LIMIT_OF_ALL", limit, raising=False)
        calls.append([pack(one) for one in (module.taken, module.loaded, module.among_all, script.f)])
    for blobs, limit in ((calls[0], 5), (calls[1], 6), (calls[0], 5)):
        taken, loaded, among_all, by_value = map(node.load, blobs)
        assert (taken(), loaded(module.__name__), among_all(), by_value(1)) == (limit, limit, limit, 2 * limit + 1)


def test_a_module_that_was_half_written_is_read_again_for_the_next_task(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, name = tmp_path / "half_written.py", "takes_half"
    whole.write_text(HALF)
    (tmp_path / f"{name}.py").write_text("from half_written import VALUE, LATER\ndef f(): return LATER")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(ImportError, match=rf"'{name}', which holds the function {name}\.f, cannot be imported .*LATER"):
        resolve(f"{name}:f#1")
    whole.write_text(HALF + "LATER = 2\n")
    try:
        assert resolve(f"{name}:f")() == 2
    finally:
        sys.modules.pop(name, None)
        sys.modules.pop("half_written", None)


def test_locks_are_each_processes_own(module: Any) -> None:
    node = Node(module)
    module.LIMIT = 5
    assert node.load(pack(module.locked))(2) == 7
    assert node.module.LOCK is not module.LOCK


def test_other_code_that_cannot_travel_is_an_error_that_names_it(module: Any) -> None:
    node = Node(module)
    module.helper = lambda x: 100 * x
    with pytest.raises(DeserializationError, match=r"helper is not the same code on this machine as in the script"):
        node.load(pack(module.locked))(2)


def test_large_data_is_left_there_if_it_is_the_same_and_refused_by_name_if_not(module: Any) -> None:
    node = Node(module)
    module.LIMIT = 5
    assert node.load(pack(module.big))(2) == (2, 7)
    module.BIG[3] = -1
    with pytest.raises(DeserializationError, match=r"BIG is not the same on this machine .* too large to travel"):
        node.load(pack(module.big))(2)


def test_code_put_in_place_for_one_call_is_taken_back_for_another(module: Any) -> None:
    node = Node(module)
    script = types.ModuleType("__main__")
    exec(f"def f(x):\n    from {module.__name__} import helper\n    return helper(x)", script.__dict__)
    before = pack(script.f)
    original, module.helper = module.helper, lambda x: 100 * x
    patched = pack(script.f)
    module.helper = original
    for _ in range(2):
        assert node.load(before)(2) == 3
        assert node.load(patched)(2) == 200
        assert node.load(pack(module.f))(2) == (3, 1, 1, 2)


def test_in_the_script_itself_nothing_is_set(module: Any) -> None:
    blob = pack(module.f)
    module.LIMIT = 5
    func, surroundings = load_function(blob)
    if surroundings is not None:
        surroundings.prepare()
    assert func(1) == (2, 1, 1, 2)
    assert module.LIMIT == 5


def test_code_counts_by_what_it_does_and_data_by_what_it_holds() -> None:
    def made(body: str) -> Callable[..., object]:
        names: dict[str, Callable[..., object]] = {}
        exec(f"def f(x=1):\n    return {body}", names)
        return names["f"]

    assert meaning(made("x + 1")) == meaning(made("x + 1"))
    assert len({meaning(made(body)) for body in ("x + 1", "x + 2", "x + 1.0", "(lambda: x)()", "{x, 1}")}) == 5
    assert contents({"a": {1, 2}, "b": [1]}) == contents({"b": [1], "a": {2, 1}})
    assert len({contents(one) for one in (1, 1.0, True, "1", b"1", [1], (1,), {1}, {1: 1}, None)}) == 10
