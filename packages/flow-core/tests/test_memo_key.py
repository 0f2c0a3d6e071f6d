"""The identity of functions and the keys of calls: what makes another call, and what does not."""

# ruff: noqa: E501  (a pair of sources is read best side by side)

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from flow_core.errors import Unhashable
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity, MemoKey
from flow_core.memo import code_facts
from flow_core.memo.key import memo_key, source_key


def function(source: str, name: str = "f", **names: object) -> Callable[..., object]:
    """Return a function as a user's own module would define it."""
    module = ModuleType("users_own")
    module.__dict__.update(names)
    exec(textwrap.dedent(source), module.__dict__)
    found: Callable[..., object] = module.__dict__[name]
    return found


def key(func: Callable[..., object], *args: object, ignore: tuple[str, ...] = (), **kwargs: object) -> MemoKey:
    return memo_key(AppIdentity("users_own.f", func, "python:1", ignore), Call(func, args, kwargs))


def same(one: str, other: str) -> bool:
    return key(function(one)).digest == key(function(other)).digest


BASE = "def f():\n    return 1"


@pytest.mark.parametrize(
    "other",
    [
        "\n\n\n# a comment\ndef f():\n    return 1",
        "def f():\n    '''A docstring.'''\n    return 1",
        "def f() -> int:\n    return 1  # why",
        "def g(): return 2\ndef f():\n\n    return 1",
    ],
)
def test_lines_comments_annotations_and_a_first_docstring_do_not_count(other: str) -> None:
    if "docstring" in other:
        assert same(other, other.replace("A docstring", "Another one"))
    else:
        assert same(BASE, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (BASE, "def f():\n    return 2"),
        (BASE, "def f():\n    return 1.0"),
        (BASE, "def f():\n    return True"),
        ("def f(): return len([])", "def f(): return sum([])"),
        ("def f(): return [x for x in (1, 2)]", "def f(): return [x for x in (1, 3)]"),
        ("def f(): return (lambda: 1)()", "def f(): return (lambda: 2)()"),
        ("def f():\n    '''a'''\n    return 'a'", "def f():\n    '''b'''\n    return 'b'"),
        ("def g(): return 1\ndef f(): return g()", "def g(): return 2\ndef f(): return g()"),
        ("def h(): return 1\ndef g(): return h()\ndef f(): return g()", "def h(): return 2\ndef g(): return h()\ndef f(): return g()"),
        ("def g(x=1): return x\ndef f(): return g()", "def g(x=2): return x\ndef f(): return g()"),
        ("def g(*, x=1): return x\ndef f(): return g()", "def g(*, x=2): return x\ndef f(): return g()"),
        ("N = 1\ndef f(): return N", "N = 2\ndef f(): return N"),
        ("N = {'a': [1]}\ndef f(): return N", "N = {'a': [2]}\ndef f(): return N"),
        ("N = 1\ndef f(): return [N for _ in 'x']", "N = 2\ndef f(): return [N for _ in 'x']"),
        ("def make(n):\n    def f(): return n\n    return f\nf = make(1)", "def make(n):\n    def f(): return n\n    return f\nf = make(2)"),
        ("class C:\n    def m(self): return 1\ndef f(): return C()", "class C:\n    def m(self): return 2\ndef f(): return C()"),
        ("class C:\n    x = 1\ndef f(): return C()", "class C:\n    x = 2\ndef f(): return C()"),
        ("class B: x = 1\nclass C(B): pass\ndef f(): return C()", "class B: x = 2\nclass C(B): pass\ndef f(): return C()"),
        ("import functools\n@functools.lru_cache\ndef g(): return 1\ndef f(): return g()", "import functools\n@functools.lru_cache\ndef g(): return 2\ndef f(): return g()"),
        ("import functools\ng = functools.partial(int, '1')\ndef f(): return g()", "import functools\ng = functools.partial(int, '2')\ndef f(): return g()"),
        ("import math\ndef f(): return math.sin(1)", "import math\ndef f(): return math.cos(1)"),
        ("def f(x=1): return x", "def f(x=2): return x"),
        ("def f(*, x=1): return x", "def f(*, x=2): return x"),
    ],
)  # fmt: skip
def test_what_a_function_does_and_names_counts(one: str, other: str) -> None:
    assert same(one, one)
    assert not same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("N = 1\ndef f(): return 'x'.N", "N = 2\ndef f(): return 'x'.N"),
        ("N = 1\ndef f(): return 1", "N = 2\ndef f(): return 1"),
        ("import threading\nL = threading.Lock()\ndef f(): return L", "import threading\nL = threading.Lock()\ndef f(): return L"),
    ],
)  # fmt: skip
def test_what_a_function_does_not_name_or_cannot_be_told_does_not_count(one: str, other: str) -> None:
    assert same(one, other)


