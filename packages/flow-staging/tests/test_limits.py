"""How large files may be."""

from __future__ import annotations

import os
import zipfile
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from flow_core.errors import ConfigurationError, StagingError
from flow_core.files import File
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging import SizeLimits, ZipFileStaging
from flow_staging.transfer.failures import ChecksumMismatch
from flow_staging.transfer.limits import Bound, NoRoom, TooLarge

MIB = 1 << 20


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60))
def test_a_file_may_be_as_long_as_the_limit_and_no_longer(limit, size):
    limits = SizeLimits(max_bytes=limit)
    if size <= limit:
        limits.check_size(size, "it has")
        return
    with pytest.raises(TooLarge, match=rf"{size:,} bytes.*{limit:,}.*SizeLimits\(max_bytes"):
        limits.check_size(size, "it has")


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_only_what_is_long_and_packed_beyond_the_ratio_is_refused(packed, unpacked):
    SizeLimits(max_ratio=None).check_ratio(packed, unpacked)
    if unpacked <= 100 * MIB or unpacked <= 250 * packed:
        SizeLimits().check_ratio(packed, unpacked)
        return
    with pytest.raises(TooLarge, match=r"SizeLimits\(max_ratio"):
        SizeLimits().check_ratio(packed, unpacked)


@pytest.fixture
def disk(monkeypatch):
    state = SimpleNamespace(f_frsize=MIB, f_blocks=10_000, f_bavail=2_000)
    monkeypatch.setattr(os, "statvfs", lambda _path: state)
    return state


def test_what_is_to_be_left_free_is_a_share_of_small_disks(disk):
    assert SizeLimits().free_bytes(disk) == 500 * MIB
    disk.f_blocks = 1_000_000
    assert SizeLimits().free_bytes(disk) == 1024 * MIB
    assert SizeLimits(keep_free_bytes=5).free_bytes(disk) == 5


def test_an_announced_file_must_leave_the_disk_some_room(disk, tmp_path):
    bound = Bound(SizeLimits(), tmp_path / "a")
    bound.announced(1_400 * MIB, 0)
    bound.announced(None, 0)
    bound.announced(5_000 * MIB, 4_000 * MIB)  # the most of it is here
    with pytest.raises(NoRoom, match=r"keep_free_bytes"):
        bound.announced(1_600 * MIB, 0)
    disk.f_bavail = 400
    bound.announced(63 * MIB, 0)  # small files go where anything goes


def test_a_file_without_end_stops_before_the_disk_is_full(disk, tmp_path):
    bound = Bound(SizeLimits(), tmp_path / "a")
    bound.announced(None, 0)
    size = 0

    def come() -> None:
        nonlocal size
        while True:
            size += MIB
            disk.f_bavail -= 1
            bound.reached(size, None)

    with pytest.raises(NoRoom):
        come()
    assert 400 <= disk.f_bavail < 500


def test_more_than_was_announced_is_noticed_at_once(tmp_path):
    bound = Bound(SizeLimits(), tmp_path / "a")
    bound.reached(10, 10)
    with pytest.raises(ChecksumMismatch, match="11 bytes and more where 10"):
        bound.reached(11, 10)


@pytest.mark.parametrize("options", [{"max_bytes": -1}, {"keep_free_bytes": -1}, {"max_ratio": 0.5}])
def test_limits_that_make_no_sense_are_refused_by_name(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SizeLimits(**options)


def _taken(tmp_path, limits: SizeLimits) -> None:
    method = ZipFileStaging(timeout_s=40, limits=limits)
    try:
        url = f"zip:{tmp_path}/a.zip/m"
        method.stage([Transfer(File(url), tmp_path / "out" / "m", Direction.IN, 7, "here")]).result(50)
    finally:
        method.close()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_is_refused_by_its_ratio_and_a_large_member_by_its_size(tmp_path, method):
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive,
        archive.open("m", "w") as member,
    ):
        for _ in range(120):
            member.write(bytes(MIB))
    with pytest.raises(StagingError, match=r"zip:.*/m.*125,829,120.*max_ratio"):
        _taken(tmp_path, SizeLimits())
    with pytest.raises(StagingError, match=r"125,829,120.*1,000,000.*max_bytes"):
        _taken(tmp_path, SizeLimits(max_ratio=None, max_bytes=1_000_000))
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []
    _taken(tmp_path, SizeLimits(max_ratio=None))
    assert (tmp_path / "out" / "m").stat().st_size == 120 * MIB
