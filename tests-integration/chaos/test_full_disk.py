"""The disk of the run is full for two seconds, whatever runs the tasks; with blocks, processes die meanwhile, too."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rows import rows
from trial import Start

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(where)], check=False)
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


ROWS = [
    *[("htex", kills) for kills in ("worker", "manager", "interchange", None)],
    *[("llex", kills) for kills in ("worker", "manager", None)],
    ("threads", None),
    ("pool", None),
]


@pytest.mark.parametrize(("kind", "kills"), rows(ROWS, chaos=[("htex", "manager"), ("pool", None)]))
def test_a_disk_that_is_full_for_a_while_costs_no_task(
    start: Start, small_disk: Path, kind: str, kills: str | None
) -> None:
    run = start(kind, small_disk)
    with (small_disk / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    for pid in run.pids(kills) if kills else ():
        os.kill(pid, signal.SIGKILL)
    time.sleep(2)
    (small_disk / "filling").unlink()
    run.check()
