"""Several calls of a function as one task; what ``FlowPoolExecutor.map`` sends with ``chunksize``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def call_each(func: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return the results of a function for each of several arguments; the first exception ends it."""
    return [func(*args) for args in calls]
