"""What an interchange process is told at its start, over its standard input: so no key is on a command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings of one interchange process; keys are Z85 text.

    Attributes:
        run_id: The run.
        label: The executor's label.
        python: Version of the client's Python.
        incarnation: Counts restarts from 0.
        endpoint: Where the listening socket is bound, ``tcp://host:port``.
        listen_fd: The inherited listening socket.
        local_fd: The inherited socket that listens within the machine; -1 for none.
        link_fd: The inherited end of the socket to the client.
        server_public: The run's public key.
        server_secret: The run's secret key.
        admitted: Public keys of blocks, with the blocks.
        heartbeat_period_s: How often managers are to be heard.
        heartbeat_threshold_s: After which silence they count as lost.
        packed: Whether the first manager is filled before the next.
        results: Where managers of this machine find the script itself; empty where they do not.
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
    packed: bool = False
    results: str = ""
    log: str = ""
    debug: bool = False

    def __repr__(self) -> str:
        return f"Setup(run_id={self.run_id!r}, label={self.label!r}, incarnation={self.incarnation})"
