"""What is shown of a traceback: the user's frames with their source, wherever that is."""

from __future__ import annotations

import linecache
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from flow_core.errors import AppException
from flow_core.interfaces.call import NodeContext
from flow_core.remote import tracebacks
from flow_core.remote.errors import pack, unpack
from flow_core.remote.parcel import pack_task, unpack_result
from flow_core.remote.parcel_run import run_parcel
from flow_core.remote.run import execute

CELL = "/tmp/ipykernel_7/1.py"
CELLS = """
def look(key):
    return {}[
        key
    ]

def deep(depth):
    if depth:
        return deep(depth - 1)
    raise ValueError("bottom")

def ping(depth):
    return pong(depth - 1) if depth else 1 / 0

def pong(depth):
    return ping(depth)

def chained(key):
    try:
        return look(key)
    except KeyError as error:
        raise RuntimeError("no such key") from error

def grouped():
    raise ExceptionGroup("two", [OSError("one"), ValueError("other")])
"""


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Functions of a notebook's cell, whose source is in linecache alone."""
    monkeypatch.setitem(linecache.cache, CELL, (len(CELLS), None, CELLS.splitlines(keepends=True), CELL))
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CELLS, CELL, "exec"), space)
    return space


def caught(func: Callable[..., object], *args: object) -> BaseException:
    try:
        execute(func, args, {}, tracebacks_spec(), (_Step(),), NodeContext())
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


class _Step:
    """A step, so that frames of Flow lie around the function."""

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        return inner()


def tracebacks_spec() -> Any:
    from flow_core.interfaces.call import TaskSpec

    return TaskSpec(walltime_s=60.0)


def test_source_of_a_cell_is_shown_though_the_node_does_not_have_it(cell: dict[str, Any]) -> None:
    data = pack_task(cell["look"], ("pressure",))
    source = linecache.cache.pop(CELL)
    result = run_parcel(data)  # the node
    linecache.cache[CELL] = source
    error = unpack_result(result).error
    assert getattr(error, "remote_traceback", "").startswith(
        f'Traceback (most recent call last):\n  File "{CELL}", line 3, in look\n    return {{}}[\n'
    )
    assert "KeyError: 'pressure'" in getattr(error, "remote_traceback", "")
    assert "flow_core" not in "".join(traceback.format_exception(error))


def test_a_node_without_the_source_and_a_script_without_it_show_file_and_line(cell: dict[str, Any]) -> None:
    del linecache.cache[CELL]
    error = unpack_result(run_parcel(pack_task(cell["look"], ("pressure",)))).error
    assert getattr(error, "remote_traceback", "") == (
        f"Traceback (most recent call last):\n  File \"{CELL}\", line 3, in look\nKeyError: 'pressure'\n"
    )


def test_marks_below_the_failing_expression_are_kept(cell: dict[str, Any]) -> None:
    error = unpack_result(run_parcel(pack_task(cell["ping"], (0,)))).error
    assert "~~^~~" in getattr(error, "remote_traceback", "")


def test_frames_of_flow_are_left_out_unless_asked_for(cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(caught(cell["look"], "key"))
    shown = getattr(unpack(packed), "remote_traceback", "")
    assert "in look" in shown
    assert "in execute" not in shown
    monkeypatch.setenv(tracebacks.FULL, "1")
    assert "in execute" in getattr(unpack(packed), "remote_traceback", "")


def test_an_error_that_flow_raised_on_purpose_shows_its_message_alone() -> None:
    class Refusing(_Step):
        def run(self, inner: Callable[[], object], where: NodeContext) -> object:
            raise AppException("it cannot be: do this instead")

    Refusing.run.__code__ = Refusing.run.__code__.replace(co_filename=execute.__code__.co_filename)
    try:
        Refusing().run(lambda: None, NodeContext())
    except AppException as error:
        error.with_traceback(None if error.__traceback__ is None else error.__traceback__.tb_next)
        back = unpack(pack(error))
    assert getattr(back, "remote_traceback", "") == "flow_core.errors.AppException: it cannot be: do this instead\n"
    assert not back.__notes__


def test_an_error_of_flow_itself_shows_its_frames() -> None:
    try:
        execute(None, (), {}, tracebacks_spec(), (_Step(),), NodeContext())  # type: ignore[arg-type]  # that is the error
    except TypeError as error:
        trace = error.__traceback__
        error.__traceback__ = None if trace is None else trace.tb_next
        inner = error.__traceback__
        while inner is not None and inner.tb_next is not None:
            inner = inner.tb_next
        assert inner is not None
        back = unpack(pack(error.with_traceback(inner)))
    assert "remote/run.py" in getattr(back, "remote_traceback", "")


def test_recursion_is_told_in_short(cell: dict[str, Any]) -> None:
    shown = getattr(unpack(pack(caught(cell["deep"], 200))), "remote_traceback", "")
    assert "[Previous line repeated 197 more times]" in shown
    assert shown.count("in deep") == 4


def test_of_a_long_stack_both_ends_are_shown(cell: dict[str, Any]) -> None:
    data = pack(caught(cell["ping"], 300))
    shown = getattr(unpack(data), "remote_traceback", "")
    assert "frames left out" in shown
    assert "division by zero" in shown
    assert len(data) < 64_000


def test_the_traceback_of_a_cause_comes_before_it(cell: dict[str, Any]) -> None:
    shown = getattr(unpack(pack(caught(cell["chained"], "k"))), "remote_traceback", "")
    first, _, second = shown.partition("direct cause of the following exception")
    assert "in look" in first
    assert "KeyError: 'k'" in first
    assert "raise RuntimeError" in second
    back = unpack(pack(caught(cell["chained"], "k")))
    assert "in look" in "".join(getattr(back.__cause__, "__notes__", []))
    assert "in look" not in "".join(back.__notes__)


def test_the_members_of_a_group_are_shown_below_it(cell: dict[str, Any]) -> None:
    shown = getattr(unpack(pack(caught(cell["grouped"]))), "remote_traceback", "")
    assert shown.index("in grouped") < shown.index("| OSError: one") < shown.index("| ValueError: other")


def test_a_thread_drops_the_frames_of_flow_before_those_of_the_user(cell: dict[str, Any]) -> None:
    error = caught(lambda: cell["chained"]("k"))
    error.__traceback__ = None if error.__traceback__ is None else error.__traceback__.tb_next  # this file's
    tracebacks.fold(error)
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-1] == "chained"
    assert "execute" not in "".join(traceback.format_tb(error.__traceback__))


def test_frames_are_plain_data(cell: dict[str, Any]) -> None:
    described = tracebacks.frames(caught(cell["look"], 1).__traceback__)
    assert {type(row) for row in described} == {tuple}
    assert pickle.loads(pickle.dumps(described)) == described


def test_an_exception_that_allows_nothing_is_folded_without_harm() -> None:
    class Odd(Exception):
        @property
        def __cause__(self) -> BaseException:  # type: ignore[override]  # that is what is odd
            raise RuntimeError("no")

    try:
        raise Odd
    except Odd as error:
        tracebacks.fold(error)
