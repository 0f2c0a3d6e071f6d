"""The pulse of a run: the small record that open pages ask for every few seconds."""

from __future__ import annotations

from dataclasses import dataclass

from flow_monitor.queries.records import RunState


@dataclass(frozen=True, slots=True)
class Pulse:
    """Whether a run goes on; ``revision`` changes when anything of it does.

    ``follow``: it is not known to go on, but was not long ago: an open page looks again from time to time.
    """

    revision: int
    live: bool
    state: RunState
    follow: bool
