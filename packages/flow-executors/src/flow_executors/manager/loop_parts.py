"""What the loop of a manager works with: workers, what looks after them, and what moves files, here or on other ranks.

The manager of one node has ``worker_pool``, ``worker_health`` and ``file_agent``; rank 0 of a job of MPI has the pool,
the health and the files of all ranks (``extreme_scale``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from flow_executors.manager.manager_core import Assignment, Record, WorkerEntry
from flow_executors.manager.worker_health import NO_COMMANDS
from flow_executors.manager.worker_pool import PoolEvents, SharedMemoryResults, TaskEnvelopes, WorkerPipes
from flow_executors.wire.kinds import Buffer


class Health(Protocol):
    """What looks now and then whether workers are well."""

    due: float

    def bound(self, bound_s: float) -> None:
        """Set the seconds after which what does not go on is given up."""
        ...

    def answered(self) -> None:
        """The process that starts the workers has given a sign of life."""
        ...

    def look(
        self,
        workers: Mapping[int, WorkerEntry],
        now: float,
        of_ranks: Collection[int] = (),
        commands: Mapping[int, int] = NO_COMMANDS,
    ) -> str:
        """Look; return why no worker can be trusted any more, or nothing.

        ``of_ranks``: keys of tasks of ranks; ``commands``: pid -> key of what runs here for those of other nodes.
        """
        ...


class Workers(Protocol):
    """The workers of a manager: of its own node (``worker_pool``), or of others. One thread; nothing blocks."""

    envelopes: TaskEnvelopes
    shared_results: SharedMemoryResults

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are events."""
        ...

    def watch(self, replace: Callable[[int, str], None], notice: Callable[[str], None], bound_s: float) -> Health:
        """Return what looks whether they are well."""
        ...

    def spawn(self, rank: int) -> None:
        """Ask for a worker."""
        ...

    def pipes_of(self, rank: int) -> WorkerPipes | None:
        """Return the pipes of a worker; None where there are none on this node."""
        ...

    def tell(self, rank: int, pid: int) -> None:
        """Ask to tell the task of a worker that its block ends."""
        ...

    def kill(self, rank: int, age_s: float | None) -> None:
        """Ask to end a worker with all that its task, begun so long ago, has started."""
        ...

    def sweep(self, rank: int, pid: int, age_s: float) -> None:
        """Ask to end what the task of a dead worker, begun so long ago, has left behind."""
        ...

    def hand_out(self, assignments: Sequence[Assignment]) -> list[Assignment]:
        """Give tasks to workers; return those that could not be given."""
        ...

    def take_back(self, rank: int, count: int) -> list[tuple[int, Record]]:
        """Take tasks back that a worker has not started."""
        ...

    def pool_events(self) -> PoolEvents:
        """Return what happened."""
        ...

    def abandon(self, reason: str) -> PoolEvents:
        """End all workers, and report them dead."""
        ...


class NodeFileMover(Protocol):
    """What moves files between tasks and the script, as ``file_agent.FileAgent``."""

    ready_fd: int
    apart: bool

    def take(self, message: Buffer) -> None:
        """Take FILE of the script."""
        ...

    def registered(self, number: int) -> None:
        """The manager is registered under this number."""
        ...

    def outgoing(self) -> list[bytes]:
        """Return the messages for the interchange, once."""
        ...
