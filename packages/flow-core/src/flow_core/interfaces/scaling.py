"""Load of executors, and scaling: how blocks are asked for and given back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """A frozen picture of an executor.

    Attributes:
        waiting: Tries accepted and not known to run.
        running: Tries known to run.
        slots: Tries that can run at once with what is connected now.
        blocks: Number of blocks by state name (a JobState's name), only states that occur.
        slots_per_block: Slots one block brings; 0 where the executor has no blocks.
    """

    waiting: int = 0
    running: int = 0
    slots: int = 0
    blocks: tuple[tuple[str, int], ...] = ()
    slots_per_block: int = 0


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """A block as people are shown it.

    Attributes:
        block: Its id.
        job_id: Id of its job with the provider; empty before it is submitted.
        state: Name of its job's state.
        reason: What the scheduler, or Flow, says of that; empty where there is nothing to say.
        active: Whether it counts: pending or running, and not on its way out.
        managers: Managers of it that are connected.
        workers: Their workers.
        age_s: Seconds since it was submitted.
    """

    block: str
    job_id: str = ""
    state: str = ""
    reason: str = ""
    active: bool = False
    managers: int = 0
    workers: int = 0
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """The bounds of elasticity of one executor; ``parallelism`` is slots per active task, between 0 and 1."""

    init_blocks: int = 1
    min_blocks: int = 0
    max_blocks: int = 1
    parallelism: float = 1.0


@dataclass(frozen=True, slots=True)
class ScalingView:
    """All that a strategy may look at.

    Attributes:
        load: The executor's load. A try that takes several slots, as one with several ranks, counts as so many.
        limits: Its bounds.
        active_blocks: Blocks that are pending or running.
        idle_for_s: For each running block that has nothing to do, how long in seconds; longest first.
        max_idletime_s: How long a block may be idle before it is given back.
        partial_release: Whether blocks may be released while others work.
    """

    load: Load
    limits: BlockLimits
    active_blocks: int
    idle_for_s: tuple[float, ...] = ()
    max_idletime_s: float = 120.0
    partial_release: bool = False


Strategy = Callable[[ScalingView], int]
"""A pure function: blocks to add (positive) or to release (negative). Called by the executor's scaling thread."""


@dataclass(frozen=True, slots=True)
class ScalingSettings:
    """Scaling settings of a run for its block executors.

    Attributes:
        strategy: Name of a built-in strategy (``none``, ``simple``, ``htex_auto_scale``) or a user's own.
        period_s: Seconds between two looks.
        max_idletime_s: How long a block may be idle before it is given back.
    """

    strategy: str | Strategy = "simple"
    period_s: float = 5.0
    max_idletime_s: float = 120.0
