"""The blocks of one executor and what is to become of them: pure. Times are seconds of one monotonic clock.

Feed it what happens to jobs and managers; ask it, once a period, what to submit, to release and to cancel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flow_core.interfaces.scaling import BlockLimits, Load, ScalingView, Strategy
from flow_executors.scaling.block import Block, Bounds
from flow_executors.scaling.failures import how
from flow_executors.scaling.recovery import RecoveryPolicy
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

DRAIN_TIMEOUT_S = 60.0
"""Seconds that a block which is given back has to drain; then its job is cancelled with whatever runs there."""
# Failed blocks that are remembered for the error's text: the handler and the text show the last of them.
REMEMBERED = 20


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Attributes:
        add: So many new blocks are to be submitted.
        release: Blocks to be drained and given back.
        cancel: Blocks whose jobs are to be cancelled.
        replace: Blocks that have lost nodes which tasks of ranks need: to be drained, however long what runs takes.
        condemned: Blocks of these that were just found to be of no use: they no longer count.
        written_off: Blocks whose jobs could not be ended: they no longer count against ``max_blocks``.
    """

    add: int = 0
    release: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()
    condemned: tuple[str, ...] = ()
    written_off: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()


_WELL = (JobState.COMPLETED, JobState.TIMEOUT)
"""Ends of jobs that are no failures: by themselves, or since their walltime was over."""


