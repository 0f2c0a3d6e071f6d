"""Dependency edges of the graph: which task waits for which, and what the end of a parent means to its children."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from flow_core.graph.failures import failures_of
from flow_core.graph.states import EXEC_DONE
from flow_core.graph.task import SharedParents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flow_core.graph.effects import Failure
    from flow_core.graph.task import Task


# Descendants that are looked at for a circle: most tasks that are joined have none. The graph's lock is held meanwhile,
# so the search has a bound; a circle beyond it is not found, and the join waits.
_SEARCHED = 1000


class DependencyEdges:
    """Counts what each task waits for, and hands failures down. Pure; guarded by the graph's caller."""

    def __init__(self, unblocked: Callable[[Task], None]) -> None:
        """Take the function to call for each task that waits for nothing any more; it may end the task."""
        self._unblocked = unblocked
        self._spreading: deque[tuple[Task | SharedParents, list[Task | SharedParents]]] | None = None

    def add(self, parents: Sequence[Task | SharedParents], child: Task | SharedParents) -> None:
        """Let a child wait for those parents that have not ended, and know how the others failed."""
        count = 0
        for parent in parents:
            if parent.state < EXEC_DONE:
                count += 1
                if parent.children is None:
                    parent.children = [child]
                else:
                    parent.children.append(child)
            # It ended after the caller looked: its edge is never made, so its failure is taken over here.
            elif failures := failures_of(parent):
                child.more().failures.extend(failures)
        child.waiting += count

    def parent_done(self, task: Task, failure: Failure | None) -> None:
        """Count off a parent that is no part of the graph."""
        if failure is not None:
            task.more().failures.append(failure)
        task.waiting -= 1
        if not task.waiting:
            self._unblocked(task)

    def circle(self, task: Task, parents: Sequence[Task]) -> Task | None:
        """Return one of the parents that a task is about to wait for which itself waits for that task.

        Returns:
            The parent; None where there is no circle, or only one of more than 1,000 tasks.
        """
        wanted = {id(parent): parent for parent in parents}
        if id(task) in wanted:
            return task
        todo: deque[Task | SharedParents] = deque((task,))
        seen = {id(task)}
        while todo and len(seen) <= _SEARCHED:
            for child in todo.popleft().children or ():
                if child.state >= EXEC_DONE:  # cancelled, say: it waits no longer
                    continue
                if id(child) in wanted:
                    return wanted[id(child)]
                if id(child) not in seen:
                    seen.add(id(child))
                    todo.append(child)
        return None

    def open(self, junction: SharedParents) -> None:
        """Release the tasks that wait for shared parents, all of which have ended."""
        junction.state = EXEC_DONE
        # Results live as long as their futures: held here they would outlive the script's own references.
        junction.futures = junction.common = None
        if junction.children is not None:
            children, junction.children = junction.children, None
            self.spread(junction, children)

    def spread(self, ended: Task | SharedParents, children: list[Task | SharedParents]) -> None:
        """Release the children of a parent that has ended, and theirs if they end by it, without recursion."""
        if self._spreading is not None:
            self._spreading.append((ended, children))
            return
        # A queue and no recursion: a chain of thousands of tasks may fail at once, deeper than the interpreter's stack.
        self._spreading = queue = deque([(ended, children)])
        try:
            while queue:
                parent, waiting = queue.popleft()
                failures = failures_of(parent)
                for child in waiting:
                    # Cancelled, or failed with another parent's error under ``lazy_errors=False``.
                    if child.state >= EXEC_DONE:
                        continue
                    if failures:
                        child.more().failures.extend(failures)
                    child.waiting -= 1
                    if not child.waiting:
                        if isinstance(child, SharedParents):
                            self.open(child)
                        else:
                            self._unblocked(child)
        finally:
            self._spreading = None
