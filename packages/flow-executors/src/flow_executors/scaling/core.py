"""The blocks of one executor and what is to become of them: pure. Times are seconds of one monotonic clock.

Feed it what happens to jobs and managers; ask it, once a period, what to submit and what to release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from flow_core.interfaces.scaling import BlockLimits, Load, ScalingView, Strategy
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

_PAUSES_S = (0.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
DRAIN_TIMEOUT_S = 60.0
_WAITING = JobStatus(JobState.PENDING)


@dataclass(slots=True)
class Block:
    """One block.

    Attributes:
        name: Its id, unique in the executor's life.
        job_id: The provider's id; empty until it is submitted.
        status: What the provider said last.
        submitted_at: When it was submitted.
        managers: How many of its managers are connected.
        joined: Whether any ever was.
        releasing_since: Since when it is being drained to be given back; None if it is not.
        cancelled: Its job was cancelled by us.
        idle_for_s: How long it has had nothing to do, as told last.
        known_idle: Whether ``idle_for_s`` was told at all since it joined.
    """

    name: str
    job_id: str = ""
    status: JobStatus = _WAITING
    submitted_at: float = 0.0
    managers: int = 0
    joined: bool = False
    releasing_since: float | None = None
    cancelled: bool = False
    idle_for_s: float = 0.0
    known_idle: bool = False

    @property
    def ended(self) -> bool:
        """Whether its job is over."""
        return self.status.terminal

    @property
    def active(self) -> bool:
        """Whether it counts: waiting for nodes, or on them, and not on its way out."""
        return not self.ended and self.releasing_since is None and not self.cancelled


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now: submit so many new blocks, release these, cancel the jobs of those."""

    add: int = 0
    release: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()


