"""Tracebacks that cross processes, and what of them is shown: the frames of the user's code.

Whoever catches an exception describes its frames; whoever shows it adds the source lines. Code that travelled by value
was written where the script is, so the script's ``linecache`` knows it (cells of notebooks too); that of the node may
not.

Frames of Flow's own are left out where the user's are known. With ``FLOW_FULL_TRACEBACKS=1`` in the environment of the
script all are shown.
"""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from flow_core.errors import FlowError
from flow_core.guard import is_a, pass_signal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType, TracebackType

_T = TypeVar("_T")
FULL = "FLOW_FULL_TRACEBACKS"
HEADER = "Traceback (most recent call last):\n"
_OWN = (
    "cloudpickle",
    "flow",
    "flow_core",
    "flow_executors",
    "flow_monitor",
    "flow_providers",
    "flow_staging",
    "flow_viz",
)
_ENDS_KEPT = 50  # frames at each end of a long stack
_REPEATS_SHOWN = 3  # as the interpreter does
_FRAME_LIMIT = 2000  # characters


class Frame(NamedTuple):
    """One line of a stack, as it travels.

    Attributes:
        text: The frame as the process that caught the exception shows it.
        own: Whether the code is Flow's.
        by_value: Whether the code came from the script by value.
        times: How many frames in a row are like this one.
    """

    file: str
    line: int
    name: str
    end_line: int | None
    column: int | None
    end_column: int | None
    text: str
    own: bool
    by_value: bool
    times: int = 1


def frames(trace: TracebackType | None) -> list[tuple[object, ...]]:
    """Describe the frames of a traceback by plain data for ``shown``; of a long one both ends.

    Never raises but for a lack of memory: source that cannot be read is left out.
    """
    own = _own_directories()
    rows = _rows(trace)
    if len(rows) <= 2 * _ENDS_KEPT:
        return [tuple(_described(row, own)) for row in rows]
    left = sum(times for *_, times in rows[_ENDS_KEPT:-_ENDS_KEPT])
    gap = Frame("", 0, "", None, None, None, f"  ... {left} frames left out ...\n", False, False)
    ends = [_described(row, own) for row in (*rows[:_ENDS_KEPT], *rows[-_ENDS_KEPT:])]
    return [tuple(frame) for frame in (*ends[:_ENDS_KEPT], gap, *ends[_ENDS_KEPT:])]


def shown(described: Iterable[tuple[object, ...]], deliberate: bool) -> str:
    """Return the lines of frames that ``frames`` described, with source, without those of Flow.

    Args:
        described: What ``frames`` returned, in this process or another.
        deliberate: Whether the exception was raised by Flow on purpose. Else, where all frames are Flow's, they are
            shown: it is Flow that failed.
    """
    every = [Frame(*values) for values in described]  # type: ignore[arg-type]  # a tuple of a Frame
    return "".join(map(_lines, _kept(every, [frame.own for frame in every], deliberate)))


def formatted(error: BaseException) -> str:
    """Return the traceback of an exception caught in this process, its causes and the members of a group with it."""
    told = traceback.TracebackException.from_exception(error)
    _fold(told, _own_directories(), is_a(error, FlowError), 0)
    return "".join(told.format())


def fold(error: BaseException) -> None:
    """Cut the frames of Flow that lie before the user's off an exception caught in this process, and off its causes.

    What Flow raised on purpose loses all of them; where all are Flow's in another exception they stay. Never raises.
    """
    if os.environ.get(FULL):
        return
    own, seen = _own_directories(), 0
    linked: BaseException | None = error
    deliberate = False
    while linked is not None and seen < _ENDS_KEPT:
        deliberate = deliberate or is_a(linked, FlowError)
        try:
            trace = linked.__traceback__
            BaseException.with_traceback(linked, _from_users(trace, own) or (None if deliberate else trace))
            after = linked.__context__ if linked.__cause__ is None else linked.__cause__
        except BaseException as failure:  # a class of the user's with odd attributes
            pass_signal(failure)
            return
        linked, seen = after, seen + 1


