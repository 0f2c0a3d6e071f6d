"""The seam between an executor and the scaling of its blocks.

An executor makes one scaler a start (``Scaler(host, provider, context, block_error_handler)``) and calls:

- ``start()``: submits the first blocks and starts the thread; never blocks for a scheduler
- ``scale_out(blocks) -> ids``, ``scale_in(blocks, max_idletime_s, timeout_s) -> ids``
- ``joined(manager)``, ``left(block, lost, reason)``: a manager of a block registered or went; must not block
- ``blocks() -> {id: JobState}``, ``counts() -> ((state name, number), ...)``, ``slots_per_block``
- ``why_waiting() -> [Cause]``: what a task without a worker waits for
- ``close(timeout_s) -> what was forced``: cancels all jobs; idempotent
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flow_core.errors import ExecutorBroken
from flow_core.interfaces.scaling import Load
from flow_executors.wire.commands import Reply


@dataclass(frozen=True, slots=True)
class BlockOrder:
    """The command of a new block, and what goes with it (as in ``JobExtras``)."""

    command: str
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, bytes], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    forward: tuple[str, int] | None = None


class BlockOwner(Protocol):
    """The executor, as scaling needs it. Called on the scaling thread, and in ``scale_out`` and ``scale_in``."""

    @property
    def label(self) -> str:
        """Label of the executor."""
        ...

    def load(self) -> Load:
        """Return the executor's load. Its ``blocks`` and ``slots_per_block`` come from the scaler itself."""
        ...

    def order(self, block: str) -> BlockOrder:
        """Make a key pair for a new block, admit it, and return what the block is to run."""
        ...

    def dismiss(self, block: str) -> None:
        """A block's job has ended or was cancelled: its key is revoked, its managers are no longer waited for."""
        ...

    def activity(self) -> Reply:
        """Return what is connected and how busy it is, and what tasks of ranks lack.

        May block for a second or two; raises ExecutorError.
        """
        ...

    def drain(self, blocks: Sequence[str], idle_for_s: float | None) -> Sequence[str]:
        """Drain blocks, with ``idle_for_s`` only those wholly idle for that long; return those that drain now.

        A drained manager leaves by itself (``left(block, lost=False, ...)``). Raises ExecutorError.
        """
        ...

    def give_up(self, error: ExecutorBroken) -> None:
        """No block can be had now: all tasks get this error, those that come later are taken. Idempotent."""
        ...
