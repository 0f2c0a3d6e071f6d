"""What this node has, and how many workers that makes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from flow_core.errors import ExecutorError

MB = 1 << 20
GB = 1 << 30


class NoRoom(ExecutorError):
    """Not one worker fits on this node; the message says what is missing and which option asks for it."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a manager finds: cores and memory that it may use, and what the machine has in all. Memory in bytes."""

    cores: float
    memory: int
    cpu_count: int
    memory_total: int


def look(environment: Mapping[str, str] = os.environ) -> Node:
    """Look at this machine; ``FLOW_CORES`` and ``FLOW_MEMORY_GB``, set by providers, come before what is seen."""
    cores = _number(environment, "FLOW_CORES") or _cores_seen()
    memory_gb = _number(environment, "FLOW_MEMORY_GB")
    memory = psutil.virtual_memory()
    free = int(memory_gb * GB) if memory_gb else min(memory.available, _cgroup_memory_left())
    return Node(cores, free, os.cpu_count() or 1, memory.total)


def count_workers(
    node: Node,
    *,
    cores_per_worker: float,
    mem_per_worker_gb: float | None,
    max_workers: float,
    accelerators: int | None,
) -> int:
    """Return how many workers fit: by cores, memory, accelerators and the user's cap, whichever is least.

    Raises:
        NoRoom: not one.
    """
    limits: dict[str, float] = {"max_workers": max_workers, "cores_per_worker": _times(node.cores, cores_per_worker)}
    if mem_per_worker_gb:
        limits["mem_per_worker"] = _times(node.memory, mem_per_worker_gb * GB)
    if accelerators is not None:
        limits["available_accelerators"] = accelerators
    option = min(limits, key=lambda name: limits[name])
    if limits[option] >= 1:
        return int(limits[option])
    raise NoRoom(
        f"not one worker fits on this node ({node.cores:g} cores, {node.memory / GB:.1f} GB of memory free): option "
        f"{option} asks for more"
    )


def _times(amount: float, share: float) -> int:
    return math.floor(amount / share + 1e-9)


def _number(environment: Mapping[str, str], name: str) -> float:
    text = environment.get(name, "")
    try:
        number = float(text) if text else 0.0
    except ValueError:
        raise NoRoom(f"the environment variable {name} is {text!r}: a number is needed") from None
    return number if number > 0 and math.isfinite(number) else 0.0


def _cores_seen() -> float:
    """Cores this process may run on, less if its control group has a quota."""
    allowed = float(len(os.sched_getaffinity(0)))
    quota = _read_cgroup("cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        allowed = min(allowed, max(1.0, int(quota[0]) / int(quota[1])))
    return allowed


def _cgroup_memory_left() -> int:
    limit, used = _read_cgroup("memory.max"), _read_cgroup("memory.current")
    if not limit.isdigit() or not used.isdigit():
        return 1 << 62
    return max(0, int(limit) - int(used))


def _read_cgroup(name: str) -> str:
    """Read a file of this process's control group (version 2), or return an empty string."""
    try:
        path = Path("/proc/self/cgroup").read_text().partition("::")[2].splitlines()[0]
        return (Path("/sys/fs/cgroup") / path.lstrip("/") / name).read_text().strip()
    except (OSError, IndexError):
        return ""
