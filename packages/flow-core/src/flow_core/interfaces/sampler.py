"""Resource sampling on a node: one sampler a manager, or a process without one, named in the run's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flow_core.interfaces.call import TryKey


@dataclass(frozen=True, slots=True)
class SamplerSpec:
    """Sampler of a run and its settings, as data that can travel.

    Attributes:
        factory: Dotted name ``package.module:callable``, imported on the node; called with the settings as keywords.
        interval_s: Seconds between two samples.
        settings: Plain (name, value) pairs.
        thread_factory: The same for tasks that run in threads of one process: what it makes gets native ids of
            threads in the place of pids. Empty: such tasks are not sampled.
    """

    factory: str
    interval_s: float = 10.0
    settings: tuple[tuple[str, str | int | float | bool], ...] = ()
    thread_factory: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one task's process tree (``key`` is None for the node as a whole).

    CPU times are cumulative seconds (children that ended included), memory is in bytes, disk and network are
    cumulative bytes. Network traffic is None where it is not known.
    """

    time_ns: int
    key: TryKey | None
    pid: int
    processes: int
    cpu_percent: float
    cpu_user_s: float
    cpu_system_s: float
    memory_rss: int
    memory_percent: float
    disk_read: int
    disk_write: int
    net_sent: int | None = None
    net_received: int | None = None


class NodeSampler(Protocol):
    """Made and called in the manager of a node, or in a process that runs tasks without one; one thread at a time."""

    def sample(self, running: Mapping[int, TryKey], now_ns: int) -> Sequence[Sample]:
        """Look at the given process trees (pid of the worker -> key of its try) and at the node. Must take < 5 ms."""
        ...

    def ended(self, ended: Mapping[int, TryKey], now_ns: int) -> Sequence[Sample]:
        """Take a last look at tasks that were sampled and have just ended (pid of the worker -> key), in < 5 ms."""
        ...

    def close(self) -> None:
        """Release what the sampler holds."""
        ...
