"""What a try ran out of, and how much more of it the next one asks for. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from signal import SIGKILL
from typing import Final

from flow_core.errors import AppTimeout, BashExitFailure, ContainerError
from flow_core.guard import attribute, is_a
from flow_core.interfaces.call import TaskSpec
from flow_core.interfaces.outcome import Loss, LossKind

# A command or a container that was killed, as the system does when memory runs out: told by Python, and by what is
# around it.
_KILLED: Final = (-SIGKILL, 128 + SIGKILL)


def ran_out_of(failure: object) -> str:
    """Return what a try ran out of, ``memory`` or ``walltime``; empty where it failed of something else.

    Memory it is where Python says so, and where a command, a container, or the worker itself, was ended by a SIGKILL
    that was not Flow's: by that the system ends processes when memory runs out, and tells nobody why.
    """
    if is_a(failure, AppTimeout):
        return "walltime" if attribute(failure, "walltime_s") is not None else ""
    if is_a(failure, MemoryError):
        return "memory"
    if is_a(failure, BashExitFailure) or is_a(failure, ContainerError):
        return "memory" if attribute(failure, "exitcode") in _KILLED else ""
    if is_a(failure, Loss):
        return "memory" if failure.kind is LossKind.WORKER and failure.signal == SIGKILL else ""
    return ""


def grown(
    spec: TaskSpec,
    asked: TaskSpec,
    growth: Sequence[tuple[str, float]],
    times: Mapping[str, int],
    most: Mapping[str, float],
) -> TaskSpec:
    """Return a task's class with more of what it ran out of.

    Args:
        spec: Its class so far.
        asked: The class that its call asked for.
        growth: Factors, by name.
        times: How often it ran out of what.
        most: The most of it that its executor has; what is left out has no bound.
    """
    memory_mb, walltime_s = asked.resources.memory_mb, asked.walltime_s
    for name, factor in growth:
        count, bound = times.get(name, 0), most.get(name, math.inf)
        if not count:
            continue
        # What was asked for beyond the bound stays: that it is too much is to be said, as of any other task.
        if name == "memory":
            memory_mb = max(memory_mb, int(min(memory_mb * factor**count, bound)))
        elif walltime_s is not None:
            walltime_s = max(walltime_s, min(walltime_s * factor**count, bound))
    if (memory_mb, walltime_s) == (spec.resources.memory_mb, spec.walltime_s):
        return spec
    return replace(spec, resources=replace(spec.resources, memory_mb=memory_mb), walltime_s=walltime_s)


def growth_text(asked: TaskSpec, now: TaskSpec) -> str:
    """Return what of a task's class has grown, in words; empty where nothing has."""
    parts = []
    if now.resources.memory_mb != asked.resources.memory_mb:
        parts.append(f"memory from {asked.resources.memory_mb:,} to {now.resources.memory_mb:,} MB")
    if now.walltime_s != asked.walltime_s and asked.walltime_s is not None and now.walltime_s is not None:
        parts.append(f"walltime from {asked.walltime_s:g} to {now.walltime_s:g} s")
    return " and ".join(parts)