CLASSES = {
    "plain": "class C:\n    def m(self): BODY\nc = C()",
    "inherited": "class B:\n    def m(self): BODY\nclass C(B): pass\nc = C()",
    "through a helper": "def helper(): BODY\nclass C:\n    def m(self): return helper()\nc = C()",
    "closure": "def made(n):\n    class C:\n        def m(self): return n\n    return C()\ndef n(): BODY\nc = made(n())",
    "property": "class C:\n    @property\n    def m(self): BODY\nc = C()",
    "cached property": "import functools\nclass C:\n    @functools.cached_property\n    def m(self): BODY\nc = C()",
    "partialmethod": "import functools\nclass C:\n    def n(self, x): BODY\n    m = functools.partialmethod(n, 1)\nc = C()",
    "nested": "class C:\n    class D:\n        def m(self): BODY\nc = C()",
    "descriptor": "class D:\n    def __get__(self, *given): BODY\nclass C:\n    m = D()\nc = C()",
    "slots": "class C:\n    __slots__ = ('x',)\n    def m(self): BODY\nc = C()",
    "dataclass": "import dataclasses\n@dataclasses.dataclass\nclass C:\n    x: int = 0\n    def m(self): BODY\nc = C()",
    "named tuple": "import typing\nclass C(typing.NamedTuple):\n    x: int = 0\n    def m(self): BODY\nc = C()",
    "enum": "import enum\nclass C(enum.Enum):\n    X = 1\n    def m(self): BODY\nc = C.X",
    "class of an enum": "import enum\nclass C(enum.Enum):\n    X = 1\n    def m(self): BODY\nc = C",
    "attribute of a member": "import enum\nclass C(enum.Enum):\n    X = 1\ndef m(): BODY\nC.X.more = m()\nc = C.X",
    "metaclass": "class M(type):\n    def m(cls): BODY\nclass C(metaclass=M): pass\nc = C",
    "metaclass of an instance": "class M(type):\n    def m(cls): BODY\nclass C(metaclass=M): pass\nc = C()",
    "class in a dict": "class C:\n    def m(self): BODY\nc = {'c': C}",
    "class in a set": "class C:\n    def m(self): BODY\nc = {C, int}",
    "instance in a list": "class C:\n    def m(self): BODY\nc = [C()]",
    "partial": "import functools\nclass C:\n    def m(self): BODY\nc = functools.partial(isinstance, 1, C)",
    "bound method": "class C:\n    def m(self): BODY\nc = C().m",
    "holds a lock": "import threading\nclass C:\n    def __init__(self): self.x = threading.Lock()\n    def m(self): BODY\nc = C()",
    "exception": "class C(ValueError):\n    def m(self): BODY\nc = C('x')",
    "ordered dict": "import collections\nclass C(collections.OrderedDict):\n    def m(self): BODY\nc = C(a=1)",
    "path": "import pathlib\nclass C(type(pathlib.Path())):\n    def m(self): BODY\nc = C('x')",
    "its own name": "class C:\n    def m(self): BODY\n    def n(self): return C\nC.c = C()\nc = C.c",
    "function's attribute": "def c(): return c.m\ndef m(): BODY\nc.m = m()",
    "mapping proxy": "import types\ndef m(): BODY\nc = types.MappingProxyType({'m': m()})",
    **{
        f"subclass of {base}": f"class C({base}):\n    def m(self): BODY\nc = C()"
        for base in ("str", "int", "float", "tuple", "list", "dict", "set", "frozenset", "bytes")
    },
    **{
        f"attribute of a {base}": f"def m(): BODY\nclass C({base}): pass\nc = C()\nc.m = m()"
        for base in ("str", "int", "list", "dict", "set")
    },
}


