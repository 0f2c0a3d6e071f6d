"""Text columns that a reader of a server takes up to a bound, whoever has written them: longer values come cut.

SQLite has such a bound for each connection; PostgreSQL sends whatever is there, up to 1 GB a value. So statements of a
reader ask for the length first, which is known without reading the value.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

LONGEST_NAME = 64 << 10
"""Bytes of names, labels, states, paths and their like."""
LONGEST_TEXT = 1 << 20
"""Bytes of what may be long: errors with their tracebacks, lists of the tasks that one depends on."""
_KEPT = 4096  # characters of a value that is cut: what it is can be told from them
_MARK = "flow_bounds_texts"


class _Bounded(FunctionElement[str]):
    """A text as far as it is read. Not ``bounded()`` in SQL: nothing, or a CASE on a server."""

    inherit_cache = False  # the bound is no part of its clauses
    type = Text()

    def __init__(self, column: ColumnElement[str], longest: int) -> None:
        super().__init__(column)
        self.longest = longest


@compiles(_Bounded)
def _compiled(element: _Bounded, compiler: SQLCompiler, **options: Any) -> str:
    (column,) = element.clauses
    text = compiler.process(column, **options)
    if not getattr(compiler.dialect, _MARK, False):
        return text
    size = f"octet_length({text})"
    cut = f"left({text}, {_KEPT}) || '[cut: ' || {size} || ' bytes]'"
    return f"CASE WHEN {size} > {element.longest} THEN {cut} ELSE {text} END"


class Name(TypeDecorator[str]):
    """A text that is short in what Flow writes."""

    impl = Text
    cache_ok = True
    longest = LONGEST_NAME

    def column_expression(self, column: ColumnElement[str]) -> ColumnElement[str]:
        """Return what is selected instead of a column."""
        return _Bounded(column, self.longest)


class LongText(Name):
    """A text that may be long."""

    cache_ok = True
    longest = LONGEST_TEXT


def bound_texts(engine: Engine) -> None:
    """Have the statements of an engine of a server cut texts beyond their bounds: those of readers."""
    setattr(engine.dialect, _MARK, True)


def is_text(column: Column[Any]) -> bool:
    """Return whether a column is one of these."""
    return isinstance(column.type, Name)
