"""Reasons for which tasks wait for workers, as the blocks of an executor show them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from flow_core.interfaces.waiting import Cause, CauseKind, count, duration
from flow_executors.scaling.block import Block
from flow_executors.scaling.recovery import YOUNG_S
from flow_executors.scaling.scaling_core import ScalingCore
from flow_providers.interfaces.job_state import JobState

# Blocks that are named one by one; the others are counted.
_NAMED = 3


def block_causes(core: ScalingCore, label: str, now: float, notes: Sequence[str] = ()) -> list[Cause]:
    """Return why an executor has no more workers than it has: blocks on their way, failed ones, the limit.

    Args:
        core: The blocks.
        label: The executor.
        now: Seconds of the core's clock.
        notes: What else stands in the way, such as a scheduler that does not answer.
    """
    coming = [block for block in core.blocks.values() if not block.ended and not block.managers]
    causes = [Cause(CauseKind.BLOCK, text) for text in _short(core, label, now)]
    causes += [Cause(CauseKind.BLOCK, _coming(block, label, now)) for block in coming[:_NAMED]]
    if coming[_NAMED:]:
        more = count(len(coming) - _NAMED, "more block")
        causes.append(Cause(CauseKind.BLOCK, f"{more} of {label!r} without workers"))
    if core.recovery.attempts:
        causes.append(Cause(CauseKind.BLOCK, _failed(core, label, now)))
    elif core.recovery.next_at > now and core.recovery.young:
        causes.append(Cause(CauseKind.BLOCK, _young(core, label, now)))
    if not coming:
        causes.append(Cause(CauseKind.BLOCK, _limit(core, label)))
    return [*causes, *(Cause(CauseKind.BLOCK, note) for note in notes)]


def _short(core: ScalingCore, label: str, now: float) -> list[str]:
    """Return what becomes of blocks that have lost nodes which tasks of ranks need, and what no block ever had."""
    texts = []
    leaving = [block for block in core.blocks.values() if block.finishing and block.managers and not block.ended]
    for block in [*leaving, *core.short(now)][:_NAMED]:
        then = (
            "it takes nothing new, and is replaced when what runs there is over"
            if block.finishing
            else "another block is to take the tasks that need more"
        )
        most = max(block.most, core.usual)
        texts.append(f"block {block.name} of {label!r} has {block.managers} of its {most} managers left: {then}")
    beyond = [nodes for nodes in core.lacking if nodes > core.usual]
    if beyond and core.usual:
        texts.append(
            f"tasks wait for {count(beyond[0], 'node')} of one block, and no block of {label!r} has had managers on "
            f"more than {core.usual} so far: its launcher, or nodes_per_block of its provider, starts no more"
        )
    return texts


def _coming(block: Block, label: str, now: float) -> str:
    who = f"block {block.name} of {label!r}"
    if not block.job_id:
        return f"{who} is being submitted"
    who += f" (job {block.job_id})"
    told = " ".join(part for part in (block.status.reason, block.status.message) if part)
    reason = f", for the scheduler's reason {told!r}" if told else ", and its scheduler gives no reason"
    since = f"submitted {duration(now - block.submitted_at)} ago"
    if block.condemned:
        return f"{who} no longer counts, and its job is cancelled: {block.condemned}"
    if block.cancelled or block.releasing_since is not None:
        return f"{who} is being given back"
    if block.status.state is JobState.RUNNING:
        lost = "has no worker left" if block.joined_at is not None else "none of its workers has connected yet"
        return f"{who} runs, {since}, but {lost}"
    return f"{who} is {block.status.state.name.lower()} at its scheduler, {since}{reason}"


def _failed(core: ScalingCore, label: str, now: float) -> str:
    recovery = core.recovery
    failed = "failed one after another; the last, " if recovery.attempts > 1 else "failed: "
    text = f"{count(recovery.attempts, 'block')} of {label!r} {failed}{recovery.last_error}"
    if recovery.next_at > now:
        text = f"{text}; the next is tried in {duration(recovery.next_at - now)}"
    if not recovery.worked or recovery.within_s == float("inf"):
        return text
    left = max(0.0, recovery.within_s - recovery.waited_s(now))
    return f"{text}; tasks fail if none works within {duration(left)} (recovery_timeout)"


def _young(core: ScalingCore, label: str, now: float) -> str:
    recovery = core.recovery
    soon = f"{count(recovery.young, 'block')} of {label!r} in a row ended within {duration(YOUNG_S)} after connecting"
    return f"{soon}; the next is tried in {duration(recovery.next_at - now)}"


def _limit(core: ScalingCore, label: str) -> str:
    limits = core.limits
    if not core.limits.max_blocks:
        return f"{label!r} may have no block at all: its provider says max_blocks=0"
    if core.occupied >= limits.max_blocks:
        return f"{label!r} has as many blocks as it may have (max_blocks={limits.max_blocks})"
    return f"{label!r} has {count(core.occupied, 'block')} of max_blocks={limits.max_blocks}, and none is on its way"
