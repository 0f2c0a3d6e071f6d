"""Edges of join tasks, to what they make and wait for, which stand beside the dependencies of a graph."""

from __future__ import annotations

from collections.abc import Sequence

from flow_monitor.queries.records import GraphTask


def join_edges(tasks: Sequence[GraphTask]) -> tuple[tuple[int, int], ...]:
    """Return the edges from join tasks to the tasks they made, and to those they wait for; each once.

    Where a task is not among those given, its edges are left out.
    """
    known = {task.task_id for task in tasks}
    made = ((task.parent, task.task_id) for task in tasks if task.parent in known and task.parent is not None)
    awaited = ((task.task_id, other) for task in tasks for other in task.waits_for if other in known)
    # A join mostly waits for what it made: one edge is enough. dict keeps the order, which the layout's cache needs.
    return tuple(dict.fromkeys((*made, *awaited)))
