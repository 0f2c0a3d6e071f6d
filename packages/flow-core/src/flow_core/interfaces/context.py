"""Context that an executor is given when it starts: its run, its directories, and where its reports go."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from flow_core.interfaces.clock import Clock
from flow_core.interfaces.outcome import TryListener
from flow_core.interfaces.sampler import SamplerSpec
from flow_core.interfaces.scaling import ScalingSettings
from flow_core.interfaces.sinks import EventPort


@dataclass(frozen=True, slots=True)
class WithDriver:
    """The executor's processes end with the process that started them."""


@dataclass(frozen=True, slots=True)
class Detached:
    """The executor's processes outlive their driver by ``grace_s`` seconds, to be adopted by another."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class RunContext:
    """One per kernel and executor: nothing in it is process-global.

    Attributes:
        run_id: Name of the run, unique on this machine.
        epoch: Number of the kernel within the run; the upper 20 bits of its try keys.
        run_dir: ``runinfo/NNN``, absolute, exists.
        executor_dir: ``run_dir/<label>``, absolute; the executor creates it when it needs it.
        listener: Takes the reports of tries.
        events: Takes events; look at ``events.wants`` before building any.
        scaling: How blocks are asked for and given back.
        lifetime: Whether the executor's processes end with this one.
        sampler: What to sample with on the nodes, if anything.
        logger: The executor's logger.
        clock: Time.
        start_timeout_s: How long ``start`` may take.
    """

    run_id: str
    epoch: int
    run_dir: Path
    executor_dir: Path
    listener: TryListener
    events: EventPort
    scaling: ScalingSettings
    lifetime: WithDriver | Detached
    sampler: SamplerSpec | None
    logger: logging.Logger
    clock: Clock
    # Seconds; only the magnitude matters.
    start_timeout_s: float = 60.0