def _from_users(trace: TracebackType | None, own: tuple[str, ...]) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(own):
        trace = trace.tb_next
    return trace


# -- where an exception is caught

_Row = tuple["FrameType", int, int, int]  # frame, line, instruction, how many like it


def _rows(trace: TracebackType | None) -> list[_Row]:
    rows: list[_Row] = []
    while trace is not None:
        frame, line = trace.tb_frame, trace.tb_lineno or 0
        last = rows[-1] if rows else None
        if last is not None and last[0].f_code is frame.f_code and last[1] == line:
            rows[-1] = (*last[:3], last[3] + 1)
        else:
            rows.append((frame, line, trace.tb_lasti, 1))
        trace = trace.tb_next
    return rows


def _positions(code: CodeType, instruction: int) -> tuple[int | None, int | None, int | None]:
    found = next(islice(code.co_positions(), instruction // 2, None), None) if instruction >= 0 else None
    return (None, None, None) if found is None else found[1:]


def _described(row: _Row, own: tuple[str, ...]) -> Frame:
    frame, line, instruction, times = row
    code, module = frame.f_code, sys.modules.get(str(frame.f_globals.get("__name__")))
    bare = Frame(
        code.co_filename,
        line,
        code.co_name,
        *_positions(code, instruction),
        text="",
        own=code.co_filename.startswith(own),
        by_value=getattr(module, "__dict__", None) is not frame.f_globals,
        times=times,
    )
    try:
        linecache.checkcache(bare.file)
        linecache.lazycache(bare.file, frame.f_globals)
        text = _formatted(bare)
    except Exception:
        text = f'  File "{bare.file}", line {line}, in {bare.name}\n'
    return bare._replace(text=text[:_FRAME_LIMIT])


def _formatted(frame: Frame) -> str:
    summary = traceback.FrameSummary(
        frame.file,
        frame.line,
        frame.name,
        end_lineno=frame.end_line,
        colno=frame.column,
        end_colno=frame.end_column,
    )
    return "".join(traceback.StackSummary.from_list([summary]).format())


def _own_directories() -> tuple[str, ...]:
    """Return the directories of Flow's packages that are loaded, and of that which pickles for them."""
    files = (getattr(sys.modules.get(name), "__file__", None) for name in _OWN)
    return tuple(os.path.dirname(file) + os.sep for file in files if isinstance(file, str))


# -- where it is shown


def _kept(every: list[_T], own: list[bool], deliberate: bool) -> list[_T]:
    if os.environ.get(FULL):
        return every
    kept = [frame for frame, is_own in zip(every, own, strict=True) if not is_own]
    return kept if kept or deliberate else every


def _lines(frame: Frame) -> str:
    text = _with_source(frame) or frame.text
    if frame.times <= _REPEATS_SHOWN:
        return text * frame.times
    more = frame.times - _REPEATS_SHOWN
    return f"{text * _REPEATS_SHOWN}  [Previous line repeated {more} more time{'s' if more > 1 else ''}]\n"


def _with_source(frame: Frame) -> str:
    """Return the text of a frame whose source is here; nothing if it is not."""
    if not frame.by_value or not frame.line:
        return ""
    try:
        linecache.checkcache(frame.file)
        main = sys.modules.get("__main__")
        if main is not None and getattr(main, "__file__", None) == frame.file:
            linecache.lazycache(frame.file, vars(main))  # a script in an archive
        return _formatted(frame) if linecache.getline(frame.file, frame.line) else ""
    except Exception:
        return ""


def _fold(told: traceback.TracebackException, own: tuple[str, ...], deliberate: bool, depth: int) -> None:
    """Take Flow's frames out of a traceback, and of those that it is chained with."""
    if told.stack is not None:
        stack = list(told.stack)
        stack = _kept(stack, [frame.filename.startswith(own) for frame in stack], deliberate)
        told.stack = traceback.StackSummary.from_list(stack) if stack else None  # type: ignore[assignment]  # no header
    linked = (told.__cause__, told.__context__, *(told.exceptions or ()))
    for other in linked if depth < _ENDS_KEPT else ():
        if other is not None:
            _fold(other, own, deliberate, depth + 1)
