"""Effects and events: what the graph asks the shell to do, and what the shell reports to the graph."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from flow_core.graph.task import Task
    from flow_core.interfaces.call import TryKey
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.outcome import Loss, Outcome, Place

Event = tuple[Callable[[Any], None], object]
"""A bound method of Core and its one argument."""

Failure = tuple[str, BaseException, object]
"""The name of what failed, its exception, and the future that was waited for (None for none)."""


class Effect(IntEnum):
    """Orders of the graph to the shell. Each effect is a tuple of its kind, its task and one more thing or None.

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
    RETRY_COST = auto()
    """Ask what the failure given costs: ``priced``."""
    JOIN = auto()
    """Find the futures in what the body of a join app returned (given): ``joining``, or ``failed``."""
    UNWRAP = auto()
    """Put the results of joined futures in their place: ``joined``."""
    STAGE_OUT = auto()
    """Bring outputs out and remember the result given: ``published``."""
    CANCEL = auto()
    """Ask the executor to cancel the try: (executor, key, kill)."""
    UNSTAGE = auto()
    """Stop moving its files: it has ended."""
    CHANGED = auto()
    """Emit that the task entered its state, and how its try failed (an exception, or a Loss) if it did."""
    TRY_STARTED = auto()
    """Emit that a try started: (time in ns UTC, place)."""
    TRY_ENDED = auto()
    """Emit how a try ended: its Outcome."""


LAUNCH: Final = Effect.LAUNCH
PLACE: Final = Effect.PLACE
PREPARE: Final = Effect.PREPARE
STAGE_OUT: Final = Effect.STAGE_OUT
"""Those of each task, by names of their own: see ``flow_core.graph.states``."""

if TYPE_CHECKING:
    Cancellation = tuple[Executor | None, TryKey, bool]
    """The executor that has the try, its key, and whether a running one is killed."""
    EffectRecord = (
        tuple[
            Literal[Effect.PREPARE, Effect.LOOK_UP, Effect.PLACE, Effect.UNWRAP, Effect.UNSTAGE],
            Task,
            None,
        ]
        | tuple[Literal[Effect.SHARE, Effect.JOIN, Effect.STAGE_OUT], Task, object]
        | tuple[Literal[Effect.LAUNCH], Task, TryKey]
        | tuple[Literal[Effect.RETRY_COST], Task, BaseException]
        | tuple[Literal[Effect.CANCEL], Task, Cancellation]
        | tuple[Literal[Effect.CHANGED], Task, BaseException | Loss | None]
        | tuple[Literal[Effect.TRY_STARTED], Task, tuple[int, Place]]
        | tuple[Literal[Effect.TRY_ENDED], Task, Outcome]
    )
    """The data of each kind of effect: mypy compares where one is appended."""
    Effects = list[EffectRecord]


# A field for each effect, so that one without a handler is an error of mypy and not of a run.
class EffectHandlers(NamedTuple):
    """Handlers of the effects: each is called with the task and what is given with the effect."""

    prepare: Callable[[Task, None], None]
    look_up: Callable[[Task, None], None]
    share: Callable[[Task, object], None]
    place: Callable[[Task, None], None]
    launch: Callable[[Task, TryKey], None]
    retry_cost: Callable[[Task, BaseException], None]
    join: Callable[[Task, object], None]
    unwrap: Callable[[Task, None], None]
    stage_out: Callable[[Task, object], None]
    cancel: Callable[[Task, Cancellation], None]
    unstage: Callable[[Task, None], None]
    changed: Callable[[Task, BaseException | Loss | None], None]
    try_started: Callable[[Task, tuple[int, Place]], None]
    try_ended: Callable[[Task, Outcome], None]

    def by_effect(self) -> dict[Effect, Callable[[Task, Any], None]]:
        """Return the handlers by their effects, whose names are those of the fields in capitals."""
        return {Effect[name.upper()]: handler for name, handler in self._asdict().items()}
