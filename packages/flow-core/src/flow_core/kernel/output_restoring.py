"""Outcomes of tries that were killed or lost, held back until what they moved aside lies at its place again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flow_core.interfaces.outcome import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flow_core.graph.task import Task
    from flow_core.interfaces.call import TryKey
    from flow_core.interfaces.outcome import Outcome
    from flow_core.staging.manager import StagingManager

# Other ends go through the function of the task itself, which puts back what it moved aside before it reports.
_NOT_BY_ITSELF = frozenset((Verdict.CANCELLED, Verdict.LOST))


class OutputRestoring:
    """Has outputs of such tries settled, so that no half file is found once the end of a task is seen. Any thread."""

    def __init__(
        self,
        staging: StagingManager,
        task_of: Callable[[TryKey], Task | None],
        report: Callable[[Sequence[Outcome]], None],
    ) -> None:
        """Take the staging manager, what gives the task of a try, and the receiver of outcomes after that."""
        self._staging = staging
        self._task_of = task_of
        self._report = report

    def take(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Return the outcomes that may be reported now; the others are when their files are put back. Never blocks."""
        now = []
        for outcome in outcomes:
            task = self._task_of(outcome.key) if outcome.verdict in _NOT_BY_ITSELF else None
            if task is None or task.details is None or not task.details.replaced:
                now.append(outcome)
            else:
                # The outcome waits, not the thread: a move on a shared file system may take long.
                then = partial(self._report, (outcome,))
                self._staging.put_back(task.tid, task.details.replaced, task.tries + 1, then)
        return now
