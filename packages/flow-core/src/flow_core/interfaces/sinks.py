"""Sinks and ports of events: where the events of a run come in, and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from flow_core.interfaces.events import Event, EventKind, EventRecord
from flow_core.interfaces.sampler import SamplerSpec


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run, as sinks get it when they start. ``started_ns`` is int64 ns UTC."""

    run_id: str
    epoch: int
    run_dir: Path
    name: str
    started_ns: int


class EventSink(Protocol):
    """Takes events of a run: a log, a database, a progress bar. Only the pump thread calls it."""

    wants: EventKind
    """The kinds it wants; events of kinds that no sink wants are not built. Read once, after ``start``."""

    def start(self, run: RunInfo) -> None:
        """Begin a run; may raise, which fails ``load`` with the reason. Called once a run, before any event."""
        ...

    def emit(self, events: Sequence[Event]) -> None:
        """Take events in order. Must not block > 1 ms. An exception disables the sink and is logged once."""
        ...

    def close(self, timeout_s: float) -> int:
        """End the run within the time given; return the number of events not made durable. Idempotent."""
        ...


@runtime_checkable
class SamplingSink(Protocol):
    """A sink that also wants resource samples from the nodes."""

    def sampler(self) -> SamplerSpec | None:
        """Return what to sample with on the nodes, or None for no sampling."""
        ...


@runtime_checkable
class RecordSink(Protocol):
    """A sink that takes events as the kernel makes them, which spares building objects for it."""

    def emit_records(self, records: Sequence[EventRecord | Event]) -> None:
        """Take records, each ``(EventClass, *fields)`` or an event, in order; called instead of ``emit``, as that is.

        What is handed over may be of any kind: the sink passes over what it does not want.
        """
        ...


class EventPort(Protocol):
    """Entry for events, given to executors in their context. Any thread; never blocks; never raises."""

    wants: EventKind
    """The union of what all sinks want. Do not build events of other kinds."""

    def post(self, event: Event) -> None:
        """Hand over one event."""
        ...
