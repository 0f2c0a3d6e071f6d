"""Looking after checkpoints: list, verify and compact them. What ``flow checkpoint`` calls."""

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
from flow_core.checkpoint.reader import CheckpointReader, Damage, Record, checkpoint_file
from flow_core.checkpoint.record import FILE_HEADER_BYTES, FILE_NAME, file_header
from flow_core.errors import BadCheckpoint

_CHUNK = 1 << 20

Place = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What is in a checkpoint file.

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
    """What a compaction did: records and bytes before and after, and what was damaged and is gone."""

    path: Path
    records_before: int
    records_after: int
    bytes_before: int
    bytes_after: int
    damages: tuple[Damage, ...]


def compact(sources: Sequence[Place], target: Place | None = None) -> Compaction:
    """Write one checkpoint with the newest record of every call of the sources; the file is replaced at once.

    Args:
        sources: The checkpoints to read, oldest first.
        target: Directory of the checkpoint to write; None means the first source's own, in place. The other sources are
            left as they are.

    Raises:
        BadCheckpoint: a source is not there, or the target is being written by a run.
        OSError: the target cannot be written; it is then as it was.
    """
    if not sources:
        raise BadCheckpoint("compact needs at least one checkpoint")
    files = [checkpoint_file(place) for place in sources]
    path = files[0] if target is None else Path(target) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    guard = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        lock_for_writing(guard, path)
        return _compact(files, path)
    finally:
        os.close(guard)


def _compact(files: Sequence[Path], path: Path) -> Compaction:
    newest: dict[bytes, tuple[Path, Record]] = {}
    damages: list[Damage] = []
    count = 0
    for file in files:
        reader = CheckpointReader(file)
        for record in reader:
            count += 1
            known = newest.get(record.meta.digest)
            if known is None or known[1].meta.written_ns <= record.meta.written_ns:
                newest[record.meta.digest] = (file, record)
        damages += reader.damages
    before = sum(file.stat().st_size for file in files if file.exists())
    chosen = sorted(newest.values(), key=lambda each: each[1].meta.written_ns)
    temporary = path.with_name(path.name + ".new")
    try:
        _write(temporary, chosen)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    after = FILE_HEADER_BYTES + sum(record.size for _, record in chosen)
    return Compaction(path, count, len(chosen), before, after, tuple(damages))


def _write(path: Path, chosen: Sequence[tuple[Path, Record]]) -> None:
    with open(path, "wb") as stream:
        stream.write(file_header())
        for file, records in groupby(chosen, key=lambda each: each[0]):
            with open(file, "rb") as source:
                for _, record in records:
                    _copy(source, record, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _copy(source: BinaryIO, record: Record, stream: BinaryIO) -> None:
    source.seek(record.offset)
    left = record.size
    while left > 0 and (chunk := source.read(min(_CHUNK, left))):
        stream.write(chunk)
        left -= len(chunk)
