"""The hub with its real projection process: killed, locked out, left alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flow_core.interfaces.events import Event
from flow_core.interfaces.sinks import RunInfo
from flow_monitor import MonitoringHub, open_database, rebuild
from flow_monitor.errors import NotOurDatabase
from flow_monitor.project import supervisor
from flow_monitor.queries import tasks, workflows
from flow_monitor.queries.records import RunState, Workflow
from flow_monitor.testing.synthetic import SyntheticRun

RUN = SyntheticRun(tasks=300, run_id="it", samples=5, seed=2)
EVENTS = list(RUN.events())
PATIENCE_S = 40.0


def run_info(tmp_path: Path, run_id: str = "it") -> RunInfo:
    run_dir = tmp_path / "runinfo" / "000"
    run_dir.mkdir(parents=True, exist_ok=True)
    return RunInfo(run_id, 1, run_dir, "x", 1)


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def emit(hub: MonitoringHub, events: list[Event]) -> None:
    for start in range(0, len(events), 50):
        hub.emit(events[start : start + 50])


def found(path: Path, run_id: str = "it") -> Workflow:
    with open_database(str(path)) as database, database.connect() as connection:
        return workflows.one(connection, run_id)


def projector_of(run: RunInfo) -> int | None:
    """Return the pid of the projection of a run, known by the file it logs to: others may have the same run id."""
    log = str((run.run_dir / "monitoring" / "projector.log").resolve())
    for process in psutil.process_iter(["cmdline"]):
        if "flow_monitor.project" in (process.info["cmdline"] or []):
            with suppress(OSError, psutil.NoSuchProcess):
                if os.readlink(f"/proc/{process.pid}/fd/2") == log and process.status() != psutil.STATUS_ZOMBIE:
                    return int(process.pid)
    return None


def test_all_events_are_in_the_database_when_the_hub_is_closed(tmp_path: Path) -> None:
    hub = MonitoringHub(workflow_name="mine")
    hub.start(run_info(tmp_path))
    emit(hub, EVENTS)
    assert hub.close(PATIENCE_S) == 0
    assert hub.close(PATIENCE_S) == 0
    run = found(tmp_path / "runinfo" / "monitoring.db")
    assert (run.name, run.submitted, run.unfinished) == ("mine", 300, 0)
    assert projector_of(run_info(tmp_path)) is None


def test_processes_forked_from_the_script_do_not_keep_the_projection_from_ending(tmp_path: Path) -> None:
    hub = MonitoringHub()
    hub.start(run_info(tmp_path))
    goes_on = multiprocessing.get_context("fork").Event()
    child = multiprocessing.get_context("fork").Process(target=goes_on.wait, args=(2 * PATIENCE_S,), daemon=True)
    child.start()  # it holds the script's end of the pipe to the projection as well
    try:
        emit(hub, EVENTS[:50])
        supervisor = hub._supervisor
        assert supervisor is not None
        hub.close(PATIENCE_S)
        assert supervisor.pid is None, "it has ended, though the pipe to it is still held"
        assert child.is_alive()
    finally:
        goes_on.set()
        child.join(PATIENCE_S)


def test_the_database_follows_while_the_run_goes_on(tmp_path: Path) -> None:
    hub = MonitoringHub()
    hub.start(run_info(tmp_path))
    path = tmp_path / "runinfo" / "monitoring.db"
    try:
        emit(hub, EVENTS[:100])
        wait_for(lambda: path.exists() and bool(_submitted(path)))
        assert projector_of(run_info(tmp_path)) is not None
    finally:
        hub.close(PATIENCE_S)


def _submitted(path: Path) -> int:
    try:
        return found(path).submitted
    except Exception:
        return 0


@pytest.mark.parametrize("at", [0, 1, 5, 20])
def test_killing_the_projection_loses_nothing(tmp_path: Path, at: int) -> None:
    hub = MonitoringHub()
    hub.start(run_info(tmp_path))
    killed: set[int] = set()
    batches = [EVENTS[start : start + 50] for start in range(0, len(EVENTS), 50)]
    for number, batch in enumerate(batches):
        hub.emit(batch)
        if number in (at, at + 8):
            killed.add(_kill_another(hub, killed))
    assert hub.close(PATIENCE_S) == 0
    assert len(killed) == 2
    run = found(tmp_path / "runinfo" / "monitoring.db")
    assert (run.submitted, run.unfinished) == (300, 0)


def _kill_another(hub: MonitoringHub, killed: set[int]) -> int:
    """Kill the projection, a new one each time; return its pid."""
    supervisor = hub._supervisor
    assert supervisor is not None
    wait_for(lambda: supervisor.pid is not None and supervisor.pid not in killed)
    pid = supervisor.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_locked_database_only_delays(tmp_path: Path) -> None:
    hub = MonitoringHub()
    hub.start(run_info(tmp_path))
    path = tmp_path / "runinfo" / "monitoring.db"
    emit(hub, EVENTS[:100])
    wait_for(lambda: path.exists() and _submitted(path) > 0)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    emit(hub, EVENTS[100:])
    assert hub.close(0.2) == 0
    pid = projector_of(run_info(tmp_path))
    assert pid is not None
    lock.execute("ROLLBACK")
    lock.close()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert found(path).unfinished == 0


def test_the_end_of_a_run_does_not_wait_for_a_lock_that_another_process_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub = MonitoringHub()
    hub.start(run_info(tmp_path))
    path = tmp_path / "runinfo" / "monitoring.db"
    emit(hub, EVENTS[:100])
    wait_for(lambda: path.exists() and _submitted(path) > 0)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        emit(hub, EVENTS[100:])
        assert hub.close(PATIENCE_S) == 0
        assert "database is locked. The run does not wait for it" in caplog.text
        pid = projector_of(run_info(tmp_path))
        assert pid is not None
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def stopped_projection(run: RunInfo, hub: MonitoringHub) -> int:
    """Start the hub, and stop its projection once it works."""
    hub.start(run)
    emit(hub, EVENTS[:100])
    path = run.run_dir.parent / "monitoring.db"
    wait_for(lambda: path.exists() and _submitted(path) > 0)
    assert hub._supervisor is not None
    pid = hub._supervisor.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    emit(hub, EVENTS[100:])
    return pid


def test_a_projection_that_is_stopped_goes_on_at_the_end_of_the_run(tmp_path: Path) -> None:
    run, hub = run_info(tmp_path), MonitoringHub()
    stopped_projection(run, hub)
    assert hub.close(PATIENCE_S) == 0
    assert found(tmp_path / "runinfo" / "monitoring.db").unfinished == 0


def test_a_projection_that_stays_stopped_holds_the_end_of_a_run_up_for_seconds_and_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_STOPPED_S", 0.3)
    monkeypatch.setattr(supervisor.Supervisor, "_go_on", lambda _self, _pid: None)
    run, hub = run_info(tmp_path), MonitoringHub()
    pid = stopped_projection(run, hub)
    began = time.monotonic()
    try:
        assert hub.close(PATIENCE_S) == 0
        assert time.monotonic() - began < PATIENCE_S / 2
        (line,) = [message for message in caplog.messages if "cannot be written now" in message]
        for named in (f"its projection (pid {pid}) is stopped", f"flow monitor rebuild {run.run_dir}", "events.log"):
            assert named in line
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: projector_of(run) is None)
    assert found(tmp_path / "runinfo" / "monitoring.db").unfinished == 0


def junk(path: Path) -> None:
    path.write_bytes(b"\x07junk" * 1000)


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE workflow (somebody_elses)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (junk, "file is not a database"),
        (foreign, "is not Flow's"),
        (Path.mkdir, "it is no plain file: name another one in logging_endpoint"),
    ],
)
def test_a_database_that_cannot_be_used_neither_refuses_nor_delays_a_run_and_is_named_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    run, hub, path = run_info(tmp_path), MonitoringHub(), tmp_path / "runinfo" / "monitoring.db"
    make(path)
    hub.start(run)
    emit(hub, EVENTS)
    began = time.monotonic()
    assert hub.close(PATIENCE_S) == 0
    assert time.monotonic() - began < PATIENCE_S / 2
    (line,) = [message for message in caplog.messages if "monitoring" in message and "behind" not in message]
    for named in (cause, str(path), f"flow monitor rebuild {run.run_dir}", "events.log"):
        assert named in line
    with suppress(TypeError):  # one that could be mended goes on trying
        os.kill(projector_of(run), signal.SIGKILL)  # type: ignore[arg-type] # None is what is suppressed
    path.rmdir() if path.is_dir() else path.unlink()
    rebuild(run.run_dir, f"sqlite:///{path}")
    assert found(path).unfinished == 0


def test_rebuilding_into_what_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    hub = MonitoringHub(logging_endpoint=f"sqlite:///{tmp_path / 'good.db'}")
    hub.start(run_info(tmp_path))
    hub.close(PATIENCE_S)
    junk(tmp_path / "junk.db")
    with pytest.raises(NotOurDatabase, match=r"junk\.db cannot be written: file is not a database"):
        rebuild(tmp_path / "runinfo" / "000", f"sqlite:///{tmp_path / 'junk.db'}")


def test_two_runs_share_a_database_at_once(tmp_path: Path) -> None:
    endpoint = f"sqlite:///{tmp_path / 'shared.db'}"
    hubs = []
    for number in range(2):
        hub = MonitoringHub(logging_endpoint=endpoint)
        hub.start(run_info(tmp_path / str(number), f"run{number}"))
        hubs.append(hub)
    for start in range(0, len(EVENTS), 50):
        for hub in hubs:
            hub.emit(EVENTS[start : start + 50])
    for hub in hubs:
        assert hub.close(PATIENCE_S) == 0
    assert [found(tmp_path / "shared.db", f"run{n}").submitted for n in range(2)] == [300, 300]


DRIVER = """
import sys, time
from pathlib import Path
from flow_core.interfaces.sinks import RunInfo
from flow_monitor import MonitoringHub
from flow_monitor.testing.synthetic import SyntheticRun
if __name__ == "__main__":
    hub = MonitoringHub()
    hub.start(RunInfo("killed", 1, Path(sys.argv[1]), "x", 1))
    hub.emit(list(SyntheticRun(tasks=100, run_id="killed", ended=False).events()))
    print("up", flush=True)
    sys.stdin.read()
