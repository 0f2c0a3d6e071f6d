"""A page left open follows all runs: its process holds its locks on the database, whoever comes and goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flow_monitor import open_database
from flow_monitor.queries import workflows
from flow_monitor.queries.database import Database
from flow_monitor.testing.made import write_log
from flow_monitor.testing.synthetic import SyntheticRun

pytestmark = pytest.mark.slow

PROJECT = """
import sys
from pathlib import Path
from flow_monitor import rebuild
for run_dir in sys.argv[2:]:
    rebuild(Path(run_dir), f"sqlite:///{sys.argv[1]}")
"""


def write_runs(path: Path, *run_ids: str) -> subprocess.Popen[bytes]:
    """Begin to bring runs into a database, one after the other, in a process that then ends."""
    dirs = []
    for run_id in run_ids:
        dirs.append(path.parent / run_id)
        write_log(dirs[-1], run_id, SyntheticRun(run_id=run_id, tasks=20).events())
    return subprocess.Popen([sys.executable, "-c", PROJECT, str(path), *map(str, dirs)])


def seen(database: Database) -> set[str]:
    """Return the runs that a request sees, as the pages ask: twice, by two connections."""
    with database.connect() as one, database.connect() as other:
        runs = {run.run_id for run in workflows.page(one).items if not run.unfinished and run.submitted}
        assert {run.run_id for run in workflows.page(other).items} >= runs
    return runs


def locked_by_us(path: Path) -> bool:
    """Tell whether this process holds a lock on a file."""
    inode = path.stat().st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return any(f" {os.getpid()} " in line and f":{inode} " in line for line in lines)


def deleted_files_of_us() -> list[str]:
    """Return the deleted files that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return [target for target in found if "monitoring.db" in target and target.endswith("(deleted)")]


def test_pages_that_stay_open_see_every_run_of_writers_that_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "monitoring.db"
    expected: set[str] = set()
    assert write_runs(path, "first").wait(50) == 0
    with open_database(str(path)) as database:
        for turn in range(2):
            writers = [write_runs(path, f"{turn}-a", f"{turn}-b"), write_runs(path, f"{turn}-c")]
            while any(writer.poll() is None for writer in writers):
                assert seen(database) >= expected
                assert locked_by_us(path)
            assert [writer.returncode for writer in writers] == [0, 0]
            expected |= {"first", f"{turn}-a", f"{turn}-b", f"{turn}-c"}
            assert seen(database) == expected
            assert locked_by_us(path)
            assert deleted_files_of_us() == []


def test_a_database_that_was_deleted_and_made_again_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "monitoring.db"
    assert write_runs(path, "old").wait(50) == 0
    with open_database(str(path)) as database:
        assert seen(database) == {"old"}
        for name in os.listdir(tmp_path):
            if name.startswith("monitoring.db"):
                (tmp_path / name).unlink()
        assert write_runs(path, "new").wait(50) == 0
        assert seen(database) == {"new"}
        assert deleted_files_of_us() == []
