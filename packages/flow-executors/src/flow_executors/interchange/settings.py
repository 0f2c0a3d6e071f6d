"""The settings of the interchange's core, fixed at its start."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Settings of the core, which stay the same while it runs.

    Attributes:
        run_id: Only managers of this run are taken.
        python: Version of the client's Python.
        incarnation: Counts restarts from 0; numbers given to managers start beyond those of earlier ones.
        heartbeat_period_s: Seconds between heartbeats of managers.
        heartbeat_threshold_s: Seconds of silence after which they count as lost.
        sleep_threshold_s: Seconds for which managers with tasks wait for a script that is silent, where that is longer.
        packed: Fill the manager that came first before the next, rather than spread tasks.
        host_id: Where the interchange and the client are.
        results: Where managers of this machine find the client itself; empty where they do not.
        managers_per_block: Most managers of one block; 0 where that is not known.
        secret: Of which sessions of managers are made; the same for all interchanges of one executor.
    """

    run_id: str
    python: str
    incarnation: int = 0
    heartbeat_period_s: float = 30.0
    heartbeat_threshold_s: float = 120.0
    sleep_threshold_s: float = 0.0
    packed: bool = False
    host_id: str = ""
    results: str = ""
    managers_per_block: int = 0
    secret: bytes = field(default_factory=secrets.token_bytes, repr=False)
