"""The identity of functions and the keys of calls: what makes another call, and what does not."""

# ruff: noqa: E501  (a pair of sources is read best side by side)

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from flow_core.errors import Unhashable
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity, MemoKey
from flow_core.memo import facts
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
key = memo_key(app, Call(users_module.f, ({{"b", "a", "c"}},), {{"k": {{"y": 1, "x": {{2, 1}}}}}}))
print(key.digest.hex())
"""

_MODULE = """
WORDS = {"one", "two", "three"}
def helper(x):
    return x in {"alpha", "beta", "gamma"}
class Kind:
    names = frozenset({"p", "q", "r"})
def f(x, **k):
    return helper(x) and WORDS and Kind.names
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
    monkeypatch.setattr(facts, "_LOADED_AT", float("inf"))
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
