"""Several users in one PostgreSQL: what one who may only add rows can do to the runs and pages of another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection

from flow_core.interfaces.sinks import RunInfo
from flow_monitor import MonitoringHub, open_database
from flow_monitor.errors import MonitorError
from flow_monitor.export.prometheus import render
from flow_monitor.export.wfformat import wfformat
from flow_monitor.queries import tasks, workflows
from flow_monitor.queries.records import RunState
from flow_monitor.testing.synthetic import SyntheticRun
from flow_viz.app import create_app

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
HOSTILE = [
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "\x1b[2J",
    "../../etc/passwd",
    "x" * 100_000,
    "[" * 5000,
    "{}",
    "null",
]
API = ["", "/pulse", "/apps", "/tasks", "/tasks/7", "/graph", "/timeline", "/resources", "/blocks", "/nodes", "/gaps"]
FIGURES = ["/graph.json", "/timeline.json", "/running.json", "/task/7/resources.json", "/task/7/flow.json"]
PAGES = ["", "/tasks", "/timeline", "/graph", "/resources", "/blocks", "/task/0", "/task/7", "/task/199"]


@pytest.fixture
def mallory(server: str) -> Iterator[Connection]:
    """Another user of the database, who may look at tables and add rows to them."""
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as owner:
        owner.execute(text("CREATE ROLE mallory LOGIN"))
        owner.execute(text("GRANT USAGE ON SCHEMA public TO mallory"))
        owner.execute(text("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO mallory"))
        owner.execute(text("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO mallory"))
        theirs = create_engine(
            server.replace("postgresql://postgres@", "postgresql+psycopg://mallory@"), isolation_level="AUTOCOMMIT"
        )
        with theirs.connect() as connection:
            yield connection
        theirs.dispose()
        owner.execute(text("DROP OWNED BY mallory"))
        owner.execute(text("DROP ROLE mallory"))
    engine.dispose()


def add(connection: Connection, table: str, **values: object) -> None:
    names = ", ".join(f'"{name}"' for name in values)
    connection.execute(
        text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in values)})"), values
    )


def monitored(server: str, directory: Path, run_id: str) -> tuple[MonitoringHub, list[object]]:
    directory.mkdir(parents=True)
    hub = MonitoringHub(logging_endpoint=server)
    hub.start(RunInfo(run_id, 1, directory, "x", 1))
    return hub, list(SyntheticRun(tasks=200, run_id=run_id, samples=8).events())


@pytest.fixture
def tables(server: str, tmp_path: Path) -> None:
    """The tables are there before the rights to them are given."""
    hub, events = monitored(server, tmp_path / "before" / "000", f"before-{tmp_path.name}")
    hub.emit(events)
    assert hub.close(60) == 0


def test_rows_that_another_user_adds_to_a_run_do_not_hold_it_up(
    server: str, tables: None, mallory: Connection, tmp_path: Path
) -> None:
    hub, events = monitored(server, tmp_path / "000", "victim")
    try:
        hub.emit(events[:100])
        while (key := mallory.execute(text("SELECT run_key FROM workflow WHERE run_id = 'victim'")).scalar()) is None:
            pass
        there = {
            row[0] for row in mallory.execute(text("SELECT task_id FROM task_rows WHERE run_key = :k"), {"k": key})
        }
        for number, words in zip(sorted(set(range(150, 260)) - there), HOSTILE * 20, strict=False):
            add(
                mallory, "task_rows", run_key=key, task_id=number, task_func_name=words, task_status="exec_done",
                task_label=words, task_depends=words, task_stdout=words, task_error=words, task_parent=number,
                task_tries=2147483647, task_run_time=-(2**63), task_time_invoked=2**63 - 1,
            )  # fmt: skip
        add(
            mallory,
            "workflow",
            run_key=key + 1,
            run_id="<b>theirs</b>",
            rundir=str(tmp_path / "000"),
            time_began=2**63 - 1,
        )
    finally:
        hub.emit(events[100:])
        assert hub.close(60) == 0
    with open_database(server) as database, database.connect() as connection:
        run = workflows.one(connection, "victim")
        assert run.state in (RunState.COMPLETED, RunState.FAILED)
        found = {one.task_id: one for one in tasks.page(connection, "victim", limit=500).items}
        assert {found[number].app for number in range(200)}.isdisjoint(HOSTILE)
    hub, events = monitored(server, tmp_path / "next" / "000", "next")  # the number of its row is taken
    hub.emit(events)
    assert hub.close(60) == 0


def test_rows_of_another_user_break_no_page_and_no_export(
    server: str, tables: None, mallory: Connection, tmp_path: Path
) -> None:
    for at, words in enumerate(HOSTILE):
        key = 10_000 + at
        add(
            mallory, "workflow", run_key=key, run_id=f"bad{at}", workflow_name=words, host=words, user=words,
            rundir=words, script=words, executors=words, time_completed=5,
            time_began=(-(2**63), 0, 2**63 - 1)[at % 3],
            time_last_event=2**63 - 1, tasks_completed_count=-(2**63), tasks_submitted_count=2**63 - 1, ended_how=words,
        )  # fmt: skip
        for number in (0, 7, 199, 2**63 - 1):
            add(
                mallory, "task_rows", run_key=key, task_id=number, task_func_name=words, task_kind=words,
                task_label=words, task_status=words, task_depends=words, task_inputs=words, task_outputs=words,
                task_stdout=words, task_stderr=words, task_parent=number, task_depth=-(2**31),
                task_fail_cost=float("nan"), task_time_invoked=2**63 - 1, task_time_returned=-(2**63),
                task_run_time=2**63 - 1,
                task_error=words,
            )  # fmt: skip
    with open_database(server) as database, create_app(database).test_client() as client:
        listed = client.get("/")
        assert listed.status_code == 200
        assert "<script>alert(1)" not in listed.text
        runs = [f"bad{at}" for at in range(len(HOSTILE))]
        places = [f"/workflow/{run}{page}" for run in runs for page in (*PAGES, *FIGURES)]
        places += [f"/api/workflows/{run}{what}" for run in runs for what in API]
        answers = [(place, client.get(place, follow_redirects=True)) for place in (*places, "/api/workflows")]
        wrong = [(place, one.status_code) for place, one in answers if one.status_code >= 500]
        wrong += [(place, "live") for place, one in answers if one.mimetype == "text/html" and HOSTILE[0] in one.text]
        assert not wrong
        assert client.get(f"/workflow/before-{tmp_path.name}/tasks").status_code == 200
    with open_database(server) as database, database.connect() as connection:
        assert 'flow_run_state{run="bad' in render(connection)
        for at in range(len(HOSTILE)):
            try:
                wfformat(connection, f"bad{at}")
            except MonitorError:
                continue


def test_values_of_another_user_do_not_fill_the_memory_of_who_opens_a_page(
    server: str, tables: None, mallory: Connection, tmp_path: Path
) -> None:
    many = "repeat('x', 10000000)"
    run = "workflow_name, host, rundir, script, executors"
    rows = f"SELECT 20000, n, 'app', 'failed', {', '.join([many] * 4)} FROM generate_series(1, 3) n"
    task = "task_label, task_depends, task_error, task_traceback"
    for statement in (
        f"INSERT INTO workflow (run_key, run_id, time_began, {run}) VALUES (20000, 'vast', 1, {', '.join([many] * 5)})",
        f"INSERT INTO task_rows (run_key, task_id, task_func_name, task_status, {task}) {rows}",
        "INSERT INTO app_status (run_id, task_func_name, task_status, tasks) VALUES ('vast', 'app', 'failed', 3)",
        "INSERT INTO workflow (run_key, run_id, workflow_name) VALUES (20001, 'long', repeat('é', 32768))",
    ):
        mallory.execute(text(statement))
    with open_database(server) as database, create_app(database).test_client() as client:
        for place in ("/", "/workflow/vast/", "/workflow/vast/tasks", "/workflow/vast/task/1", "/api/workflows/vast"):
            answer = client.get(place, follow_redirects=True)
            assert answer.status_code == 200
            assert len(answer.data) < 1 << 20
        with database.connect() as connection:
            found = workflows.one(connection, "vast")
            assert found.name.endswith("[cut: 10000000 bytes]")
            listed = tasks.page(connection, "vast").items
            one = tasks.one(connection, "vast", 1)
            assert len(listed) == 3
            words = (found.script, found.host, listed[0].label, one.traceback)
            assert max(map(len, words)) < 5000
            assert listed[0].depends == ()
            assert workflows.one(connection, "long").name == "é" * 32768  # 64 KiB: not one byte too long
