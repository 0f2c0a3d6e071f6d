"""Maintenance of checkpoints: list, verify and compact them, for ``flow checkpoint``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from flow_core.checkpoint.find import get_all_checkpoints
from flow_core.checkpoint.log import lock_for_writing, sync_directory
from flow_core.checkpoint.reader import CheckpointReader, Damage, Opener, Record, checkpoint_file
from flow_core.checkpoint.record import DETAILS_NAME, FILE_HEADER_BYTES, FILE_NAME, file_header
from flow_core.errors import BadCheckpoint
from flow_core.folders import make_directory
from flow_core.own_files import NotOwnFile, open_own, open_own_to_write, owners

_CHUNK = 1 << 20  # bytes copied at once: values of any size pass through little memory

Place = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """Summary of a checkpoint file.

    Attributes:
        path: The file.
        size: Its size in bytes.
        records: Number of good records.
        keys: Number of different calls among them; less than ``records`` where some were stored again.
        apps: (app, records), the most frequent first.
        oldest_ns: When the first record was written, ns UTC; 0 if there is none.
        newest_ns: When the last one was.
        damages: What cannot be used.
    """

    path: Path
    size: int
    records: int
    keys: int
    apps: tuple[tuple[str, int], ...]
    oldest_ns: int
    newest_ns: int
    damages: tuple[Damage, ...]

    @property
    def whole(self) -> bool:
        """Whether every byte of the file can be used."""
        return not self.damages


def verify(place: Place) -> CheckpointInfo:
    """Read a checkpoint from end to end, checking every checksum. Changes nothing; unpickles nothing.

    Raises:
        BadCheckpoint: there is none at that place, or it is of a newer version.
    """
    path = checkpoint_file(place)
    reader = CheckpointReader(path)
    apps: Counter[str] = Counter()
    keys: set[bytes] = set()
    oldest = newest = 0
    for record in reader:
        apps[record.meta.app] += 1
        keys.add(record.meta.digest)
        oldest = min(oldest or record.meta.written_ns, record.meta.written_ns)
        newest = max(newest, record.meta.written_ns)
    size = path.stat().st_size if path.exists() else 0
    counts = tuple(apps.most_common())
    return CheckpointInfo(path, size, apps.total(), len(keys), counts, oldest, newest, tuple(reader.damages))


def list_checkpoints(rundir: Place = "runinfo") -> list[CheckpointInfo]:
    """Return what is in the checkpoints of all runs under a directory, oldest run first."""
    return [verify(place) for place in get_all_checkpoints(rundir)]


@dataclass(frozen=True, slots=True)
class Compaction:
    """Result of a compaction: records and bytes before and after, and what was damaged and is gone."""

    path: Path
    records_before: int
    records_after: int
    bytes_before: int
    bytes_after: int
    damages: tuple[Damage, ...]


def compact(sources: Sequence[Place], target: Place | None = None, trust_owner: Sequence[str | int] = ()) -> Compaction:
    """Write one checkpoint with the newest record of every call of the sources; the file is replaced at once.

    What is beside the sources to tell what has changed of a call comes along.

    Args:
        sources: The checkpoints to read, oldest first.
        target: Directory of the checkpoint to write; None means the first source's own, in place. The other sources are
            left as they are.
        trust_owner: Users, by name or number, whose sources are taken, too: whoever reads the target will unpickle
            what they have written.

    Raises:
        BadCheckpoint: a source is not there or belongs to another user, or the target is being written by a run.
        ConfigurationError: a user of ``trust_owner`` is unknown.
        OSError: the target cannot be written; it is then as it was.
    """
    if not sources:
        raise BadCheckpoint("compact needs at least one checkpoint")
    files = [checkpoint_file(place) for place in sources]
    path = files[0] if target is None else Path(target) / FILE_NAME
    make_directory(path.parent)
    # The writer's lock for as long as it takes: a run must not append to a file that is going to be replaced.
    guard = open_own_to_write(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        lock_for_writing(guard, path)
        done = _compact(files, path, owners(trust_owner), 0o644)
        _compact_details(files, path.with_name(DETAILS_NAME), owners(trust_owner))
        return done
    finally:
        os.close(guard)


def _compact_details(files: Sequence[Path], path: Path, trusted: frozenset[int]) -> None:
    details = dict.fromkeys(file.with_name(DETAILS_NAME) for file in files)
    there = [file for file in details if file.exists()]
    if there and there != [path]:
        _compact(there, path, trusted, 0o600)


def _compact(files: Sequence[Path], path: Path, trusted: frozenset[int], mode: int) -> Compaction:
    def opened(file: Path) -> BinaryIO:
        """Open a source of this user's or of one that is trusted. Raises BadCheckpoint."""
        try:
            return open_own(file, trusted)
        except NotOwnFile as error:
            raise BadCheckpoint(
                f"the checkpoint {file} is not taken: {error.reason}; and whoever reads the new one would run what its "
                "writer has put there. If that is well, name the owner: trust_owner=[...], --trust-owner"
            ) from error

    newest: dict[bytes, tuple[Path, Record]] = {}
    damages: list[Damage] = []
    count = 0
    for file in files:
        reader = CheckpointReader(file, opened)
        for record in reader:
            count += 1
            known = newest.get(record.meta.digest)
            # By the time of writing; of equal times the later source wins.
            if known is None or known[1].meta.written_ns <= record.meta.written_ns:
                newest[record.meta.digest] = (file, record)
        damages += reader.damages
    # Before the target is written, which may be one of the sources.
    before = sum(file.stat().st_size for file in files if file.exists())
    # In the order of writing, as a run would have written them.
    chosen = sorted(newest.values(), key=lambda each: each[1].meta.written_ns)
    # Written beside and renamed: a process that dies meanwhile leaves the target as it was.
    temporary = path.with_name(path.name + ".new")
    try:
        _write(temporary, chosen, opened, mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    after = FILE_HEADER_BYTES + sum(record.size for _, record in chosen)
    return Compaction(path, count, len(chosen), before, after, tuple(damages))


def _write(path: Path, chosen: Sequence[tuple[Path, Record]], opened: Opener, mode: int) -> None:
    with open(open_own_to_write(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as stream:
        stream.write(file_header())
        for file, records in groupby(chosen, key=lambda each: each[0]):
            with opened(file) as source:
                for _, record in records:
                    _copy(source, record, stream)
        stream.flush()
        # On the disk before the name is: else a power cut could leave an empty file in the place of a good one.
        os.fsync(stream.fileno())


def _copy(source: BinaryIO, record: Record, stream: BinaryIO) -> None:
    source.seek(record.offset)
    left = record.size
    while left > 0 and (chunk := source.read(min(_CHUNK, left))):
        stream.write(chunk)
        left -= len(chunk)
