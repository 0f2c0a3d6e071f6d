"""Monitoring into a real PostgreSQL server."""

from __future__ import annotations

import glob
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from flow_core.interfaces.events import TaskJoined
from flow_core.interfaces.sinks import RunInfo
from flow_monitor import MonitoringHub, open_database, rebuild
from flow_monitor.errors import DatabaseBusy, DatabaseError
from flow_monitor.queries import blocks, graph, resources, tasks, timeline, workflows
from flow_monitor.testing.synthetic import SyntheticRun

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
SCRIPT = Path(__file__).parents[1] / "services" / "postgres.sh"
RUN = SyntheticRun(tasks=200, run_id="pg", samples=8, fail_rate=0.3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not glob.glob("/usr/lib/postgresql/*/bin/postgres"):
        if os.environ.get("FLOW_REQUIRE_SERVICES") == "1":
            pytest.fail(f"PostgreSQL is not installed: run {SCRIPT} install")
        pytest.skip(f"PostgreSQL is not installed: run {SCRIPT} install")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = tmp_path_factory.mktemp("postgres")
    for parent in (directory, *directory.parents[:3]):  # its own user must reach the data
        if parent.owner() != "root" or parent.name.startswith("pytest"):
            parent.chmod(0o755)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([str(SCRIPT), "start", str(directory), str(port)], stdout=log, stderr=log)
    uri = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    try:
        _wait_until_up(uri, process, directory / "log")
        yield uri
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _wait_until_up(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    engine = create_engine(uri.replace("postgresql:", "postgresql+psycopg:"))
    end = time.monotonic() + 60
    while True:
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
            break
        except OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
    engine.dispose()


@pytest.fixture(scope="module")
def run_dir(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of a run that was monitored into the server."""
    directory = tmp_path_factory.mktemp("runinfo") / "000"
    directory.mkdir()
    hub = MonitoringHub(logging_endpoint=server)
    hub.start(RunInfo("pg", 1, directory, "x", 1))
    events = list(RUN.events())
    events.insert(-1, TaskJoined(events[-1].time_ns, 13, (14, 15)))
    hub.emit(events)
    assert hub.close(60) == 0
    return directory


def test_a_run_is_all_there(server: str, run_dir: Path) -> None:
    with open_database(server) as database, database.connect() as connection:
        run = workflows.one(connection, "pg")
        assert (run.submitted, run.unfinished) == (200, 0)
        assert sum(workflows.counts_by_state(connection, "pg").values()) == 200
        assert tasks.page(connection, "pg", limit=50).total == 200
        assert tasks.one(connection, "pg", 4).tries


def test_every_query_works(server: str, run_dir: Path) -> None:
    with open_database(server) as database, database.connect() as connection:
        assert workflows.page(connection, search="SYNTH").total == 1
        assert len(graph.tasks(connection, "pg")) == 200
        assert graph.apps(connection, "pg").edges
        assert graph.waits(connection, "pg") == {13: (14, 15)}
        assert [number for _, _, number in graph.apps(connection, "pg").joins] == [2]
        assert graph.stages(connection, "pg")
        assert timeline.spans(connection, "pg").spans
        assert max(timeline.running_per_app(connection, "pg")[1]["simulate"]) > 0
        for by in resources.Grouping:
            assert resources.usage(connection, "pg", by)
        assert resources.node_load(connection, "pg")
        assert len(blocks.blocks(connection, "pg")) == len(blocks.nodes(connection, "pg")) == 2
        for order in tasks.TaskOrder:
            assert tasks.page(connection, "pg", order=order, descending=True).items
        up, down = (
            tasks.page(connection, "pg", order=tasks.TaskOrder.RUN_TIME, descending=way, limit=500).items
            for way in (False, True)
        )
        assert down == up[::-1]
        assert [task.run_time_ns is None for task in up] == sorted([task.run_time_ns is None for task in up])[::-1]
        assert tasks.page(connection, "pg", tasks.TaskFilter(search="CONVERGE")).total > 0
        for run_order in workflows.WorkflowOrder:
            assert workflows.page(connection, order=run_order).items


def test_a_rebuild_gives_the_same(server: str, run_dir: Path) -> None:
    with open_database(server) as database:
        with database.connect() as connection:
            before = workflows.apps(connection, "pg")
        rebuild(run_dir, server)
        with database.connect() as connection:
            assert workflows.apps(connection, "pg") == before


def test_a_reader_cannot_write(server: str, run_dir: Path) -> None:
    with open_database(server) as database, pytest.raises(DatabaseError), database.connect() as connection:
        connection.execute(text("DELETE FROM status_rows"))


def test_a_server_that_is_not_there_is_said_to_be_busy() -> None:
    with (
        open_database("postgresql://me:hush@127.0.0.1:9/none") as database,
        pytest.raises(DatabaseBusy, match="does not answer") as caught,
        database.connect(),
    ):
        pass
    assert "hush" not in str(caught.value)
