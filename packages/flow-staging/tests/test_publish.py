"""Files in the making."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flow_staging.transfer.failures import PermanentTransferError
from flow_staging.transfer.publish import Partial, duplicate


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_a_file_has_its_name_only_when_published(tmp_path):
    with Partial(tmp_path / "a") as part:
        part.write(b"hello")
        assert not (tmp_path / "a").exists()
        part.publish()
    assert (tmp_path / "a").read_bytes() == b"hello"
    assert names(tmp_path) == ["a"]


def test_what_is_not_published_leaves_nothing(tmp_path):
    def interrupted() -> None:
        with Partial(tmp_path / "a") as part:
            part.write(b"hello")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_a_published_file_has_the_rights_the_umask_gives(tmp_path):
    old = os.umask(0o027)
    try:
        with Partial(tmp_path / "a") as part:
            part.publish()
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with Partial(tmp_path / "a") as part:
        part.write(b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
        part.publish()
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "target")
    with Partial(tmp_path / "a") as part:
        part.write(b"new")
        part.publish()
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_two_who_make_the_same_file_do_not_meet(tmp_path):
    with Partial(tmp_path / "a") as one, Partial(tmp_path / "a") as two:
        one.write(b"1")
        two.write(b"22")
        one.publish()
        assert (tmp_path / "a").read_bytes() == b"1"
        two.publish()
    assert (tmp_path / "a").read_bytes() == b"22"
    assert names(tmp_path) == ["a"]


def test_many_threads_making_the_same_file_never_mix(tmp_path):
    whole = {bytes([65 + n]) * 50_000 for n in range(8)}
    failed = []

    def make(content: bytes) -> None:
        for _ in range(10):
            with Partial(tmp_path / "a") as part:
                part.write(content[:25_000])
                part.write(content[25_000:])
                part.publish()
            if (tmp_path / "a").read_bytes() not in whole:
                failed.append(content)

    threads = [threading.Thread(target=make, args=(content,)) for content in whole]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert names(tmp_path) == ["a"]


def test_what_a_killed_process_left_is_taken_over(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from flow_staging.transfer.publish import Partial
with Partial(Path({str(tmp_path / "a")!r})) as part:
    part.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], timeout=30)
    assert len(names(tmp_path)) == 1
    with Partial(tmp_path / "a") as part:
        part.write(b"whole")
        part.publish()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_name_of_full_length_is_no_problem(tmp_path):
    with Partial(tmp_path / ("x" * 255)) as part:
        part.publish()
    assert names(tmp_path) == ["x" * 255]


def test_a_directory_in_the_way_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(PermanentTransferError, match="a: it is a directory"), Partial(tmp_path / "a"):
        pass


def test_a_file_where_a_directory_should_be_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(PermanentTransferError, match="cannot write"), Partial(tmp_path / "a" / "b"):
        pass


@pytest.mark.parametrize("quick", [True, False])
def test_a_copy_is_a_file_of_its_own(tmp_path, monkeypatch, quick):
    def refuse(*_args: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if not quick:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "source").write_bytes(b"1" * 3_000_000)
    (tmp_path / "final").write_bytes(b"old")
    with (tmp_path / "source").open("rb") as source, Partial(tmp_path / "final") as part:
        duplicate(source, part)
        part.publish()
    assert (tmp_path / "final").read_bytes() == b"1" * 3_000_000
    assert (tmp_path / "final").stat().st_ino != (tmp_path / "source").stat().st_ino
    assert names(tmp_path) == ["final", "source"]


def test_a_copy_onto_a_full_disk_says_so(tmp_path, monkeypatch):
    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    (tmp_path / "source").write_bytes(b"1")
    with (
        (tmp_path / "source").open("rb") as source,
        pytest.raises(PermanentTransferError, match="the disk is full"),
        Partial(tmp_path / "final") as part,
    ):
        duplicate(source, part)
    assert names(tmp_path) == ["source"]