@dataclass(slots=True)
class ScalingCore:
    """State of an executor's blocks. Not thread-safe: the shell holds a lock."""

    limits: BlockLimits
    strategy: Strategy
    max_idletime_s: float = 120.0
    partial_release: bool = True
    slots_per_block: int = 0
    bounds: Bounds = field(default_factory=Bounds)
    blocks: dict[str, Block] = field(default_factory=dict)
    failed: dict[str, JobStatus] = field(default_factory=dict)
    """The last blocks that failed without ever having connected, since one last did or the tasks were told."""
    lacking: tuple[int, ...] = ()
    """The nodes of one block that waiting tasks of ranks need where no block has as many."""
    wide: tuple[int, int, int] | None = None
    """Of tasks that take several slots, as ``Reply.wide`` has it; None where there is none, or it is not known."""
    usual: int = 0
    """Managers of one block: the most that were seen."""
    recovery: RecoveryPolicy = field(init=False)
    _next: int = 0
    _first_done: bool = False
    _busy_at: float = 0.0
    _last_end: JobState | None = None
    _owed: bool = False
    """A block was given back to be replaced, and none has connected since."""

    def __post_init__(self) -> None:
        self.recovery = RecoveryPolicy(max(1, self.limits.init_blocks), self.bounds.recovery_s)

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
        status = JobStatus(JobState.FAILED, reason="not submitted", message=reason)
        self.blocks[name].status = status
        self._last_end = status.state
        self._count_failure(self.blocks[name], status, now)

    def put_off(self, name: str, until: float) -> None:
        """A block was not submitted, which is no failure: the hosts that could take it are known to be away."""
        del self.blocks[name]
        self.recovery.put_off(until)

    def joined(self, name: str, now: float) -> None:
        """A manager of a block registered: blocks can live here."""
        block = self.blocks.get(name)
        if block is None or block.ended:
            return
        block.managers += 1
        block.most = max(block.most, block.managers)
        self.usual = max(self.usual, block.most)
        block.joined_at = now if block.joined_at is None else block.joined_at
        block.empty_since = None
        block.idle_for_s, block.known_idle = 0.0, False
        if block.active:
            self._owed = False
        if not block.condemned:
            self.failed.clear()
            self.recovery.succeeded()

    def left(self, name: str, reason: str, now: float) -> None:
        """A manager of a block is gone."""
        block = self.blocks.get(name)
        if block is None or not block.managers:
            return
        block.managers -= 1
        if not block.managers:
            block.empty_since, block.left_because = now, reason

    def bar(self, names: Collection[str]) -> None:
        """All nodes of these blocks, and of no others, are held: they do not count while that lasts."""
        for block in self.blocks.values():
            block.barred = block.name in names

    def told(self, activity: Mapping[str, tuple[int, float]]) -> None:
        """Take in (slots, idle seconds) of each connected block."""
        for name, (slots, idle_for_s) in activity.items():
            # The most that was seen: while some managers of a block have not connected it looks smaller than it is.
            self.slots_per_block = max(self.slots_per_block, slots)
            if name in self.blocks:
                self.blocks[name].idle_for_s, self.blocks[name].known_idle = idle_for_s, True

    def changed(self, name: str, status: JobStatus, now: float) -> bool:
        """Take in a block's status of the provider's; return whether its state, or the reason for it, has changed."""
        block = self.blocks[name]
        if block.ended:
            return False
        # The first sight of it: the time in the queue does not count against ``block_start_timeout``.
        if status.state is JobState.RUNNING and block.running_since is None:
            block.running_since = now
        before, block.status = block.status, self._as_ours(block, status)
        if status.terminal:
            self._ended(block, now)
        return before.state is not status.state or before.reason != block.status.reason

    @staticmethod
    def _as_ours(block: Block, status: JobStatus) -> JobStatus:
        """Return a status with what we know of its end: that we had asked for it, and why."""
        if not status.terminal:
            return status
        if block.condemned:
            return replace(status, reason=block.condemned)
        asked = block.cancelled or block.releasing_since is not None
        return replace(status, state=JobState.SCALED_IN) if asked else status

    def _ended(self, block: Block, now: float) -> None:
        self._last_end = block.status.state
        self.recovery.resume()  # its host may take another one
        block.managers = 0
        if block.status.state is JobState.SCALED_IN or block.condemned:
            return
        if block.joined_at is None:
            self._count_failure(block, block.status, now)
        else:
            self.recovery.lost(now - block.joined_at, now, block.status.state in _WELL)

    def _count_failure(self, block: Block, status: JobStatus, now: float) -> None:
        self.failed[block.name] = status
        while len(self.failed) > REMEMBERED:
            del self.failed[next(iter(self.failed))]
        self.recovery.failed(f"block {block.name}: {block.condemned or how(status)}", now)

    # -- what to do

    def decide(self, load: Load, now: float, change: int | None = None) -> Decision:
        """Return what to submit and what to give back.

        Args:
            load: The executor's load.
            now: The time.
            change: The strategy's answer to ``view``; None: it is asked here.
        """
        # Before the load is looked at: blocks that are of no use must not count as active below.
        condemned = tuple(self._condemn(now))
        written_off = tuple(self._write_off(now))
        ends = Decision(0, (), tuple(self._to_cancel(now)), condemned, written_off)
        self.recovery.looked(load.waiting > 0, any(block.managers for block in self.blocks.values()), now)
        if not self._first_done:
            self._first_done = True
            # The first blocks come whatever the load: they are on their way while the script prepares its tasks.
            first = max(self.limits.init_blocks, self.limits.min_blocks)
            return replace(ends, add=min(first, self.limits.max_blocks))
        if load.waiting + load.running:
            self._busy_at = now
        if change is None:
            change = self.strategy(self.view(load, now))
        # Without this, a run with strategy 'none' would wait for ever after its only block has died.
        if change <= 0 and load.waiting and self._stranded:
            change = 1
        # Whatever the load says: it counts tasks and workers, and takes one of ranks for running while any is free.
        short = self.short(now)
        if short and self.may_replace(now):
            if self.occupied >= self.limits.max_blocks:
                return replace(ends, replace=(self._to_replace(short, now),) if self.recovery.may_try(now) else ())
            change = max(change, 1)
        if change > 0:
            return replace(ends, add=self._room(change) if self.recovery.may_try(now) else 0)
        return replace(ends, release=self.idlest(-change, self.max_idletime_s, now))

    @property
    def _stranded(self) -> bool:
        """Whether no block is left, and the last was not given back: then one is replaced, whatever the strategy."""
        return (
            bool(self.blocks or self.recovery.away_until)
            and not self.occupied
            and (self._owed or self._last_end is not JobState.SCALED_IN)
        )

    def short(self, now: float) -> list[Block]:
        """Return the blocks that have lost managers while tasks of ranks wait for more nodes than any block has."""
        # Beyond what any block ever had, another block would have no more: the launcher starts as many as it does.
        if not any(nodes <= self.usual for nodes in self.lacking):
            return []
        return [block for block in self.blocks.values() if block.short(self.usual, self.bounds, now)]

    def may_replace(self, now: float) -> bool:
        """Whether nothing is under way that may have the nodes: neither a new block nor the end of one drained."""
        return not any(
            block.growing(self.usual, self.bounds, now) or (block.finishing and not (block.ended or block.written_off))
            for block in self.blocks.values()
        )

    def _to_replace(self, short: Sequence[Block], now: float) -> str:
        """Return the one of them that has had nothing to do for longest."""
        return max(short, key=lambda block: self._idle_for(block, now)).name

    def _room(self, wanted: int) -> int:
        """Return how many blocks to add: never above ``max_blocks``, and one at a time after failures."""
        room = max(0, self.limits.max_blocks - self.occupied)
        # What fails once would fail many times: one block finds out whether it is over.
        careful = self.recovery.attempts or self.recovery.told
        return min(wanted, room, 1) if careful else min(wanted, room)

    def in_slots(self, load: Load) -> Load:
        """Return a load in which a task of several slots counts as so many, and as waiting while it waits."""
        if self.wide is None:
            return load
        tasks, slots, beyond = self.wide
        busy = max(0, load.waiting + load.running - tasks) + beyond
        running = min(load.slots, busy)
        return replace(load, waiting=busy - running + slots, running=running)

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
            # A block that has just joined has not been asked yet: it counts as busy.
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

    def finish(self, name: str, now: float) -> None:
        """A block that has lost managers is being drained, and another one is to take its place."""
        block = self.blocks[name]
        self.release(name, now)
        block.finishing = self._owed = True
        self.recovery.lost(now - (block.joined_at or now), now)

    # -- ending jobs

    def cancelling(self, names: Sequence[str], now: float) -> None:
        """The jobs of these blocks are being cancelled."""
        for name in names:
            block = self.blocks[name]
            block.cancelled = True
            block.cancel_since = now if block.cancel_since is None else block.cancel_since
            block.cancel_again_at = now + self.bounds.cancel_again_s

    def not_cancelled(self, names: Sequence[str], now: float) -> None:
        """Cancelling did not work: it is tried again, soon and then less often."""
        for name in names:
            block = self.blocks[name]
            waited = now - (now if block.cancel_since is None else block.cancel_since)
            # As long again as it has taken so far, from half a second on: a scheduler that is overloaded is not asked
            # more.
            block.cancel_again_at = now + min(self.bounds.cancel_again_s, max(0.5, waited))

    def _to_cancel(self, now: float) -> list[str]:
        """Blocks that are drained, or do not manage to be, or are of no use: their jobs can go."""
        return [
            block.name
            for block in self.blocks.values()
            if not block.ended and block.job_id and self._unwanted(block, now) and now >= block.cancel_again_at
        ]

    @staticmethod
    def _unwanted(block: Block, now: float) -> bool:
        if block.condemned or block.cancelled:
            return True
        since = block.releasing_since
        if since is None:
            return False
        return not block.managers or (not block.finishing and now - since > DRAIN_TIMEOUT_S)

    def _condemn(self, now: float) -> list[str]:
        """Find blocks whose jobs run and that cannot work: from now on they do not count."""
        found = []
        for block in self.blocks.values():
            if block.ended or not (block.active or block.barred) or not (why := block.useless(self.bounds, now)):
                continue
            block.condemned = why
            found.append(block.name)
            if block.joined_at is None:
                self._count_failure(block, replace(block.status, reason=why), now)
            else:
                self.recovery.lost((block.empty_since or now) - block.joined_at, now)
        return found

    def _write_off(self, now: float) -> list[str]:
        """Find blocks that were to end long ago: they no longer keep others from coming."""
        found = []
        for block in self.blocks.values():
            since = block.cancel_since
            if not (block.ended or block.written_off) and since is not None and now - since > self.bounds.cancel_s:
                # Else a job that the scheduler cannot end would take up a place of ``max_blocks`` for good.
                block.written_off = True
                self._last_end = JobState.SCALED_IN if not block.condemned else JobState.FAILED
                found.append(block.name)
        return found

    # -- giving up

    def hopeless(self, now: float) -> bool:
        """Whether enough blocks have failed one after another, and none is left that may still come."""
        return not self.active and self.recovery.exhausted(now)

    def gave_up(self) -> None:
        """Note that all tasks failed with the error. Tasks that come later make a fresh attempt."""
        self.recovery.give_up()
        self.failed.clear()

    def next_look_s(self, now: float) -> float:
        """Return after how many seconds something is due by time alone; infinite where nothing is."""
        due = [block.due_at(self.bounds) for block in self.blocks.values() if not block.ended]
        due += [at for at in (self.recovery.next_at, self.recovery.away_until) if at > now]
        return max(0.0, min(due, default=float("inf")) - now)

    # -- what there is

    def jobs(self) -> dict[str, str]:
        """Return the blocks whose jobs are not known to have ended, by job id."""
        return {block.job_id: name for name, block in self.blocks.items() if block.job_id and not block.ended}

    @property
    def active(self) -> int:
        """Blocks that count for strategies."""
        return sum(block.active for block in self.blocks.values())

    @property
    def occupied(self) -> int:
        """Blocks that the provider still has, those on their way out included, but for what could not be ended."""
        return sum(not (block.ended or block.written_off) for block in self.blocks.values())

    def counts(self) -> tuple[tuple[str, int], ...]:
        """Return the number of blocks in each state that occurs, by the state's name."""
        found: dict[str, int] = {}
        for block in self.blocks.values():
            found[block.status.state.name] = found.get(block.status.state.name, 0) + 1
        return tuple(sorted(found.items()))
