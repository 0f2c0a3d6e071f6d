"""The interface of a pilot-job executor's client, whatever transport it uses, and the counters of its traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flow_core.errors import ExecutorBroken
from flow_core.interfaces.call import Call, TryKey
from flow_executors.client.file_service import FileService
from flow_executors.client.managers import ManagerDirectory
from flow_executors.wire.commands import Reply, Whereabouts
from flow_executors.wire.messages import Credit


@dataclass(slots=True)
class Counters:
    """Sums since the start of an executor. Written by the client's own threads; a reader sees them within one message.

    Attributes:
        messages_out: Messages to the interchange.
        bytes_out: Their bytes.
        messages_in: Messages of the interchange.
        bytes_in: Their bytes.
        wakeups: How often the receiver thread woke up.
    """

    messages_out: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    bytes_in: int = 0
    wakeups: int = 0


class ExecutorClient(Protocol):
    """A client: takes calls, gets them to managers, reports their outcomes. Any thread."""

    directory: ManagerDirectory
    files: FileService

    def start(self) -> None:
        """Start. Raises ExecutorError; then nothing is left running."""
        ...

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until tasks can be sent. Raises ExecutorError: they cannot within the time."""
        ...

    def close(self, timeout_s: float) -> list[str]:
        """End; report everything that is left; return what was forced. Idempotent."""
        ...

    def fail(self, error: ExecutorBroken) -> None:
        """No block can be had now: all tasks end, those that come later are taken."""
        ...

    def submit(self, key: TryKey, call: Call) -> None:
        """Take one try. Raises ExecutorClosed, ExecutorBroken."""
        ...

    def flush(self) -> None:
        """Send what is buffered."""
        ...

    def cancel(self, keys: Sequence[TryKey], kill: bool) -> None:
        """Ask to cancel tries."""
        ...

    def withdraw(self, key: TryKey) -> bool | None:
        """Cancel a try that has not begun; False if it has, None if it ends without, or nobody says in time."""
        ...

    def admit(self, public_key: bytes, block: str) -> None:
        """Let the managers of a block in."""
        ...

    def revoke(self, block: str) -> None:
        """Keep the managers of a block out from now on."""
        ...

    def command(
        self,
        name: str,
        *,
        blocks: Sequence[str] = (),
        managers: Sequence[str] = (),
        idle_for_s: float | None = None,
        key: TryKey | None = None,
        timeout_s: float = 10.0,
    ) -> Reply:
        """Give an order about managers and return its answer. Raises ExecutorError."""
        ...

    def hold_nodes(self, nodes: tuple[str, ...]) -> None:
        """Have these nodes, and no others, get no tasks. Never blocks."""
        ...

    def whereabouts(self, key: TryKey, timeout_s: float) -> Whereabouts:
        """Return where a task is; with a timeout of 0 as far as that is known here. Raises ExecutorError: no answer."""
        ...

    @property
    def credit(self) -> Credit:
        """Slots and managers that are connected."""
        ...

    @property
    def outstanding(self) -> int:
        """Number of tasks that were submitted and have no outcome yet."""
        ...

    @property
    def unsent(self) -> int:
        """Tasks of these that wait here."""
        ...

    def knows(self, key: TryKey) -> bool:
        """Whether a task has no outcome yet."""
        ...

    def waits(self, key: TryKey) -> bool:
        """Whether a task waits here."""
        ...
