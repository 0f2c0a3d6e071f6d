"""What the graph asks the shell to do, and what the shell tells the graph."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flow_core.graph.task import Task

Event = tuple[Callable[[Any], None], object]
"""A bound method of Core and its one argument."""

Failure = tuple[str, BaseException, object]
"""Who failed, with what, and the future that was waited for (None for none)."""


class Effect(IntEnum):
    """What the shell must do. Each effect is a tuple of its kind, its task and one more thing or None.

    An int, since it is looked up for each: the hash of a plain member is a call of Python.
    """

    PREPARE = auto()
    """Put results into the arguments; make the key of a cached call (``keyed``) or else PLACE it."""
    LOOK_UP = auto()
    """Look for a remembered result (``remembered``), else PLACE it."""
    SHARE = auto()
    """Give a call that followed an identical one its own copy of the result given: ``remembered``."""
    PLACE = auto()
    """Choose an executor and plan the staging: ``placed``, ``staging`` and ``staged``, or ``unplaced``."""
    LAUNCH = auto()
    """Hand the try to its executor."""
    PRICE = auto()
    """Ask what the failure given costs: ``priced``."""
    JOIN = auto()
    """Find the futures in what the body of a join app returned (given): ``joining``, or ``failed``."""
    UNWRAP = auto()
    """Put the results of joined futures in their place: ``joined``."""
    PUBLISH = auto()
    """Bring outputs out and remember the result given: ``published``."""
    CANCEL = auto()
    """Ask the executor to cancel the try: (executor, key, kill)."""
    CHANGED = auto()
    """Tell that the task entered its state, and how its try failed (an exception, or a Loss) if it did."""
    TRY_STARTED = auto()
    """Tell that a try started: (time in ns UTC, place)."""
    TRY_ENDED = auto()
    """Tell how a try ended: its Outcome."""


Effects = list[tuple[Effect, "Task", Any]]
