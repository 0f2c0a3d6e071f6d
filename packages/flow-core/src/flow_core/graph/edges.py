"""The edges of the graph: who waits for whom, and what the end of one means to those that wait for it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from flow_core.graph.failures import failures_of
from flow_core.graph.states import State
from flow_core.graph.task import Junction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flow_core.graph.effects import Failure
    from flow_core.graph.task import Task


_SEARCHED = 1000  # so many descendants are looked at for a circle: most tasks that are joined have none


class Edges:
    """Counts what each task waits for, and hands failures down. Pure; guarded by the graph's caller."""

    def __init__(self, unblocked: Callable[[Task], None]) -> None:
        """Take what is called for each task that waits for nothing any more; it may end the task, which spreads on."""
        self._unblocked = unblocked
        self._spreading: deque[tuple[Task | Junction, list[Task | Junction]]] | None = None

    def add(self, parents: Sequence[Task | Junction], child: Task | Junction) -> None:
        """Let a child wait for those parents that have not ended, and know how the others failed."""
        count = 0
        for parent in parents:
            if parent.state < State.exec_done:
                count += 1
                if parent.children is None:
                    parent.children = [child]
                else:
                    parent.children.append(child)
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
        todo: deque[Task | Junction] = deque((task,))
        seen = {id(task)}
        while todo and len(seen) <= _SEARCHED:
            for child in todo.popleft().children or ():
                if child.state >= State.exec_done:  # cancelled, say: it waits no longer
                    continue
                if id(child) in wanted:
                    return wanted[id(child)]
                if id(child) not in seen:
                    seen.add(id(child))
                    todo.append(child)
        return None

    def open(self, junction: Junction) -> None:
        """Tell who waits at a junction that all its parents have ended."""
        junction.state = State.exec_done
        junction.futures = junction.common = None
        if junction.children is not None:
            children, junction.children = junction.children, None
            self.spread(junction, children)

    def spread(self, ended: Task | Junction, children: list[Task | Junction]) -> None:
        """Tell children that a parent has ended, and theirs if they end by it, without recursion."""
        if self._spreading is not None:
            self._spreading.append((ended, children))
            return
        self._spreading = queue = deque([(ended, children)])
        try:
            while queue:
                parent, waiting = queue.popleft()
                failures = failures_of(parent)
                for child in waiting:
                    if child.state >= State.exec_done:
                        continue
                    if failures:
                        child.more().failures.extend(failures)
                    child.waiting -= 1
                    if not child.waiting:
                        if isinstance(child, Junction):
                            self.open(child)
                        else:
                            self._unblocked(child)
        finally:
            self._spreading = None
