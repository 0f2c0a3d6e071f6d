"""What an interchange's mind is told at its start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """What the interchange is told at its start.

    Attributes:
        run_id: Only managers of this run are taken.
        python: Version of the client's Python.
        incarnation: Counts restarts from 0; numbers given to managers start beyond those of earlier ones.
        heartbeat_period_s: How often managers are to be heard.
        heartbeat_threshold_s: After which silence they count as lost.
        packed: Fill the manager that came first before the next, rather than spread tasks.
        host_id: Where the interchange and the client are.
        results: Where managers of this machine find the client itself; empty where they do not.
    """

    run_id: str
    python: str
    incarnation: int = 0
    heartbeat_period_s: float = 30.0
    heartbeat_threshold_s: float = 120.0
    packed: bool = False
    host_id: str = ""
    results: str = ""
