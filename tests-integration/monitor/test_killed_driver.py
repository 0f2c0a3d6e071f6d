"""The script of a run is killed in the midst of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flow_core.interfaces.events import TaskEnded
from flow_core.report_files import ReportFile, names_in
from flow_monitor import open_database
from flow_monitor.errors import MonitorError
from flow_monitor.log.reader import LogReader
from flow_monitor.project.rebuild import rebuild
from flow_monitor.queries import tasks, workflows
from flow_monitor.queries.database import Database
from flow_monitor.queries.records import RunState
from flow_viz import create_app

SCRIPT = """
import sys, threading
from flow_core import Config, load, python_app
from flow_monitor import MonitoringHub

@python_app
def quick(x):
    return x

load(Config(run_dir=sys.argv[1], monitoring=MonitoringHub(workflow_name="victim")))
for number in range(1_000_000):
    quick(number).result()
    if number == 200:
        print("up", flush=True)
"""
PATIENCE_S = 45.0


SELDOM = """
import sys, time
from flow_core import Config, load, python_app
from flow_monitor import MonitoringHub

@python_app
def quick(x):
    return x

load(Config(run_dir=sys.argv[1], monitoring=MonitoringHub()))
for number in range(1000):
    quick(number).result()
    print(number, flush=True)
    sys.stdin.readline()
"""
RUSH = """
import sys, time
from flow_core import Config, load, python_app
from flow_monitor import MonitoringHub

@python_app
def quick(x):
    return x

load(Config(run_dir=sys.argv[1], monitoring=MonitoringHub()))
began, turn = time.monotonic(), 0
while True:
    for future in [quick(turn) for _ in range(500)]:
        future.result()
    turn += 1
    print(time.monotonic() - began, flush=True)
    time.sleep(max(0.0, began + turn * 0.05 - time.monotonic()))  # 10,000 tasks a second
"""
POOL = """
import concurrent.futures, multiprocessing, sys
from flow_core import Config, load, python_app
from flow_core.executors.futures import FuturesExecutor
from flow_core.testing.sampling import wait_for_file
from flow_monitor import MonitoringHub

if __name__ == "__main__":
    runs, go, method = sys.argv[1:]
    context = multiprocessing.get_context(method)
    pool = FuturesExecutor("pool", lambda: concurrent.futures.ProcessPoolExecutor(2, mp_context=context))
    load(Config(executors=[pool], run_dir=runs, monitoring=MonitoringHub(resource_monitoring_interval=0.2)))
    wait = python_app(wait_for_file)
    for future in [wait(go) for _ in range(2)]:
        future.result()
