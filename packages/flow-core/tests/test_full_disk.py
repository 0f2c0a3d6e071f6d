"""A command that failed on a full disk says so."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_core.errors import BashExitFailure
from flow_core.interfaces.call import NodeContext
from flow_core.remote import full_disk
from flow_core.remote.bash import BashStep
from flow_core.remote.full_disk import full_disks


@pytest.fixture
def full() -> Iterator[Path]:
    """A full file system."""
    place = Path(tempfile.mkdtemp(prefix="flow-full-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        place.rmdir()
        pytest.skip("needs root to mount a small file system")
    (place / "log").touch()
    with pytest.raises(OSError, match="No space"):
        (place / "filler").write_bytes(bytes(1 << 20))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    place.rmdir()


def failure(command: str, stdout: Path | None = None) -> str:
    streams = None if stdout is None else (str(stdout), "a")
    with pytest.raises(BashExitFailure) as failed:
        BashStep("app", stdout=streams).run(lambda: command, NodeContext(executor="here", main_thread=True))
    return str(failed.value)


def test_a_full_disk_below_a_workers_own_output_is_named(full: Path) -> None:
    kept = os.dup(1)
    log = os.open(full / "log", os.O_WRONLY)
    os.dup2(log, 1)
    try:
        text = failure("echo 1")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(log)
    assert f"No space left on device: {full / 'log'} (standard output of the worker)\n" in text
    assert text.index("No space") < text.index("command: echo 1")


def test_a_full_disk_below_a_file_of_the_command_is_named(full: Path, tmp_path: Path) -> None:
    assert f"No space left on device: {full / 'log'} (standard output of the command)" in failure(
        "echo 1", full / "log"
    )
    assert "No space" not in failure("exit 3", tmp_path / "log")


def test_a_full_working_directory_is_named(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(full)
    assert f"No space left on device: {full} (working directory)" in failure("false")


def test_an_exceeded_quota_is_named_and_other_failures_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        def write(descriptor: int, data: bytes) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(full_disk.os, "write", write)

    refuse(errno.EDQUOT)
    assert full_disks([("here", str(tmp_path)), ("again", str(tmp_path))]) == [
        f"Disk quota exceeded: {tmp_path} (here)"
    ]
    refuse(errno.EIO)
    assert full_disks([("here", str(tmp_path)), ("gone", "/not/there"), ("null", os.devnull), ("odd", 9999)]) == []
