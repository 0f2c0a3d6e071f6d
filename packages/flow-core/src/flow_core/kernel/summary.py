"""Summary of a run: how many tasks are in which state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flow_core.graph.states import State
from flow_core.representation import html_table

if TYPE_CHECKING:
    from flow_core.graph.graph_core import GraphCore
    from flow_core.kernel.reactor import Reactor


@dataclass(frozen=True, slots=True)
class Summary:
    """Progress of a run, in numbers of tasks.

    Attributes:
        submitted: Calls taken.
        unfinished: Not ended.
        completed: Ran and ended well.
        memoized: Ended well without being run.
        failed: Failed themselves.
        dep_failed: Not run since a parent failed.
        cancelled: Cancelled.
        dropped_outcomes: Reports of tries that nobody waited for any more.
    """

    submitted: int = 0
    unfinished: int = 0
    completed: int = 0
    memoized: int = 0
    failed: int = 0
    dep_failed: int = 0
    cancelled: int = 0
    dropped_outcomes: int = 0

    def __str__(self) -> str:
        return f"{self.submitted} tasks: {', '.join(f'{number} {name}' for name, number in self._rows())}"

    def _repr_html_(self) -> str:
        return html_table(f"{self.submitted:,} tasks", [row for row in self._rows() if row[1]])

    def _rows(self) -> list[tuple[str, int]]:
        return [
            ("completed", self.completed),
            ("from memory", self.memoized),
            ("failed", self.failed),
            ("not run for a failed dependency", self.dep_failed),
            ("cancelled", self.cancelled),
            ("unfinished", self.unfinished),
        ]


def summarize(reactor: Reactor) -> Summary:
    """Return how far a run is now."""
    # Under the lock, so that the numbers are of one moment and add up.
    return reactor.call(lambda: _of(reactor.core), Summary())


def _of(core: GraphCore) -> Summary:
    counts, unfinished = core.counts, len(core.live)
    return Summary(
        submitted=unfinished + sum(counts.values()),
        unfinished=unfinished,
        completed=counts[State.exec_done],
        memoized=counts[State.memo_done],
        failed=counts[State.failed],
        dep_failed=counts[State.dep_fail],
        cancelled=counts[State.cancelled],
        dropped_outcomes=core.dropped,
    )