"""
MEMORY_S = 0.1
"""How long events may wait in the memory of the script."""


def test_a_task_that_ended_a_moment_before_the_script_was_killed_is_in_the_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SELDOM, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdin is not None
        assert driver.stdout.readline() == b"0\n"
        time.sleep(3)  # the script rests, and what writes its events as well
        driver.stdin.write(b"\n")
        driver.stdin.flush()
        assert driver.stdout.readline() == b"1\n"
        time.sleep(2 * MEMORY_S)
        driver.kill()
        driver.wait(20)
    with LogReader(tmp_path / "000" / "monitoring" / "events.log") as reader:
        ended = [event.task_id for event in reader.read(final=True).events if isinstance(event, TaskEnded)]
    assert ended == [0, 1]


def test_of_a_rush_that_goes_on_the_log_lacks_a_moment_when_the_script_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", RUSH, str(tmp_path)], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        while float(driver.stdout.readline()) < 4:
            pass
        killed_ns = time.time_ns()
        driver.kill()
        driver.wait(20)
    newest = 0
    with LogReader(tmp_path / "000" / "monitoring" / "events.log") as reader:
        while events := reader.read(final=True).events:
            newest = max(newest, events[-1].time_ns)
    assert killed_ns - newest < 5 * MEMORY_S * 1e9


def test_what_was_logged_is_shown_and_the_run_is_called_killed(tmp_path: Path) -> None:
    runs = tmp_path / "runinfo"
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(runs)], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"up\n"
        log = runs / "000" / "monitoring" / "events.log"
        end = time.monotonic() + PATIENCE_S
        while log.stat().st_size < 50_000 and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait(20)
    with LogReader(log) as reader:
        submitted = 0
        while rows := (portion := reader.read(final=True)).events:
            submitted += sum(type(event).__name__ == "TaskSubmitted" for event in rows)
        assert portion.damaged == 0
    assert submitted > 0
    with open_database(str(runs / "monitoring.db")) as database:
        while _state(database) is not RunState.DIED:
            assert time.monotonic() < end, "the run is not called killed"
            time.sleep(0.05)
        with database.connect() as connection:
            run = workflows.page(connection).items[0]
            assert run.submitted == tasks.page(connection, run.run_id).total == submitted
        assert "This run was killed" in create_app(database).test_client().get(f"/workflow/{run.run_id}/").text


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_workers_of_a_pool_reported_is_read_after_the_script_was_killed(tmp_path: Path, method: str) -> None:
    """The workers outlive the script: what they say of the rest of their tasks is there after a rebuild."""
    runs, go = tmp_path / "runinfo", tmp_path / "go"
    script, reports = tmp_path / "script.py", runs / "000" / "pool" / "reports"
    script.write_text(POOL)
    end = time.monotonic() + PATIENCE_S
    workers: list[psutil.Process] = []
    with subprocess.Popen([sys.executable, str(script), str(runs), str(go), method]) as driver:
        try:
            while len(list(reports.glob("*.reports"))) < 2 or not (runs / "monitoring.db").exists():
                assert time.monotonic() < end, "nothing was reported"
                time.sleep(0.05)
            workers = psutil.Process(driver.pid).children(recursive=True)
            while min(map(len, _samples(runs))) < 5:
                assert time.monotonic() < end, "the script does not follow its workers"
                time.sleep(0.05)
        finally:
            driver.kill()
            driver.wait(20)
    try:
        with open_database(str(runs / "monitoring.db")) as database:
            while _state(database) is not RunState.DIED:
                assert time.monotonic() < end, "the run is not called killed"
                time.sleep(0.05)
        followed = _samples(runs)
        assert [len(times) >= 5 for times in followed] == [True, True]
        while any(len(told) <= len(known) for told, known in zip(_reported(reports), followed, strict=True)):
            assert time.monotonic() < end, "the workers do not go on after the script"
            time.sleep(0.05)
        go.touch()  # samples of the ends of tasks are written as well
        time.sleep(1)
        for _ in range(2):
            rebuild(runs / "000", f"sqlite:///{runs / 'monitoring.db'}")
            found = _samples(runs)
            for task, times in enumerate(found):
                assert sorted(set(times)) == times, "in order, and none twice"
                assert set(times) > set(followed[task])
                assert times == sorted(_reported(reports)[task])
    finally:
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()


def _samples(runs: Path) -> list[list[int]]:
    """Return the times of the samples of two tasks; none while the run is not in the database."""
    with (
        suppress(MonitorError, IndexError),
        open_database(str(runs / "monitoring.db")) as database,
        database.connect() as connection,
    ):
        run_id = workflows.page(connection).items[0].run_id
        return [[one.time_ns for one in tasks.samples(connection, run_id, task)] for task in (0, 1)]
    return [[], []]


def _reported(reports: Path) -> list[list[int]]:
    """Return the times in the files of workers, by task: keys count up."""
    by_key: dict[int, list[int]] = {}
    for name in names_in(reports):
        found, damaged = ReportFile(reports / name).read()
        assert damaged == 0
        for sample in () if found is None else found.samples:
            if sample.key is not None:
                by_key.setdefault(sample.key, []).append(sample.time_ns)
    return [by_key[key] for key in sorted(by_key)]


def _state(database: Database) -> RunState | None:
    try:
        with database.connect() as connection:
            return workflows.page(connection).items[0].state
    except (MonitorError, IndexError):
        return None
