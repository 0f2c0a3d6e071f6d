"""A manager's core with workers, as the tests of its decisions begin."""

from flow_executors.manager.core import ManagerCore
from flow_executors.manager.demand import Capacity

SHORT_S = 10e-6
LONG_S = 1.0


def manager(slots=2, prefetch=None, depth=63, **capacity):
    core = ManagerCore(Capacity(slots, **capacity), prefetch)
    for rank in range(slots):
        core.worker_up(rank, 100 + rank, depth, 0.0)
    return core


def tasks(*keys):
    return [(key, b"r%d" % key) for key in keys]


def given_to(handouts):
    return {handout.key: handout.rank for handout in handouts}


def quick(core, count=20):
    """Let a core see that tasks are short."""
    for key in range(10_000, 10_000 + count):
        core.accept(0, tasks(key))
        (handout,) = core.assign(0.0)
        core.finished(handout.rank, [key], SHORT_S, 0.0)
