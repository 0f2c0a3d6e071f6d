"""What a function names of the users own modules: a node is made to have it as the script has, or refuses by name."""

from __future__ import annotations

import functools
import importlib
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import DeserializationError
from flow_core.remote import callables, modules as on_node
from flow_core.remote.contents import contents, meaning
from flow_core.remote.functions import BY_VALUE, REFERENCE, load_function
from flow_core.remote.refs import resolve
from flow_core.snapshot.arguments import packed_argument
from flow_core.snapshot.looks import Looks
from flow_core.snapshot.travel import packed

SOURCE = """
import collections, enum, functools, threading
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
    return packed(function, Looks(function, whole=False))


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


def test_functions_among_arguments_bring_what_they_name(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callables, "_pack", packed_argument)
    node = Node(module)
    for limit in (5, 7, 5):
        module.LIMIT = module.Bounds.upper = limit
        given = module.helper, functools.partial(module.helper, 1), module.Bounds().twice, 4
        data = pickle.dumps(callables.sent(given, {"key": module.helper}))
        (helper, part, twice, four), named = node.unpickle(data)
        assert (helper(1), part(), twice(), four, named["key"](2)) == (1 + limit, 1 + limit, 2 * limit, 4, 2 + limit)


def test_arguments_without_functions_are_left_alone(module: Any) -> None:
    assert callables.sent((1, "text", [len], module.Bounds), {"key": module.Bounds()}) is None


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
