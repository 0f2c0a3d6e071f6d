"""A disk that is full for a while costs monitoring no event, and says so in the log of the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flow_monitor import open_database
from flow_monitor.queries import workflows

pytestmark = pytest.mark.slow

SCRIPT = """
import os, resource, sys, time
import flow
from flow import Config, ThreadPoolExecutor, python_app
from flow_monitor import MonitoringHub

@python_app
def work(x):
    return x

run_dir = sys.argv[1] + "/000"

def room(size):
    '''No file of this process grows beyond a size from now on: writing fails as on a full disk.'''
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

with flow.load(Config(executors=[ThreadPoolExecutor(max_threads=2)], run_dir=sys.argv[1], monitoring=MonitoringHub())):
    work(0).result()
    room(os.stat(run_dir + "/monitoring/events.log").st_size + 1000)
    assert sum(f.result() for f in [work(i) for i in range(1, 201)]) == 20_100
    until = time.monotonic() + 30
    while "cannot be written" not in open(run_dir + "/flow.log").read() and time.monotonic() < until:
        time.sleep(0.02)
    room(resource.RLIM_INFINITY)
    assert sum(f.result() for f in [work(i) for i in range(201, 401)]) == 60_100
"""


def test_all_tasks_of_a_run_are_in_the_database_though_its_disk_was_full_for_a_while(tmp_path: Path) -> None:
    runs = tmp_path / "runinfo"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(runs)], cwd=tmp_path, capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stderr
    with open_database(str(runs / "monitoring.db")) as database, database.connect() as connection:
        (run,) = workflows.page(connection).items
        assert (run.submitted, run.completed, run.events_lost) == (401, 401, 0)
        assert workflows.gaps(connection, run.run_id) == ()
    log = (runs / "000" / "flow.log").read_text()
    assert log.count("monitoring: events cannot be written to") == 1
    assert log.count("events are written to") == 1
