"""Options of an executor that its managers get, too: defined once for its constructor and for their command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flow_core.option_records import about, above, at_least

LEAST_LOG_BYTES = 16 << 10
"""Least cap of a log in bytes: less would cut away the text that tells why a worker died."""


LONGEST_S = 1e9
"""Seconds, more than 30 years: neither clocks of the system nor JSON take what is much longer, or infinite."""
LONGEST_WAIT_S = 604_800
"""Seconds, a week: sockets are waited for by epoll, for several heartbeats, in milliseconds of 32 bits."""
MOST_CORES = 1e6
"""Cores that a worker may stand for: beyond every node."""
_AFFINITIES = "'none', 'block', 'block-reverse', 'alternating', or 'list:0,1:2,3' with CPUs for each worker"


def listed_cpus(mode: str) -> list[list[int]]:
    """Return the CPUs of each worker that ``list:...`` names. Raises ValueError where they are no numbers."""
    groups = [[int(cpu) for cpu in group.split(",")] for group in mode.removeprefix("list:").split(":")]
    if any(cpu < 0 for group in groups for cpu in group):
        raise ValueError(mode)
    return groups


def wrong_affinity(value: object) -> str:
    """Return what ``cpu_affinity`` must be instead of a value; empty where it is well."""
    if isinstance(value, str) and value.startswith("list:"):
        try:
            listed_cpus(value)
        except ValueError:
            return f"must name CPUs by their numbers: {_AFFINITIES}"
        return ""
    return "" if value in ("none", "block", "block-reverse", "alternating") else f"must be one of {_AFFINITIES}"


def _memory(value: object) -> str:
    return (
        "must be a finite number of GB, at least 0"
        if isinstance(value, int | float) and not 0 <= value < math.inf
        else ""
    )


def _count(value: object) -> str:
    well = value == math.inf or (isinstance(value, int | float) and value >= 1 and value == value // 1)
    return "" if well else "must be at least 1 and a whole number, or float('inf') for as many as fit"


@dataclass(kw_only=True, eq=False, repr=False)
class NodeOptions:
    """What managers of all executors are told."""

    working_dir: str | None = field(default=None, metadata=about("Directory for staged files on the nodes."))
    cores_per_worker: float = field(
        default=1.0,
        metadata=about(
            "Cores that one worker stands for; below 1 oversubscribes. A node has as many workers as fit in what its "
            "job was granted.",
            above(0, MOST_CORES),
        ),
    )
    mem_per_worker: float | None = field(
        default=None, metadata=about("Memory in GB that one worker needs; limits the workers of a node.", _memory)
    )
    max_workers: float = field(
        default=math.inf, metadata=about("Most workers of a node; also as ``max_workers_per_node``.", _count)
    )
    heartbeat_threshold: float = field(
        default=120.0,
        metadata=about("Seconds of silence after which the other side counts as lost.", above(0, LONGEST_WAIT_S)),
    )
    sleep_threshold: float | None = field(
        default=None,
        metadata=about(
            "Seconds for which managers that have tasks, or results that were not taken, wait for a script that is "
            "silent: a laptop may sleep for as long. None: ``heartbeat_threshold``.",
            above(0, LONGEST_S),
        ),
    )
    heartbeat_period: float = field(
        default=30.0, metadata=about("Seconds between heartbeats.", above(0, LONGEST_WAIT_S))
    )
    cpu_affinity: str = field(
        default="none",
        metadata=about(
            "How workers are pinned to CPUs: ``none``, ``block``, ``block-reverse``, ``alternating``, or "
            "``list:0,1:2,3`` (CPUs of each worker).",
            wrong_affinity,
        ),
    )
    max_result_bytes: int = field(default=16 << 30, metadata=about("Most bytes of a task's result.", at_least(1)))
    max_worker_log_bytes: int = field(
        default=64 << 20,
        metadata=about(
            "Most bytes of one worker's log, where what tasks print goes: of one that is longer the middle is cut, and "
            "a line says how much. 0: no limit.",
            lambda value: "" if not value else at_least(LEAST_LOG_BYTES, ", or 0 for no limit")(value),
        ),
    )


@dataclass(kw_only=True, eq=False, repr=False)
class PrefetchOptions:
    """What managers of executors that hand out tasks in advance, and change their blocks, are told beside that."""

    prefetch_capacity: int | None = field(
        default=None,
        metadata=about(
            "Most tasks that a manager takes beyond its workers; None: about 20 ms of work and two round trips to the "
            "interchange, 0: none.",
            at_least(0, ", or None for adaptive"),
        ),
    )
    drain_period: float | None = field(
        default=None,
        metadata=about(
            "Seconds after which a manager takes no more tasks, finishes what it has and leaves.", above(0, LONGEST_S)
        ),
    )
