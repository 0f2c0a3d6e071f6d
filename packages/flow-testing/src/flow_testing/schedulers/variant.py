"""Misbehaviour of simulated schedulers, and the profiles of it that tests go through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class SchedulerVariant:
    """Misbehaviour of one simulated scheduler; by default it has none.

    Attributes:
        slow_s: Seconds each command takes.
        forgets: Ended jobs vanish from the queue at once.
        chatty: Prints lines that are no answer beside each answer.
        away_every: Every so many commands say that the scheduler is away; 0: never.
        starts_late_s: Seconds a job waits before it runs.
        wide: Hosts, queues and names of others are so long that columns grow, or lines are folded.
        long_states: Says states at length, and those that are seldom seen.
        arrays: Array jobs of other people, and lines cut off, are among the answers to every question.
        loses_every: Every so many jobs are lost once submitted: no command knows them any more; 0: none.
    """

    slow_s: float = 0.0
    forgets: bool = False
    chatty: bool = False
    away_every: int = 0
    starts_late_s: float = 0.0
    wide: bool = False
    long_states: bool = False
    arrays: bool = False
    loses_every: int = 0


PROFILES: Mapping[str, SchedulerVariant] = MappingProxyType(
    {
        "plain": SchedulerVariant(),
        "wide": SchedulerVariant(wide=True, chatty=True),
        "slow": SchedulerVariant(slow_s=0.1, starts_late_s=0.2),
        "forgetful": SchedulerVariant(forgets=True),
        "long-states": SchedulerVariant(long_states=True, starts_late_s=0.2),
        "arrays": SchedulerVariant(arrays=True, chatty=True),
        # Every third command, so that a submission that is tried again gets an answer.
        "often-away": SchedulerVariant(away_every=3),
    }
)
"""Misbehaviour that a provider must bear, by name."""
