"""The critical path: the chain of tasks, each of which had to wait for the one before, that ran longest in all.

A join task is two steps: its body, which the tasks that it makes come after, and its end, which comes after those it
waits for. So the path leads through the tasks that a join made, and their time is not counted as the join's, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from flow_monitor.queries.records import GraphTask

_Step = tuple[int, bool]
"""A task's run (False), or the end of a join task (True)."""


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """Tasks of the path in order, and the sum of their run times in seconds: of their tries, without waits between."""

    tasks: tuple[int, ...] = ()
    seconds: float = 0.0


def critical_path(tasks: Sequence[GraphTask]) -> CriticalPath:
    """Return the critical path of some tasks; tasks in a circle, or after one, are not followed."""
    before = _before(tasks)
    run_time = {task.task_id: task.run_time_s for task in tasks}
    best: dict[_Step, float] = {}
    via: dict[_Step, _Step] = {}
    last, longest = None, 0.0
    for step in _in_order(before):
        earlier = max(before[step], key=lambda above: best[above], default=None)
        # The end of a join takes no time of its own: it waits.
        best[step] = (0.0 if step[1] else run_time[step[0]]) + (0.0 if earlier is None else best[earlier])
        if earlier is not None:
            via[step] = earlier
        if best[step] > longest:
            last, longest = step, best[step]
    path: list[int] = []
    while last is not None:
        # The end and the body of a join are two steps of one task.
        if last[0] not in path[-1:]:
            path.append(last[0])
        last = via.get(last)
    return CriticalPath(tuple(dict.fromkeys(reversed(path))), longest)


def _before(tasks: Sequence[GraphTask]) -> dict[_Step, list[_Step]]:
    """Return the predecessors of each step; tasks that are not among those given are left out."""
    # A graph that was cut at its largest size has edges to tasks that were not read.
    known = {task.task_id for task in tasks}
    makers = {task.parent for task in tasks}
    joins = {task.task_id for task in tasks if task.waits_for or task.task_id in makers}
    before: dict[_Step, list[_Step]] = {}
    for task in tasks:
        above = [(other, other in joins) for other in task.depends if other in known]
        if task.parent in known and task.parent is not None:
            # Made by the body of the join, so it comes after the body and not after the join's end, which waits for
            # it.
            above.append((task.parent, False))
        before[task.task_id, False] = above
        if task.task_id in joins:
            awaited = [(other, other in joins) for other in task.waits_for if other in known]
            before[task.task_id, True] = [(task.task_id, False), *awaited]
    return before


def _in_order(before: dict[_Step, list[_Step]]) -> list[_Step]:
    """Return the steps so that each comes after all it must come after."""
    missing = {step: len(above) for step, above in before.items()}
    after: dict[_Step, list[_Step]] = defaultdict(list)
    for step, above in before.items():
        for other in above:
            after[other].append(step)
    order = [step for step, count in missing.items() if not count]
    # Kahn's algorithm; steps of a circle keep a count above 0 and so never come into the order.
    for step in order:  # grows meanwhile
        for other in after[step]:
            missing[other] -= 1
            if not missing[other]:
                order.append(other)
    return order
