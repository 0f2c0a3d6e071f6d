"""Why a call was not found: the nearest one that was stored, and the parts of the key in which they differ."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flow_core.checkpoint.reader import CheckpointReader, checkpoint_file
from flow_core.checkpoint.record import Meta
from flow_core.interfaces.memoizer import MissReason
from flow_core.memo.key import SOURCE

Parts = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored call: the parts of its key, and what it is called in messages."""

    parts: tuple[tuple[str, bytes], ...]
    name: str


def changed_parts(new: Parts, old: Parts) -> tuple[str, ...]:
    """Return the names of the parts that differ, are new or are gone, in the order of the key."""
    before = {name: _short(part) for name, part in old if name != SOURCE}
    after = {name: _short(part) for name, part in new if name != SOURCE}
    changed = [name for name, part in after.items() if before.get(name) != part]
    return (*changed, *(name for name in before if name not in after))


def explain(app: str, parts: Parts, candidates: Iterable[Candidate]) -> MissReason:
    """Compare a key with stored ones of the same app, the newest last, and say in what the nearest differs."""
    best: tuple[str, ...] | None = None
    nearest = None
    for candidate in candidates:
        changed = changed_parts(parts, candidate.parts)
        if best is None or len(changed) <= len(best):
            best, nearest = changed, candidate
    if best is None or nearest is None:
        return MissReason(f"no call of app {app!r} is stored")
    if not best:
        return MissReason(f"the same call of app {app!r} is stored by {nearest.name}", nearest.name)
    summary = f"of app {app!r} the nearest stored call is that of {nearest.name}; changed: {', '.join(best)}"
    return MissReason(summary, nearest.name, best)


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
    for place in earlier:
        for record in CheckpointReader(checkpoint_file(place)):
            if app in (None, record.meta.app):
                known.setdefault(record.meta.app, []).append(candidate_of(record.meta, str(place)))
    found = []
    for record in CheckpointReader(checkpoint_file(checkpoint)):
        meta = record.meta
        if app in (None, meta.app):
            found.append(Why(meta.app, meta.task_id, explain(meta.app, meta.parts, known.get(meta.app, ()))))
    return found


def candidate_of(meta: Meta, place: str = "") -> Candidate:
    """Return a record as a candidate, named by its task and its place."""
    return Candidate(meta.parts, f"task {meta.task_id}" + (f" in {place}" if place else ""))


def _short(part: bytes) -> bytes:
    return part[:8]
