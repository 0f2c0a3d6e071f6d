"""What is asked of the user's objects is asked so that nothing they do can get out."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from flow_core import guard
from flow_core.errors import FlowError, HookError
from flow_core.hooks import Calling
from flow_core.interfaces.outcome import read_before, report_read


class Exits(type):
    """Each question to its classes exits, too."""

    @property
    def __name__(cls) -> NoReturn:  # type: ignore[override]
        sys.exit("the metaclass")


class Hostile(Exception, metaclass=Exits):
    def _exit(self, *_: object) -> NoReturn:
        sys.exit("the object")

    __str__ = __repr__ = __bool__ = __len__ = __hash__ = __eq__ = _exit  # type: ignore[assignment]
    __class__ = property(_exit)  # type: ignore[assignment]
    remote_traceback = __notes__ = property(_exit)  # type: ignore[assignment]


class Subtext(str):
    def splitlines(self, keepends: bool = False) -> NoReturn:
        sys.exit("the text")


class Answers(Exception):
    def __init__(self, answer: Any) -> None:
        super().__init__("how it was made")
        self.answer = answer

    def __str__(self) -> Any:
        return self.answer


def test_a_hostile_object_can_be_named_and_shown() -> None:
    error = Hostile()
    assert guard.name_of(error) == "Hostile"
    assert guard.one_line(error) == "Hostile: <its text cannot be shown: str() raised SystemExit>"
    assert guard.shown(error) == "<Hostile, whose repr() raised SystemExit>"
    assert guard.is_a(error, Exception)
    assert not guard.is_a(error, FlowError)
    assert guard.attribute(error, "remote_traceback", "none") == "none"
    assert "Hostile" in guard.traceback_of(error)
    assert guard.called(error) == "Hostile"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("", "Answers"),
        ("two\nlines", "Answers: two"),
        (Subtext("plain"), "Answers: plain"),
        (3, "Answers: <its text cannot be shown: str() raised TypeError>"),
        ("\n \n", "Answers"),
    ],
)
def test_a_line_is_made_of_whatever_str_gives(answer: Any, line: str) -> None:
    assert guard.one_line(Answers(answer)) == line


def test_a_long_repr_is_cut() -> None:
    assert len(guard.shown("x" * 10_000)) < 250


def test_what_a_hook_raises_names_it_and_the_task() -> None:
    with pytest.raises(HookError, match=r"task 3: memoizer Hostile\.key\(\) raised SystemExit: 4") as raised:  # noqa: SIM117
        with Calling("task 3", "memoizer", Hostile(), "key"):
            sys.exit(4)
    assert raised.value.hook == "memoizer Hostile.key()"
    assert isinstance(raised.value.__cause__, SystemExit)


def test_flows_own_errors_pass_a_hook_as_they_are() -> None:
    own = FlowError("as it is")
    with pytest.raises(FlowError) as raised, Calling("task 3", "memoizer", None, "key"):
        raise own
    assert raised.value is own


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), ValueError()])
def test_what_code_raises_by_itself_is_not_of_a_signal(error: BaseException) -> None:
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Python's own handler leaves no trace
    try:
        raise error
    except BaseException as caught:
        assert not guard.from_signal(caught)  # noqa: PT017  (as it is seen where it is caught)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_a_signal_handler_raises_is_of_a_signal_also_where_it_was_turned_into_an_exit() -> None:
    def handler(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        try:
            signal.raise_signal(signal.SIGUSR1)
        except KeyboardInterrupt:
            sys.exit(130)
    except SystemExit as error:
        assert guard.from_signal(error)  # noqa: PT017  (the same)
        with pytest.raises(SystemExit):
            guard.pass_signal(error)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_another_thread_gets_no_signals() -> None:
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(guard.from_signal(KeyboardInterrupt())))
    thread.start()
    thread.join(10)
    assert seen == [False]


def test_ctrl_c_gets_through_a_callback_that_runs_on_the_main_thread() -> None:
    script = (
        "import os, signal, time\n"
        "from flow_core.futures.lean import Future\n"
        "future = Future()\n"
        "future.set_result(1)\n"
        "def callback(_):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(30)\n"
        "future.add_done_callback(callback)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr


class _Closed(Exception):
    def __getattribute__(self, name: str) -> object:
        raise SystemExit(name)


class _Property(Exception):
    @property
    def __dict__(self) -> Any:  # type: ignore[override]  # the point
        raise SystemExit("__dict__")


@pytest.mark.parametrize("kind", [_Closed, _Property])
def test_an_error_whose_attributes_exit_tells_no_versions_and_stops_nothing(kind: type[Exception]) -> None:
    error = kind()
    report_read(error, {"http://h/a": "1"})
    assert read_before(error) in ({}, {"http://h/a": "1"})
    assert read_before(error) == {}


class Stays:
    """Methods that do not return before they are told to."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __call__(self, *_args: object) -> Any:
        self.release.wait(30)
        return "late"


@pytest.fixture
def stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stays]:
    monkeypatch.setattr(guard, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(guard, "_stuck", {})
    one = Stays()
    yield one
    one.release.set()


@pytest.mark.parametrize("name", ["__str__", "__getattribute__"])
def test_an_exception_whose_text_does_not_come_is_told_of_by_its_class(name: str, stays: Stays) -> None:
    kind = type("Slow", (ValueError,), {name: stays if name == "__str__" else lambda self, _name: stays()})
    if name == "__str__":
        kind.__str__ = lambda self: stays()  # type: ignore[method-assign]
        assert guard.one_line(kind()) == "Slow: <its text cannot be shown: str() has not returned for 2 s>"
    assert "the traceback cannot be shown: it has not returned" in guard.traceback_of(kind())
    assert guard.to_log(kind()) is None


def test_a_value_inside_of_an_exception_that_does_not_tell_what_it_is_is_not_waited_for_either(stays: Stays) -> None:
    slow = type("Slow", (), {"__repr__": lambda self: stays()})
    assert "has not returned" in guard.text_of(KeyError(slow()))
    assert "whose repr() has not returned" in guard.shown([slow()])


def test_a_class_that_did_not_tell_once_is_not_asked_again(stays: Stays) -> None:
    asked: list[object] = []

    class Slow(ValueError):
        def __str__(self) -> str:
            asked.append(self)
            return str(stays())

    for _ in range(3):
        assert "has not returned" in guard.text_of(Slow())
    assert len(asked) == 1


def test_texts_of_the_users_own_that_come_are_shown_and_logged_as_ever() -> None:
    class Mine(ValueError):
        def __str__(self) -> str:
            return "what is wrong"

    error = Mine()
    assert guard.one_line(error) == "Mine: what is wrong"
    assert guard.traceback_of(error).endswith("Mine: what is wrong\n")
    assert guard.to_log(error) is error
    assert guard.shown([Mine]).startswith("[<class ")


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("k"), OSError(2, "gone", "file"), FlowError("text")])
def test_texts_of_plain_exceptions_are_made_without_a_thread(error: Exception) -> None:
    assert guard.answers(error)
    assert guard.to_log(error) is error
