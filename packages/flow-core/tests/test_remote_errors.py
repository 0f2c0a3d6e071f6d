"""Exceptions that cross processes."""

from __future__ import annotations

import errno
import importlib
import os
import pickle
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, strategies as st

from flow_core.errors import BashExitFailure, DependencyError, MissingOutputs, RemoteError
from flow_core.remote.errors import cut, pack, unpack


class TwoArguments(Exception):
    """Its constructor takes other arguments than it hands to its base."""

    def __init__(self, code: int, where: str) -> None:
        super().__init__(f"code {code} at {where}")
        self.code = code
        self.where = where


class KeywordOnly(ValueError):
    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Prefixing(Exception):
    """Calling it with its own args again would change its text."""

    def __init__(self, text: str) -> None:
        super().__init__(f"bad: {text}")


class Holding(Exception):
    def __init__(self, text: str, held: object) -> None:
        super().__init__(text)
        self.held = held


class TextRaises(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class ReduceRaises(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


class OddText(str):
    """Text that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


class OddlyTold(Exception):
    def __str__(self) -> str:
        return OddText("told")


class ReducesToAnother(Exception):
    def __reduce__(self) -> Any:
        return (int, (5,))


class OwnGroup(ExceptionGroup[Exception]):
    pass


def sent(exc: BaseException) -> BaseException:
    """Raise it, so that it has a traceback, and send it over."""
    try:
        raise exc
    except BaseException as raised:
        return unpack(pack(raised))


def test_an_exception_comes_over_as_itself() -> None:
    back = sent(ZeroDivisionError("division by zero"))
    assert type(back) is ZeroDivisionError
    assert back.args == ("division by zero",)


@pytest.mark.parametrize(
    "exc",
    [
        FileNotFoundError(errno.ENOENT, "none", "a.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        SyntaxError("wrong", ("f.py", 3, 2, "x y", 3, 4)),
        KeyError("k"),
        StopIteration(5),
        SystemExit(3),
        KeyboardInterrupt(),
        ImportError("no", name="mod", path="/p"),
        BashExitFailure("failed", 3, stderr_tail="tail"),
        MissingOutputs("none", ["a"]),
        DependencyError("dep", [ValueError(1)]),
    ],
)
def test_attributes_of_known_exceptions_come_over(exc: BaseException) -> None:
    back = sent(exc)
    assert type(back) is type(exc)
    assert str(back) == str(exc)
    for name in ("errno", "filename", "reason", "lineno", "value", "code", "name", "exitcode", "outputs"):
        assert repr(getattr(back, name, None)) == repr(getattr(exc, name, None))


def test_constructors_are_not_called_with_what_they_do_not_expect() -> None:
    back = sent(TwoArguments(5, "home"))
    assert isinstance(back, TwoArguments)
    assert (back.code, back.where, str(back)) == (5, "home", "code 5 at home")
    keyword = sent(KeywordOnly(reason="r"))
    assert isinstance(keyword, KeywordOnly)
    assert keyword.reason == "r"
    assert str(sent(Prefixing("x"))) == "bad: x"


def test_what_cannot_be_pickled_comes_over_as_text() -> None:
    back = sent(Holding("text", threading.Lock()))
    assert isinstance(back, Holding)
    assert str(back) == "text"
    assert "lock" in str(back.held)


def test_arguments_that_cannot_be_pickled_come_over_as_text() -> None:
    back = sent(ValueError("x", threading.Lock()))
    assert type(back) is ValueError
    assert "lock" in back.args[1]


@pytest.mark.parametrize("exc", [TextRaises("t"), ReduceRaises("r"), ReducesToAnother("a"), OddlyTold()])
def test_hostile_exceptions_come_over_somehow(exc: BaseException) -> None:
    back = sent(exc)
    assert isinstance(back, (type(exc), RemoteError))


def test_the_remote_traceback_is_kept_and_shown() -> None:
    back = sent(ValueError("v"))
    assert "in sent" in getattr(back, "remote_traceback", "")
    assert "in sent" in "".join(traceback.format_exception(back))


def test_notes_are_kept() -> None:
    exc = ValueError("v")
    exc.add_note("the user's note")
    assert "the user's note" in sent(exc).__notes__


def test_an_exception_sent_twice_shows_its_first_traceback_once() -> None:
    twice = sent(sent(ValueError("v")))
    assert type(twice) is ValueError
    assert len([note for note in twice.__notes__ if "Remote traceback" in note]) == 1
    assert "raised again through" in getattr(twice, "remote_traceback", "")


def test_causes_are_chained() -> None:
    try:
        try:
            raise KeyError("root")
        except KeyError as root:
            raise TwoArguments(1, "top") from root
    except TwoArguments as top:
        back = unpack(pack(top))
    assert isinstance(back.__cause__, KeyError)
    assert back.__suppress_context__


def test_a_context_is_kept_and_from_none_too() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904  (the context is what is tested)
    except ValueError as exc:
        back = unpack(pack(exc))
    assert isinstance(back.__context__, KeyError)
    assert back.__cause__ is None


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    back = unpack(pack(first))
    assert isinstance(back.__cause__, ValueError)


def test_a_long_chain_is_cut() -> None:
    exc = ValueError(0)
    for number in range(1, 1000):
        above = ValueError(number)
        above.__cause__ = exc
        exc = above
    back: BaseException | None = unpack(pack(exc))
    length = 0
    while back is not None:
        back, length = back.__cause__, length + 1
    assert 10 <= length <= 100


def test_groups_keep_their_members_and_type() -> None:
    back = sent(ExceptionGroup("several", [TwoArguments(1, "a"), ExceptionGroup("inner", [KeyError("k")])]))
    assert type(back) is ExceptionGroup
    assert [type(member) for member in back.exceptions] == [TwoArguments, ExceptionGroup]
    assert type(sent(OwnGroup("own", [ValueError(1)]))) is OwnGroup
    assert type(sent(BaseExceptionGroup("base", [KeyboardInterrupt()]))) is BaseExceptionGroup


def test_huge_texts_are_bounded() -> None:
    data = pack(ValueError("x" * 50_000_000))
    assert len(data) < 1_000_000
    back = unpack(data)
    assert type(back) is ValueError
    assert "characters left out" in str(back)


def test_a_huge_attribute_is_bounded() -> None:
    data = pack(Holding("text", b"x" * 50_000_000))
    assert len(data) < 1_000_000
    assert isinstance(unpack(data), Holding)


def test_a_class_that_is_not_here_becomes_a_remote_error_that_says_all() -> None:
    script = (
        "import sys, types\n"
        "from flow_core.remote.errors import pack\n"
        "module = types.ModuleType('only_there'); sys.modules['only_there'] = module\n"
        "exec('class Strange(Exception): pass', module.__dict__)\n"
        "try:\n    raise module.Strange('what happened')\n"
        "except Exception as error:\n    sys.stdout.buffer.write(pack(error))\n"
    )
    data = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=50).stdout
    back = unpack(data)
    assert isinstance(back, RemoteError)
    assert (back.type_name, back.text) == ("only_there.Strange", "what happened")
    assert "Traceback" in back.remote_traceback


def test_an_exception_of_mpi4py_does_not_begin_mpi_where_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").touch()
    (tmp_path / "mpi4py" / "MPI.py").write_text("class Exception(RuntimeError):\n    pass\n")
    script = (
        "import sys\n"
        "from flow_core.remote.errors import pack\n"
        "from mpi4py import MPI\n"
        "sys.stdout.buffer.write(pack(MPI.Exception('MPI_ERR_RANK')))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("mpi4py", "mpi4py.MPI"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), *filter(None, sys.path)))}
    data = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=50, env=environment
    ).stdout
    back = unpack(data)
    assert isinstance(back, RemoteError)
    assert (back.type_name, back.text) == ("mpi4py.MPI.Exception", "MPI_ERR_RANK")
    assert "mpi4py.MPI" not in sys.modules
    # Where the script has begun it, the exception is itself.
    loaded = importlib.import_module("mpi4py.MPI")
    assert type(unpack(data)) is loaded.Exception


def test_a_class_of_the_main_script_comes_back_as_the_class_it_was() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("class Mine(Exception): pass\ndef fail():\n    raise Mine('text')", namespace)
    worker = (
        "import pickle, sys\n"
        "from flow_core.remote.errors import pack\n"
        "fail = pickle.loads(sys.stdin.buffer.read())\n"
        "try:\n    fail()\nexcept Exception as error:\n    sys.stdout.buffer.write(pack(error))\n"
    )
    data = subprocess.run(
        [sys.executable, "-c", worker],
        input=cloudpickle.dumps(namespace["fail"]),
        capture_output=True,
        check=True,
        timeout=50,
    ).stdout
    back = unpack(data)
    assert type(back) is namespace["Mine"]
    assert str(back) == "text"


@pytest.mark.parametrize("data", [b"", b"garbage", pickle.dumps(5), pickle.dumps({})])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a packed exception"):
        unpack(data)


values = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(st.sampled_from([ValueError, KeyError, RuntimeError, Exception]), st.lists(values, max_size=4))
def test_args_come_over_whatever_they_are(kind: type[Exception], args: list[object]) -> None:
    back = unpack(pack(kind(*args)))
    assert type(back) is kind
    assert back.args == tuple(args)


@given(st.text(), st.integers(10, 50))
def test_cut_texts_are_never_much_longer_than_the_limit(text: str, limit: int) -> None:
    assert len(cut(text, limit)) <= limit + 60
    if len(text) <= limit:
        assert cut(text, limit) == text
