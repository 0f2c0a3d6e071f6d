"""Many parents that many tasks wait for together: layers of tasks, each waiting for all of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flow_core.graph.states import State

if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any

    from flow_core.graph.effects import Failure
    from flow_core.graph.task import Task


class Junction:
    """Stands for a list of parents: m parents and n children make m + n edges, not m times n. The graph owns it.

    Attributes:
        futures: The futures of the parents as they stood in the arguments; None once the junction is open, so that it
            holds no results.
        state: ``pending`` until all parents have ended, then ``exec_done``.
        waiting: How many parents have not ended.
        children: Who waits for it.
        failures: How parents failed.
        error: None: what failed is in ``failures``.
    """

    __slots__ = ("children", "error", "failures", "futures", "state", "waiting")

    def __init__(self, futures: Sequence[Future[Any]]) -> None:
        self.futures: Sequence[Future[Any]] | None = futures
        self.state = State.pending
        self.waiting = 0
        self.children: list[Task | Junction] | None = None
        self.failures: list[Failure] = []
        self.error: BaseException | None = None

    def more(self) -> Junction:
        """Return where failures of parents are kept, as ``Task.more`` does."""
        return self
