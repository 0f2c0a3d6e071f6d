"""Another user reads a database that is closed, in a directory that is not theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flow_monitor.testing.made import make_database
from flow_monitor.testing.synthetic import SyntheticRun

NOBODY = 65534
READ = f"""
import os, sys
from flow_monitor.queries import tasks, workflows
from flow_monitor.queries.database import open_database
import sqlalchemy.dialects.sqlite.pysqlite, sqlite3
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
with open_database(sys.argv[1]) as database, database.connect() as connection:
    run = workflows.page(connection).items[0]
    print(run.submitted, tasks.page(connection, run.run_id).total)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_reads_a_closed_database_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    path = make_database(tmp_path, SyntheticRun(run_id="theirs", tasks=30))
    path.chmod(0o644)
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["30", "30"]
    assert sorted(tmp_path.iterdir()) == before