@dataclass(slots=True)
class ScalingCore:
    """State of an executor's blocks. Not thread-safe: the shell holds a lock."""

    limits: BlockLimits
    strategy: Strategy
    max_idletime_s: float = 120.0
    partial_release: bool = True
    slots_per_block: int = 0
    blocks: dict[str, Block] = field(default_factory=dict)
    failed: dict[str, JobStatus] = field(default_factory=dict)
    """Blocks that ended by themselves without ever having connected, since one last did."""
    _next: int = 0
    _first_done: bool = False
    _paused_until: float = 0.0
    _busy_at: float = 0.0

    # -- what happens

    def new_block(self) -> str:
        """Return the id of a block that is about to be submitted; it counts from now on."""
        name = str(self._next)
        self._next += 1
        self.blocks[name] = Block(name)
        return name

    def submitted(self, name: str, job_id: str, now: float) -> None:
        """A block's job was submitted."""
        block = self.blocks[name]
        block.job_id, block.submitted_at = job_id, now

    def not_submitted(self, name: str, reason: str, now: float) -> None:
        """A block could not be submitted."""
        self.blocks[name].status = status = JobStatus(JobState.FAILED, reason="not submitted", message=reason)
        self._count_failure(name, status, now)

    def joined(self, name: str) -> None:
        """A manager of a block registered: blocks can live here."""
        block = self.blocks.get(name)
        if block is not None:
            block.managers += 1
            block.joined = True
            block.idle_for_s, block.known_idle = 0.0, False
            self.failed.clear()
            self._paused_until = 0.0

    def left(self, name: str) -> None:
        """A manager of a block is gone."""
        block = self.blocks.get(name)
        if block is not None:
            block.managers = max(0, block.managers - 1)

    def told(self, activity: Mapping[str, tuple[int, float]]) -> None:
        """Take in (slots, idle seconds) of each connected block."""
        for name, (slots, idle_for_s) in activity.items():
            self.slots_per_block = max(self.slots_per_block, slots)
            if name in self.blocks:
                self.blocks[name].idle_for_s, self.blocks[name].known_idle = idle_for_s, True

    def changed(self, name: str, status: JobStatus, now: float) -> bool:
        """Take in what the provider says of a block; return whether its state is another than before."""
        block = self.blocks[name]
        if block.ended:
            return False
        if status.terminal and (block.cancelled or block.releasing_since is not None):
            status = replace(status, state=JobState.SCALED_IN)
        before, block.status = block.status, status
        if status.terminal:
            block.managers = 0
            if not block.joined and status.state is not JobState.SCALED_IN:
                self._count_failure(name, status, now)
        return before.state is not status.state

    def _count_failure(self, name: str, status: JobStatus, now: float) -> None:
        self.failed[name] = status
        self._paused_until = now + _PAUSES_S[min(len(self.failed), len(_PAUSES_S) - 1)]

    # -- what to do

    def decide(self, load: Load, now: float) -> Decision:
        """Say what to submit and what to give back."""
        cancel = tuple(self._to_cancel(now))
        if not self._first_done:
            self._first_done = True
            return Decision(add=min(self.limits.init_blocks, self.limits.max_blocks), cancel=cancel)
        if load.waiting + load.running:
            self._busy_at = now
        change = self.strategy(self.view(load, now))
        if change <= 0 and load.waiting and self._stranded:
            change = 1
        if change > 0:
            return Decision(add=self._room(change) if now >= self._paused_until else 0, cancel=cancel)
        return Decision(release=self.idlest(-change, self.max_idletime_s, now), cancel=cancel)

    @property
    def _stranded(self) -> bool:
        """Whether no block is left though none was given back: then one is replaced, whatever the strategy."""
        ends = [block.status.state for block in self.blocks.values()]
        return bool(ends) and not self.occupied and JobState.SCALED_IN not in ends

    def _room(self, wanted: int) -> int:
        """Never above ``max_blocks``, whatever a strategy says; one at a time after failures."""
        room = max(0, self.limits.max_blocks - self.occupied)
        return min(wanted, room, 1) if self.failed else min(wanted, room)

    def view(self, load: Load, now: float) -> ScalingView:
        """Return what a strategy may look at."""
        idle = sorted((self._idle_for(block, now) for block in self.blocks.values() if block.active), reverse=True)
        return ScalingView(
            load=replace(load, slots_per_block=self.slots_per_block or load.slots_per_block),
            limits=self.limits,
            active_blocks=self.active,
            idle_for_s=tuple(seconds for seconds in idle if seconds > 0),
            max_idletime_s=self.max_idletime_s,
            partial_release=self.partial_release,
        )

    def _idle_for(self, block: Block, now: float) -> float:
        """How long a block has been of no use; one that waits for nodes is when nothing is active."""
        if block.managers:
            return block.idle_for_s if block.known_idle else 0.0
        return max(0.0, now - max(block.submitted_at, self._busy_at)) if block.job_id else 0.0

    def idlest(self, count: int, max_idletime_s: float, now: float) -> tuple[str, ...]:
        """Return up to so many active blocks that have been idle at least that long; those without nodes first."""
        idle = [
            (bool(block.managers), -self._idle_for(block, now), block.name)
            for block in self.blocks.values()
            if block.active and block.job_id and self._idle_for(block, now) >= max_idletime_s
        ]
        return tuple(name for _, _, name in sorted(idle)[: max(0, count)])

    def release(self, name: str, now: float) -> None:
        """A block is being drained, or has nothing to drain."""
        block = self.blocks[name]
        if block.releasing_since is None:
            block.releasing_since = now

    def cancelling(self, names: Sequence[str]) -> None:
        """The jobs of these blocks are being cancelled."""
        for name in names:
            self.blocks[name].cancelled = True

    def not_cancelled(self, names: Sequence[str]) -> None:
        """Cancelling did not work: it is to be tried again."""
        for name in names:
            self.blocks[name].cancelled = False

    def _to_cancel(self, now: float) -> list[str]:
        """Blocks that are drained, or do not manage to be: their jobs can go."""
        return [
            block.name
            for block in self.blocks.values()
            if block.releasing_since is not None
            and not (block.ended or block.cancelled)
            and (not block.managers or now - block.releasing_since > DRAIN_TIMEOUT_S)
        ]

    # -- what there is

    def jobs(self) -> dict[str, str]:
        """Return the blocks whose jobs are not known to have ended, by job id."""
        return {block.job_id: name for name, block in self.blocks.items() if block.job_id and not block.ended}

    @property
    def paused_until(self) -> float:
        """When the next block may be asked for after failures."""
        return self._paused_until

    @property
    def active(self) -> int:
        """Blocks that count for strategies."""
        return sum(block.active for block in self.blocks.values())

    @property
    def occupied(self) -> int:
        """Blocks that the provider still has, those on their way out included."""
        return sum(not block.ended for block in self.blocks.values())

    def counts(self) -> tuple[tuple[str, int], ...]:
        """Return the number of blocks in each state that occurs, by the state's name."""
        found: dict[str, int] = {}
        for block in self.blocks.values():
            found[block.status.state.name] = found.get(block.status.state.name, 0) + 1
        return tuple(sorted(found.items()))

    @property
    def hopeless(self) -> bool:
        """Whether as many blocks as are started at first have failed one after another, and none is left."""
        return len(self.failed) >= max(1, self.limits.init_blocks) and not self.active