@pytest.mark.parametrize("way", ["as a global", "as an argument"])
@pytest.mark.parametrize("form", CLASSES)
def test_classes_of_the_users_own_count_by_what_they_do_wherever_they_are_met(
    form: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "users_own", ModuleType("users_own"))

    def keyed(body: str, number: int = 1) -> bytes:
        source = CLASSES[form].replace("BODY", body)
        func = function(f"N = {number}\n{source}\ndef f(x): return {'c' if way == 'as a global' else 'x'}")
        return key(func, 1 if way == "as a global" else func.__globals__["c"]).digest

    if form == "holds a lock" and way == "as an argument":
        pytest.skip("is no argument of cached apps")
    assert keyed("return 1") == keyed("return 1") != keyed("return 2")
    assert keyed("return N", 1) == keyed("return N", 1) != keyed("return N", 2)


def test_a_subclass_of_an_array_counts_with_its_methods_and_attributes() -> None:
    pytest.importorskip("numpy")
    source = "import numpy\nclass C(numpy.ndarray):\n    def m(self): return {0}\nc = numpy.zeros(2).view(C)\nc.a = {1}\ndef f(): return c"
    keys = [key(function(source.format(*each))).digest for each in ((1, 1), (1, 1), (2, 1), (1, 2))]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_what_a_dataclass_has_beside_its_fields_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "users_own", ModuleType("users_own"))
    source = (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    x: int = 0\nc = C()\nc.y = {}\ndef f(): return c"
    )
    assert same(source.format(1), source.format(1))
    assert not same(source.format(1), source.format(2))


def test_a_default_of_a_class_that_names_itself_counts_as_if_passed() -> None:
    func = function("class C:\n    def m(self): return C\nc = C()\ndef f(a=0, b=c): return b")
    assert key(func).digest == key(func, b=func.__globals__["c"]).digest


def test_code_of_which_each_names_all_is_walked_in_linear_time() -> None:
    names = [f"{kind}{number}" for kind in ("g", "C") for number in range(40)]
    bodies = [
        f"def {name}(): return {', '.join(names)}"
        if name[0] == "g"
        else f"class {name}:\n    def m(self): return {', '.join(names)}"
        for name in names
    ]
    source = "\n".join([*bodies, "def f(): return g0, C0"])
    began = time.monotonic()
    assert same(source, source)
    assert not same(source, source.replace("class C39:", "class C39:\n    x = 1"))
    assert time.monotonic() - began < 20


def test_code_at_the_end_of_a_long_chain_counts() -> None:
    chain = [f"def g{number}(): return g{number + 1}()" for number in range(300)]
    source = "\n".join([*chain, "N = 1", "def g300(): return N", "def f(): return g0()"])
    assert same(source, source)
    assert not same(source, source.replace("N = 1", "N = 2"))


def test_functions_that_name_themselves_or_each_other_end() -> None:
    source = "def g(n): return f(n)\ndef f(n): return g(n - 1) if n else f(0)"
    assert key(function(source), 1).digest == key(function(source), 1).digest


