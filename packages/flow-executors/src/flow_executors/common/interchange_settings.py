"""Settings of an interchange process, which come over its standard input: so no key is on a command line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """Settings of one interchange process; keys are Z85 text.

    Attributes:
        run_id: The run.
        label: The executor's label.
        python: Version of the client's Python.
        incarnation: Counts restarts from 0.
        endpoint: Where the listening socket is bound, ``tcp://host:port``; empty for none.
        listen_fd: The inherited listening socket; -1 where no manager comes by the network.
        local_fd: The inherited socket that listens within the machine; -1 for none.
        link_fd: The inherited end of the socket to the client.
        server_public: The run's public key.
        server_secret: The run's secret key.
        admitted: Public keys of blocks, with the blocks.
        heartbeat_period_s: Seconds between heartbeats of managers.
        heartbeat_threshold_s: Seconds of silence after which they count as lost.
        sleep_threshold_s: Seconds for which managers with tasks wait for a script that is silent.
        packed: Whether the first manager is filled before the next.
        results: Where managers of this machine find the script itself; empty where they do not.
        marker: Where the run's marker is; empty for none.
        marker_digest: Digest of what is in it.
        managers_per_block: Most managers of one block; 0 where that is not known.
        log: Path of the log.
        debug: Whether to log every message.
    """

    run_id: str
    label: str
    python: str
    incarnation: int
    endpoint: str
    listen_fd: int
    local_fd: int
    link_fd: int
    server_public: str
    server_secret: str
    admitted: tuple[tuple[str, str], ...] = ()
    heartbeat_period_s: float = 30.0
    heartbeat_threshold_s: float = 120.0
    sleep_threshold_s: float = 0.0
    packed: bool = False
    results: str = ""
    marker: str = ""
    marker_digest: str = ""
    managers_per_block: int = 0
    log: str = ""
    debug: bool = False

    @property
    def session_secret(self) -> bytes:
        """Return the secret of which sessions of managers are made: it follows from the run's secret key."""
        return hashlib.blake2b(self.server_secret.encode(), person=b"flow sessions").digest()

    def __repr__(self) -> str:
        return f"Setup(run_id={self.run_id!r}, label={self.label!r}, incarnation={self.incarnation})"