"""


def test_a_killed_driver_leaves_a_whole_database_and_no_process(tmp_path: Path) -> None:
    run = run_info(tmp_path, "killed")
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(run.run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"up\n"
        driver.kill()
        driver.wait(20)
    wait_for(lambda: projector_of(run) is None)
    path = tmp_path / "runinfo" / "monitoring.db"
    assert found(path, "killed").submitted == 100
    assert found(path, "killed").state is RunState.DIED
    with open_database(str(path)) as database, database.connect() as connection:
        assert tasks.page(connection, "killed").total == 100


def niceness(pid: int) -> set[int]:
    """Return the priorities of a process's threads."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {int(stat.rpartition(")")[2].split()[16]) for stat in stats}


def test_the_projection_yields_to_all_others_while_the_run_goes_on(tmp_path: Path) -> None:
    hub = MonitoringHub()
    hub.start(run_info(tmp_path, "nice"))
    assert hub._supervisor is not None
    pid = hub._supervisor.pid
    assert pid is not None
    wait_for(lambda: 19 in niceness(pid))
    assert min(niceness(pid)) < 19, "what is left at the end must not wait for others"
    assert hub.close(PATIENCE_S) == 0


def test_no_secret_is_on_the_projections_command_line(tmp_path: Path) -> None:
    hub = MonitoringHub(
        logging_endpoint="postgresql://me:hushhush@127.0.0.1:9/none", drain_patience_s=0.1, monitoring_debug=True
    )
    hub.start(run_info(tmp_path, "secret"))
    assert hub._supervisor is not None
    pid = hub._supervisor.pid
    assert pid is not None
    process = psutil.Process(pid)
    line = " ".join(process.cmdline())
    assert "--role projector --run-id secret" in line
    assert "hushhush" not in line
    assert "hushhush" not in str(process.environ())
    assert hub.close(PATIENCE_S) == 0
    assert "hushhush" not in (tmp_path / "runinfo" / "000" / "monitoring" / "projector.log").read_text()
