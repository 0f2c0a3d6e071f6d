"""A manager's core with workers, as the tests of its decisions begin."""

from flow_executors.common.resources import Capacity
from flow_executors.manager.manager_core import ManagerCore

SHORT_S = 10e-6
LONG_S = 1.0


def manager(slots=2, prefetch=None, depth=63, **capacity):
    core = ManagerCore(Capacity(slots, **capacity), prefetch)
    for rank in range(slots):
        core.worker_up(rank, 100 + rank, depth, 0.0)
    return core


def tasks(*keys):
    return [(key, b"r%d" % key) for key in keys]


def given_to(assignments):
    return {assignment.key: assignment.rank for assignment in assignments}


def quick(core, count=20):
    """Let a core see that tasks are short."""
    for key in range(10_000, 10_000 + count):
        core.accept(0, tasks(key))
        (assignment,) = core.assign(0.0)
        core.finished(assignment.rank, [key], SHORT_S, 0.0)
