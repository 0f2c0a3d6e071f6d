"""Rows of a table of faults: a few for `make chaos`, which runs often, all others for `make soak`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

T = TypeVar("T")


def rows(all_: Iterable[T], chaos: Collection[T]) -> list[ParameterSet]:
    """Return the parameters of a test, those of ``chaos`` with that mark, the others with the mark ``soak``."""
    given = list(all_)
    assert all(row in given for row in chaos)
    return [_row(one, "chaos" if one in chaos else "soak") for one in given]


def _row(one: object, mark: str) -> ParameterSet:
    values = one if isinstance(one, tuple) else (one,)
    return pytest.param(*values, marks=getattr(pytest.mark, mark))
