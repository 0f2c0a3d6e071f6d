"""The critical path: the chain of dependent tasks whose run times sum up to the most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flow_monitor.queries.records import GraphTask


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """Tasks of the path in order, and the sum of their run times in seconds."""

    tasks: tuple[int, ...] = ()
    seconds: float = 0.0


def critical_path(tasks: Sequence[GraphTask]) -> CriticalPath:
    """Return the critical path of tasks that are sorted by id. Parents have smaller ids; others are not followed."""
    best: dict[int, float] = {}
    via: dict[int, int] = {}
    last, longest = -1, 0.0
    for task in tasks:
        sum_before, parent = max(((best[p], p) for p in task.depends if p in best), default=(0.0, -1))
        best[task.task_id] = sum_before + task.run_time_s
        if parent >= 0:
            via[task.task_id] = parent
        if best[task.task_id] > longest:
            last, longest = task.task_id, best[task.task_id]
    path = []
    while last >= 0:
        path.append(last)
        last = via.get(last, -1)
    return CriticalPath(tuple(reversed(path)), longest)
