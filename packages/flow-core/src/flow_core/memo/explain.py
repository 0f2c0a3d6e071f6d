"""Explanation of misses: the nearest call that was stored, and the parts of the key in which the two differ."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flow_core.checkpoint.reader import CheckpointReader, checkpoint_file, read_value_bytes
from flow_core.checkpoint.record import FAILURES_NAME, Meta
from flow_core.interfaces.memoizer import ARGUMENT, MissReason
from flow_core.memo.details import Details
from flow_core.memo.key import FILE, SOURCE

Parts = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An earlier call: the parts of its key, what it is called in messages, and how it failed, if it did."""

    parts: tuple[tuple[str, bytes], ...]
    name: str
    failed: str = ""


def changed_parts(new: Parts, old: Parts) -> tuple[str, ...]:
    """Return the names of the parts that differ, are new or are gone, in the order of the key."""
    # The source part differs wherever anything does, so it would always be named.
    before = {name: _short(part) for name, part in old if name != SOURCE}
    after = {name: _short(part) for name, part in new if name != SOURCE}
    changed = [name for name, part in after.items() if before.get(name) != part]
    return (*changed, *(name for name in before if name not in after))


def explain(app: str, parts: Parts, candidates: Iterable[Candidate], details: Details) -> MissReason:
    """Compare a key with earlier ones of the same app, the newest last, and say in what the nearest differs.

    Calls with the same arguments are nearer than any others: they are what was made before. Of calls that are equally
    near one that is stored comes before one that failed.
    """
    best: tuple[str, ...] | None = None
    nearest = None
    for candidate in candidates:
        changed = changed_parts(parts, candidate.parts)
        # "<=": of candidates that are equally near the last one is named, which is the newest.
        if best is None or nearest is None or _nearness(changed, candidate) <= _nearness(best, nearest):
            best, nearest = changed, candidate
    if best is None or nearest is None:
        return MissReason(f"no call of app {app!r} is stored")
    now, before = dict(parts), dict(nearest.parts)
    how = tuple(_how(name, now, before, details) for name in best)
    reason = MissReason("", nearest.name, best, nearest.failed, how)
    if nearest.failed and reason.other_call:
        text = f"no call of app {app!r} with these arguments is stored; the nearest, {nearest.name}, which failed "
        return replace(reason, summary=f"{text}({nearest.failed}), is another; it differs in: {reason.changes}")
    if nearest.failed:
        same = "the same call" if not best else "the nearest call"
        since = f"; changed since then: {reason.changes}" if best else ""
        text = f"{same} of app {app!r}, {nearest.name}, failed ({nearest.failed}), and failures are not kept{since}"
        return replace(reason, summary=text)
    if not best:
        return replace(reason, summary=f"the same call of app {app!r} is stored by {nearest.name}")
    summary = f"of app {app!r} the nearest stored call is that of {nearest.name}; changed: {reason.changes}"
    return replace(reason, summary=summary)


def _how(name: str, now: Mapping[str, bytes], before: Mapping[str, bytes], details: Details) -> str:
    # Checkpoints of before contents counted have no such parts, so "is new" would be misleading.
    if name.startswith(FILE) and not any(other.startswith(FILE) for other in before):
        return "what it holds did not count then"
    return details.differences(name, now.get(name, b""), before.get(name, b""))


def _nearness(changed: tuple[str, ...], candidate: Candidate) -> tuple[int, int, bool]:
    arguments = sum(name.startswith(ARGUMENT) for name in changed)
    return arguments, len(changed), bool(candidate.failed)


@dataclass(frozen=True, slots=True)
class Why:
    """Why one task of a run was run, and not taken from earlier checkpoints."""

    app: str
    task_id: int
    reason: MissReason


def why(
    checkpoint: str | os.PathLike[str], earlier: Sequence[str | os.PathLike[str]], app: str | None = None
) -> list[Why]:
    """Explain, for every task that a run had to run and stored, why earlier checkpoints did not have it.

    Args:
        checkpoint: The run's checkpoint: file, directory, or the run's directory.
        earlier: The checkpoints it could have used, oldest first.
        app: Only tasks of the app of that name.

    Raises:
        BadCheckpoint: one of them is not there or cannot be read.
    """
    known: dict[str, list[Candidate]] = {}
    details = Details()
    for place in (*earlier, checkpoint):
        details.read(checkpoint_file(place).parent)
    for place in earlier:
        file = checkpoint_file(place)
        for record in CheckpointReader(file):
            if app in (None, record.meta.app):
                # All calls are compared here, where a run keeps the last 1,000 of each app.
                known.setdefault(record.meta.app, []).append(candidate_of(record.meta, str(place)))
        # Failures after results: at equal nearness _nearness prefers a stored call anyway.
        for candidate, of_app in _failed(file.parent / FAILURES_NAME, str(place)):
            known.setdefault(of_app, []).append(candidate)
    # The run's own details are read apart: whether a call was run again is asked of this run alone.
    found, own = [], Details()
    own.read(checkpoint_file(checkpoint).parent)
    for record in CheckpointReader(checkpoint_file(checkpoint)):
        meta = record.meta
        if app in (None, meta.app):
            reason = explain(meta.app, meta.parts, known.get(meta.app, ()), details)
            found.append(Why(meta.app, meta.task_id, _with_again(reason, own.again(meta.digest))))
    return found


def _with_again(reason: MissReason, again: str) -> MissReason:
    """Return a reason with why the same call was run, if that is known."""
    if not again or reason.changed or reason.failed or reason.nearest is None:
        return reason
    return replace(reason, summary=f"{reason.summary}, and was run again, since {again}", again=again)


def _failed(path: Path, place: str) -> Iterator[tuple[Candidate, str]]:
    """Yield the calls of a run that failed, each with its app."""
    for record in CheckpointReader(path):
        text = read_value_bytes(path, record.offset, record.meta.digest).decode(errors="replace")
        yield replace(candidate_of(record.meta, place), failed=text), record.meta.app


def candidate_of(meta: Meta, place: str = "") -> Candidate:
    """Return a record as a candidate, named by its task and its place."""
    return Candidate(meta.parts, f"task {meta.task_id}" + (f" in {place}" if place else ""))


def _short(part: bytes) -> bytes:
    # Checkpoints hold 8 bytes of each part: enough to see a change, and no key is made of them.
    return part[:8]
