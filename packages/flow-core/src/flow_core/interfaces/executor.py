"""Executor interface: the kernel hands keys and calls down; batches of outcomes come up through the listener."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.scaling import BlockInfo, Load
from flow_core.interfaces.staging import Staging
from flow_core.interfaces.task_fields import HONOURED_BY_ALL
from flow_core.interfaces.waiting import Cause


@dataclass(frozen=True, slots=True)
class ShutdownReport:
    """Report of a shutdown.

    Attributes:
        forced: Sentences about what had to be forced; empty when all ended by itself.
        elapsed_s: How long it took, in seconds.
        left: What still runs in the script's own process since nothing can end it, for its user; empty if nothing.
        not_ended: What may still run elsewhere, such as jobs on hosts that do not answer: each a phrase that goes on
            after "could not". The end of the run is then incomplete.
    """

    forced: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    left: str = ""
    not_ended: tuple[str, ...] = ()


class Executor(ABC):
    """Runs tries. Owns no futures, no retries and no budgets.

    Every key that ``submit`` accepted gets exactly one Outcome, whatever is called in whatever order, also when the
    executor is shut down or breaks.
    """

    label: str
    """Unique in a Config; names the executor in apps, logs and directories."""
    # Class attributes with defaults from here on: an executor states only what differs.
    storage_access: Sequence[Staging] | None = None
    """Staging methods that replace the defaults; None means the defaults."""
    working_dir: str | None = None
    """Directory for staged files; None means the current directory of the task."""
    managed: bool = True
    """Whether the kernel scales it and shuts it down."""
    kills: bool = False
    """Whether ``cancel(kill=True)`` surely ends tries that run."""
    carries_files: bool = False
    """Whether its nodes may have other disks, and it then moves local files of tasks itself. Their calls come with a
    ``FilesByConnection`` as the first step, and its nodes have ``NodeContext.script_files``."""
    avoids_nodes: bool = False
    """Whether it heeds ``TaskSpec.avoid``: a task that is tried again then goes to another node first."""
    honours: frozenset[str] = HONOURED_BY_ALL
    """Fields of tasks that it honours (``TASK_FIELDS``). What a task asks for beyond them is refused at the call: so
    nothing is dropped by an executor that does not know of it."""
    task_limits: Mapping[str, float] = MappingProxyType({})
    """A dict of the most ``memory`` (MB) and ``walltime`` (seconds) that a task can have, as far as that is known: what
    grows with retries (``grow_on_retry``) grows up to that."""
    in_process: bool = False
    """Whether its tasks share the objects of the script's process. If not, calls come with a snapshot to be sent."""

    @abstractmethod
    def start(self, context: RunContext) -> None:
        """Become ready to take tries.

        May block up to ``context.start_timeout_s``; called by the thread that loads the Config. Legal again after
        ``shutdown``. Raises ExecutorError saying what is wrong; then nothing is left running.
        """

    @abstractmethod
    def submit(self, key: TryKey, call: Call, /) -> None:
        """Take one try. Any thread; never blocks and never reports from inside.

        A call that cannot run here is reported as REFUSED, not raised.

        Raises:
            ExecutorClosed: not started, or shut down.
            ExecutorBroken: cannot run anything any more.
        """

    def flush(self) -> None:
        """Send what is buffered: a hint that the caller is about to wait. Any thread; never blocks."""
        return None

    @abstractmethod
    def cancel(self, keys: Sequence[TryKey], /, *, kill: bool = False) -> None:
        """Ask to cancel tries: those not started, and with ``kill`` also started ones where that is possible.

        A request: each key still gets exactly one Outcome (CANCELLED, or what it came to). Unknown keys are ignored.
        Any thread; never blocks.
        """

    @abstractmethod
    def load(self) -> Load:
        """Return a frozen picture of the executor. Any thread; never blocks; O(1)."""

    def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
        """Say all that keeps a try from being done; empty if the executor has not got it, or cannot tell.

        A try that runs is waited for too: its cause is RUNNING. Any thread. Returns within about ``timeout_s`` seconds;
        what another thread or process did not answer by then is a cause of kind UNKNOWN that says so. With 0 only what
        is known at once.
        """
        return ()

    def withdraw(self, key: TryKey, /) -> bool | None:
        """Take back a try that was not reported as started, before its task is cancelled; tell how that went.

        True: it never starts, and is reported as cancelled. False: it has begun, and the task is not cancelled. None:
        nobody can tell at once; the task is cancelled, and ``cancel`` called. Any thread; returns within a second.
        """
        return None

    def adopt(self, keys: Sequence[TryKey], /) -> Sequence[TryKey]:
        """After a restart of the driver: which of these keys the executor still holds and will report."""
        return ()

    @abstractmethod
    def shutdown(self, timeout_s: float) -> ShutdownReport:
        """End within about ``timeout_s`` seconds; idempotent.

        Every key outstanding gets an Outcome (RETURNED if provably not started, CANCELLED otherwise), or is reported
        as ended, before it returns. Says what it had to force.
        """


class BlockExecutor(Executor):
    """An executor whose slots come in blocks from a provider: what the field calls ``scaling_enabled``."""

    provider: object | None = None

    @abstractmethod
    def scale_out(self, blocks: int = 1) -> Sequence[str]:
        """Ask the provider for blocks; return their ids. May block for the provider's ``cmd_timeout`` each.

        Raises:
            ScalingFailed: the provider refused; the cause is chained.
        """

    @abstractmethod
    def scale_in(self, blocks: int, *, max_idletime_s: float | None = None, timeout_s: float = 60.0) -> Sequence[str]:
        """Drain and give back up to that many blocks, idle ones first; return their ids.

        With ``max_idletime_s`` only blocks idle at least that long. Never a block that is running something.
        """

    def block_infos(self) -> Sequence[BlockInfo]:
        """Return all blocks so far, for people to look at; empty where the executor cannot tell. Never blocks."""
        return ()

    def most_blocks(self) -> int | None:
        """Return how many blocks there may be at once; None where that has no limit."""
        return None

    @property
    def scaling_enabled(self) -> bool:
        """Whether there is a provider to ask for blocks."""
        return self.provider is not None