def test_a_helper_of_a_local_module_counts_by_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for body in ("1", "2"):
        helper = ModuleType("users_helper")
        exec(f"def g(): return {body}", helper.__dict__)
        monkeypatch.setitem(sys.modules, "users_helper", helper)
        digests.append(key(function("import users_helper\ndef f(): return users_helper.g()")).digest)
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    held = users_helper\n    return held.N",
        "def f(held=users_helper): return held.N",
        "def g(held=users_helper): return held.N\ndef f(): return g()",
        "held = {'it': users_helper}\ndef f(): return held['it'].N",
        "class C:\n    held = users_helper\n    def m(self): return self.held.N\ndef f(): return C().m()",
        "class C:\n    def m(self): return self.held.N\nc = C()\nc.held = users_helper\ndef f(): return c.m()",
    ],
)
def test_a_module_that_code_holds_counts_by_the_attributes_that_are_taken(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = ModuleType("users_helper")
    monkeypatch.setitem(sys.modules, "users_helper", helper)
    digests = []
    for helper.N, helper.M in ((1, 1), (1, 2), (2, 2)):  # type: ignore[attr-defined]  # the attributes that it gets
        digests.append(key(function("import users_helper\n" + source)).digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_view_of_a_dict_counts_by_what_it_shows() -> None:
    source = "D = {1: 1}\nK = D.keys()\ndef f(): return K"
    assert same(source, source)
    assert not same(source, source.replace("1: 1", "1: 1, 2: 2"))


def test_a_changed_global_counts_at_the_next_call() -> None:
    func = function("N = [1]\ndef f(): return N")
    before = key(func).digest
    func.__globals__["N"].append(2)
    assert key(func).digest != before


def test_positions_names_and_defaults_make_one_call() -> None:
    func = function("def f(a, b=2, *rest, c=3, **more): return a")
    assert len({key(func, 1).digest, key(func, a=1).digest, key(func, 1, 2).digest, key(func, 1, b=2, c=3).digest}) == 1
    others = [
        key(func, 2),
        key(func, 1, 3),
        key(func, 1, 2, 3),
        key(func, 1, d=1),
        key(func, 1, c=4),
        key(func, 1, e=1),
    ]
    assert len({other.digest for other in (key(func, 1), *others)}) == 7


def test_ignored_parameters_and_streams_do_not_count() -> None:
    func = function("def f(a, debug=False, stdout=None, **more): return a")
    assert key(func, 1, ignore=("debug",)).digest == key(func, 1, debug=True, stdout="x", ignore=("debug",)).digest
    assert key(func, 1).digest != key(func, 1, debug=True).digest
    assert key(func, 1, ignore=("extra",)).digest == key(func, 1, extra=2, ignore=("extra",)).digest


def test_outputs_count() -> None:
    func = function("def f(outputs=()): return 1")
    assert key(func, outputs=["a"]).digest != key(func, outputs=["b"]).digest


def test_a_lock_as_argument_is_refused_with_what_to_do() -> None:
    func = function("def f(xs): return 1")
    with pytest.raises(Unhashable, match=r"argument 'xs\[1\]' of cached app 'users_own.f'.*ignore_for_cache"):
        key(func, [1, threading.Lock()])


def test_the_parts_name_what_a_key_is_made_of() -> None:
    func = function("N = 1\ndef g(): return 1\ndef f(x): return g() + N")
    names = [name for name, _ in key(func, 1).parts]
    assert names == ["app", "cache tag", "code", "global 'N'", "global 'g'", "argument 'x'"]


def test_an_app_as_argument_counts_by_its_function() -> None:
    class App:
        def __init__(self, wrapped: Callable[..., object]) -> None:
            self.__wrapped__, self.lock = wrapped, threading.Lock()

    func = function("def f(app): return 1")
    apps = [App(function(f"def f(): return {number}")) for number in (1, 1, 2)]
    assert key(func, apps[0]).digest == key(func, apps[1]).digest != key(func, apps[2]).digest


def test_callables_that_are_no_functions_have_keys_too() -> None:
    import functools

    one, other = functools.partial(int, base=2), functools.partial(int, base=3)
    assert key(one, "1").digest == key(functools.partial(int, base=2), "1").digest
    assert key(one, "1").digest != key(other, "1").digest
    assert key(len, "a").digest != key(len, "b").digest


_PROGRAM = """
import sys
sys.path.insert(0, {directory!r})
import users_module
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity
from flow_core.memo.key import memo_key
app = AppIdentity("users_module.f", users_module.f, "python:1")
key = memo_key(app, Call(users_module.f, ({{"b", "a", "c"}},), {{"k": {{"y": 1, "x": users_module.KINDS}}}}))
print(key.digest.hex())
"""

_MODULE = """
WORDS = {"one", "two", "three"}
def helper(x):
    return x in {"alpha", "beta", "gamma"}
class Kind:
    names = frozenset({"p", "q", "r"})
    def known(self): return Kind, KINDS, other, REGISTRY
class Other:
    def known(self): return KINDS, REGISTRY
class Word(str):
    def known(self): return KINDS
KINDS = {Kind, Other, helper, Word("a"), Word("b")}
REGISTRY = {Kind: Other, Other: Kind(), Word("c"): Kind.known}
other = Other()
def f(x, **k):
    return helper(x) and WORDS and Kind.names, KINDS
"""


def test_a_key_does_not_change_with_the_hash_seed_or_the_lines(tmp_path: Path) -> None:
    digests = set()
    for seed, shift in (("0", ""), ("1", "\n\n# shifted\n"), ("4242", "\n" * 30)):
        directory = tmp_path / seed
        directory.mkdir()
        (directory / "users_module.py").write_text(shift + _MODULE)
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", _PROGRAM.format(directory=str(directory))]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=True)
        digests.add(result.stdout.strip())
    assert len(digests) == 1


def _from_file(path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    monkeypatch.setattr(code_facts, "_LOADED_AT", float("inf"))
    path.write_text(text)
    names: dict[str, object] = {"__name__": "users_own"}
    exec(compile(text, str(path), "exec"), names)
    return names["f"]  # type: ignore[return-value]  # the function that the text defines


def test_the_key_by_source_follows_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "N = 1\ndef g(): return 1\ndef f(): return g() + N\n"
    keys = [
        source_key(key(_from_file(tmp_path / f"{number}.py", changed, monkeypatch)))
        for number, changed in enumerate(
            [
                text,
                "\n\n" + text,
                text.replace("return 1", "return 3"),
                text.replace("N = 1", "N = 2"),
                text + "M = 3\n",
            ]
        )
    ]
    assert None not in keys
    assert keys[0] == keys[1] == keys[4]
    assert len(set(keys)) == 3


def test_a_source_edited_since_it_was_loaded_gives_no_key_by_source(tmp_path: Path) -> None:
    path = tmp_path / "edited.py"
    path.write_text("def f(): return 1\n")
    names: dict[str, Callable[..., object]] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    assert source_key(key(names["f"])) is None


def test_a_module_that_is_an_argument_counts_by_the_attributes_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = ModuleType("users_helper")
    monkeypatch.setitem(sys.modules, "users_helper", helper)
    digests = []
    for helper.N, helper.M in ((1, 1), (1, 2), (2, 2)):  # type: ignore[attr-defined]  # the attributes that it gets
        func = function("def f(*given): return inner(given)\ndef inner(given): return given[0][0].N")
        digests.append(key(func, [helper]).digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_masked_array_is_the_same_argument_however_often_it_is_looked_at() -> None:
    numpy = pytest.importorskip("numpy")
    func, array = function("def f(x): return x"), numpy.ma.array([1, 2], mask=[0, 1])
    first = key(func, array).digest
    str(array)
    assert key(func, array).digest == first == key(func, numpy.ma.array([1, 2], mask=[0, 1])).digest
