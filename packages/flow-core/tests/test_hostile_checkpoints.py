"""Checkpoints that somebody else has written, looked at: they are damage in a line, within bounds."""

from __future__ import annotations

import os
import random
from pathlib import Path
from zlib import crc32

import pytest

from flow_core.checkpoint.compact import list_checkpoints, verify
from flow_core.checkpoint.record import _CRC, _RECORD, Meta, file_header, pack, unpack_head

META = Meta(bytes(16), None, 1, 1, 2, 3, (3, 11), "work", (("code", bytes(8)),))


def record(meta: bytes, said: int | None = None) -> bytes:
    """A record with right checksums; ``said`` is what it says of the length of its meta."""
    body = _CRC.pack(len(meta) if said is None else said) + meta
    start = _RECORD.pack(pack(META, b"")[:4], len(body), crc32(body))
    return start + _CRC.pack(crc32(start)) + body


def checkpoint(top: Path, *records: bytes) -> Path:
    path = top / "runinfo" / "000" / "checkpoint" / "tasks.log"
    path.parent.mkdir(parents=True)
    path.write_bytes(file_header() + b"".join(records) + pack(META, b"value"))
    return path


def test_the_records_made_here_are_records() -> None:
    assert unpack_head(record(b"x")) is not None


@pytest.mark.parametrize("seed", range(30))
def test_a_meta_that_is_none_is_damage_and_the_next_record_is_read(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    meta = chance.randbytes(chance.choice([0, 1, 40, 66, 67, 68, 80, 300]))
    said = chance.choice([None, None, 0, len(meta) + 1, 2**32 - 1])
    info = verify(checkpoint(tmp_path, record(meta, said)))
    assert info.records >= 1
    assert len(list_checkpoints(tmp_path / "runinfo")) == 1


def test_a_meta_of_gigabytes_is_not_held_in_memory(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    start = _RECORD.pack(pack(META, b"")[:4], 3 << 30, 0)
    with path.open("ab") as file:
        file.write(start + _CRC.pack(crc32(start)) + _CRC.pack((3 << 30) - 4))
        file.truncate(file.tell() + (3 << 30))  # takes no room on the disk
    assert not verify(path).whole
    assert os.path.getsize(path) > 3 << 30
