"""Zip archives that another user has made: their numbers are lies, and nothing but what is named comes out of them."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from security_attacker import Attacker

from flow_core.errors import StagingError
from flow_core.files import Directory, File
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging import SizeLimits, ZipFileStaging

pytestmark = pytest.mark.timeout(60)
MIB = 1 << 20


def archive_of(**members: bytes) -> bytearray:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return bytearray(made.getvalue())


def put(data: bytearray, signature: bytes, offset: int, value: bytes) -> bytearray:
    at = data.rindex(signature) + offset
    data[at : at + len(value)] = value
    return data


DIRECTORY, END = b"PK\x01\x02", b"PK\x05\x06"


def small_on_paper() -> bytearray:
    """Say that 64 MiB of zeros are 5 bytes."""
    return put(archive_of(m=bytes(64 * MIB)), DIRECTORY, 24, struct.pack("<I", 5))


def outside() -> bytearray:
    """Say that the member begins far behind the end of the archive."""
    return put(archive_of(m=b"x"), DIRECTORY, 42, struct.pack("<I", 0x7FFFFFFF))


def many_entries() -> bytearray:
    """Say that there are 65,535 members, and that the directory of them has 2 GB."""
    return put(put(archive_of(m=b"x"), END, 8, b"\xff\xfe\xff\xfe"), END, 12, struct.pack("<I", 0x7FFFFFFF))


def overlapping() -> bytearray:
    """Many names for one stretch of packed bytes, as bombs without nesting have."""
    whole = archive_of(m=os.urandom(100) * 1000)
    at = whole.index(DIRECTORY)
    entry, end = bytes(whole[at : whole.index(END)]), whole[whole.index(END) :]
    entries = bytearray(entry)
    for number in range(20_000):
        more = bytearray(entry[:46] + f"d/n{number}".encode())
        struct.pack_into("<H", more, 28, len(more) - 46)
        entries += more
    struct.pack_into("<HHI", end, 8, 20_001, 20_001, len(entries))
    return whole[:at] + entries + end


HOSTILE: dict[str, tuple[Callable[[], bytearray], str]] = {
    "small on paper": (small_on_paper, "cannot be read|max_ratio|where 5"),
    "outside": (outside, "cannot be read"),
    "many entries": (many_entries, "no zip archive|cannot be read|not a zip"),
    "an unknown method": (lambda: put(archive_of(m=b"x"), DIRECTORY, 10, b"\x63\0"), "cannot be read"),
    "another name inside": (lambda: put(archive_of(m=b"x"), b"PK\x03\x04", 30, b"y"), "cannot be read"),
    "a wrong checksum": (lambda: put(archive_of(m=b"x"), DIRECTORY, 16, b"\1\2\3\4"), "cannot be read"),
    "a link": (lambda: put(archive_of(m=b"/etc/passwd"), DIRECTORY, 38, struct.pack("<I", 0o120777 << 16)), "symbolic"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_archive_that_lies_fails_the_file_and_leaves_nothing(what: str, attacker: Attacker, tmp_path: Path) -> None:
    make, told = HOSTILE[what]
    path = theirs(attacker, tmp_path, make())
    before = path.read_bytes()
    method = ZipFileStaging(timeout_s=40)
    try:
        (tmp_path / "work").mkdir()
        transfer = Transfer(File(f"zip:{path}/m"), tmp_path / "work" / "m", Direction.IN, 7, "here")
        with pytest.raises(StagingError, match=told):
            method.stage([transfer]).result(50)
    finally:
        method.close()
    assert os.listdir(tmp_path / "work") == []
    assert path.read_bytes() == before


def refused(method: ZipFileStaging, path: Path, work: Path, told: str) -> None:
    """Take a directory out of an archive, which fails and leaves no file."""
    try:
        transfer = Transfer(Directory(f"zip:{path}/d"), work, Direction.IN, 7, "here")
        with pytest.raises(StagingError, match=told):
            method.stage([transfer]).result(50)
    finally:
        method.close()
    assert not [found for found in work.parent.rglob("*") if found.is_file() and found != path]


def theirs(attacker: Attacker, tmp_path: Path, data: bytes | bytearray) -> Path:
    path = tmp_path / "theirs.zip"
    path.write_bytes(data)
    os.chown(path, attacker.uid, attacker.gid)
    return path


def test_names_without_end_for_the_same_bytes_are_refused_by_their_number(attacker: Attacker, tmp_path: Path) -> None:
    path = theirs(attacker, tmp_path, overlapping())
    before = psutil.Process().memory_info().rss
    method = ZipFileStaging(timeout_s=40, limits=SizeLimits(max_files=5000))
    refused(method, path, tmp_path / "work", r"20,000 files or more, beyond the limit of 5,000.*max_files")
    assert psutil.Process().memory_info().rss - before < 200 * MIB


def test_names_without_end_for_the_same_bytes_are_refused_by_what_they_unpack_to(
    attacker: Attacker, tmp_path: Path
) -> None:
    path = theirs(attacker, tmp_path, overlapping())
    refused(ZipFileStaging(timeout_s=40), path, tmp_path / "work", r"stand for 2,000,000,000 or more.*max_ratio")


def test_members_that_are_small_each_are_refused_if_all_of_them_fill_the_disk(
    attacker: Attacker, tmp_path: Path
) -> None:
    path = theirs(attacker, tmp_path, overlapping())
    free = psutil.disk_usage(str(tmp_path)).free
    method = ZipFileStaging(timeout_s=40, limits=SizeLimits(max_ratio=None, keep_free_bytes=free - 500 * MIB))
    refused(method, path, tmp_path / "work", r"2,000,000,000 bytes are to come.*keep_free_bytes")
