"""Names in the text of code, such as a constant that is given to ``eval``."""

from __future__ import annotations

from types import CodeType

OF_GLOBALS = frozenset({"globals", "eval", "exec"})
"""Builtins that take globals by names, or by code, that are given as texts."""


def named_in_source(text: str) -> set[str]:
    """Return the names in the text of code; none if it is no code: that will raise where it runs."""
    try:
        # Compiled and never run: the names stand in the code object.
        return _named(compile(text, "<constant>", "exec"))
    except (SyntaxError, ValueError):
        return set()


def _named(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_named, inner))
