"""What blocks that have no workers, or that there are none of, mean to tasks that wait for one. Pure."""

from __future__ import annotations

from flow_core.interfaces.waiting import Cause, CauseKind, count, duration
from flow_executors.scaling.core import Block, ScalingCore
from flow_executors.scaling.failures import how
from flow_providers.interfaces.job_state import JobState

_NAMED = 3


def block_causes(core: ScalingCore, label: str, now: float) -> list[Cause]:
    """Return why an executor has no more workers than it has: blocks on their way, failed ones, the limit.

    Args:
        core: The blocks.
        label: The executor.
        now: Seconds of the clock that the core is told.
    """
    coming = [block for block in core.blocks.values() if not block.ended and not block.managers]
    causes = [Cause(CauseKind.BLOCK, _coming(block, label, now)) for block in coming[:_NAMED]]
    if coming[_NAMED:]:
        more = count(len(coming) - _NAMED, "more block")
        causes.append(Cause(CauseKind.BLOCK, f"{more} of {label!r} without workers"))
    if core.failed:
        causes.append(Cause(CauseKind.BLOCK, _failed(core, label, now)))
    if not coming:
        causes.append(Cause(CauseKind.BLOCK, _limit(core, label)))
    return causes


def _coming(block: Block, label: str, now: float) -> str:
    who = f"block {block.name} of {label!r}"
    if not block.job_id:
        return f"{who} is being submitted"
    who += f" (job {block.job_id})"
    told = " ".join(part for part in (block.status.reason, block.status.message) if part)
    reason = f", for the scheduler's reason {told!r}" if told else ", and its scheduler gives no reason"
    since = f"submitted {duration(now - block.submitted_at)} ago"
    if block.cancelled or block.releasing_since is not None:
        return f"{who} is being given back"
    if block.status.state is JobState.RUNNING:
        lost = "has no worker left" if block.joined else "none of its workers has connected yet"
        return f"{who} runs, {since}, but {lost}"
    return f"{who} is {block.status.state.name.lower()} at its scheduler, {since}{reason}"


def _failed(core: ScalingCore, label: str, now: float) -> str:
    name, status = list(core.failed.items())[-1]
    blocks = count(len(core.failed), "block")
    text = f"{blocks} of {label!r} failed one after another; the last, block {name}: {how(status)}"
    pause_s = core.paused_until - now
    return f"{text}; the next is tried in {duration(pause_s)}" if pause_s > 0 else text


def _limit(core: ScalingCore, label: str) -> str:
    limits = core.limits
    if not core.limits.max_blocks:
        return f"{label!r} may have no block at all: its provider says max_blocks=0"
    if core.occupied >= limits.max_blocks:
        return f"{label!r} has as many blocks as it may have (max_blocks={limits.max_blocks})"
    return f"{label!r} has {count(core.occupied, 'block')} of max_blocks={limits.max_blocks}, and none is on its way"
