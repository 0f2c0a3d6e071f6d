"""Fields of a task that an executor honours or not: their names, and which of them a class of tasks asks for."""

from __future__ import annotations

from typing import Final

from flow_core.interfaces.call import DEFAULT_SPEC, TaskSpec

TASK_FIELDS: Final = (
    "cores",
    "memory",
    "gpus",
    "disk",
    "nodes",
    "ranks_per_node",
    "ranks",
    "cores_per_rank",
    "gpus_per_rank",
    "exclusive",
    "named",
    "priority",
    "running_time_min",
    "walltime",
    "environment",
    "container",
    "warn_before_end_s",
)
"""What a task may ask for, by the names that its user writes."""

HONOURED_BY_ALL: Final = frozenset(("walltime", "environment"))
"""What ``flow_core.remote.run.execute`` does where a task runs, and the contract of executors demands of each."""

_ONE_SLOT = 1.0  # cores: so many, or less, has a task that asks for none


def asked_for(spec: TaskSpec) -> dict[str, object]:
    """Return what a class of tasks asks for beyond a slot, by field, in the order of ``TASK_FIELDS``."""
    if spec is DEFAULT_SPEC:
        return {}
    wanted = spec.resources
    asked: dict[str, object] = {
        "cores": wanted.cores if wanted.cores > _ONE_SLOT else None,
        "memory": wanted.memory_mb,
        "gpus": wanted.gpus,
        "disk": wanted.disk_mb,
        "nodes": wanted.nodes if wanted.nodes > 1 else None,
        "ranks_per_node": wanted.ranks_per_node if wanted.ranks_per_node > 1 else None,
        # Stated beside nodes, ranks are what these hold: the user's own words are those above.
        "ranks": wanted.ranks if (wanted.ranks or 0) > wanted.nodes * wanted.ranks_per_node else None,
        "cores_per_rank": wanted.cores_per_rank,
        "gpus_per_rank": wanted.gpus_per_rank,
        "exclusive": wanted.exclusive,
        "named": {name: amount for name, amount in wanted.named if amount},
        "priority": spec.priority,
        "running_time_min": spec.running_time_min_s,
        "walltime": spec.walltime_s,
        "environment": dict(spec.environment),
        "container": spec.container,
        "warn_before_end_s": spec.warn_before_end_s,
    }
    return {field: value for field, value in asked.items() if value}
