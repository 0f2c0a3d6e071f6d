"""Monitoring into a real PostgreSQL server."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from flow_core.interfaces.events import TaskJoined
from flow_core.interfaces.sinks import RunInfo
from flow_monitor import MonitoringHub, open_database, rebuild
from flow_monitor.errors import DatabaseBusy, DatabaseError
from flow_monitor.queries import blocks, graph, listing, resources, tasks, timeline, workflows
from flow_monitor.queries.records import Task
from flow_monitor.queries.tasks import TaskFilter, TaskOrder
from flow_monitor.testing.synthetic import SyntheticRun

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
RUN = SyntheticRun(tasks=200, run_id="pg", samples=8, fail_rate=0.3)


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


def test_every_query_works(server: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
            kept = resources.usage(connection, "pg", by)
            with monkeypatch.context() as patch:
                patch.setattr(resources, "_kept", lambda *_: None)
                made = resources.usage(connection, "pg", by)
            areas = [sum(one.cpu_cores * one.width_ns for one in use) for use in (kept, made)]
            assert areas[0] == pytest.approx(areas[1], rel=1e-6)
            assert areas[0] > 0
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


FILTERS = (
    TaskFilter(),
    TaskFilter(app="simulate"),
    TaskFilter(states=("failed", "exec_done")),
    TaskFilter(search="PART"),
    TaskFilter(app="simulate", search="converge"),
    TaskFilter(app="nobody"),
)


def key(task: Task, order: TaskOrder) -> tuple[object, ...]:
    """Return what a task is sorted by; what is not known comes first."""
    took = -1 if task.run_time_ns is None else task.run_time_ns
    keys: dict[TaskOrder, tuple[object, ...]] = {
        TaskOrder.APP: (task.app,),
        TaskOrder.STATUS: (task.status,),
        TaskOrder.RUN_TIME: (took,),
        TaskOrder.TRIES: (task.tries, took),
    }
    return (*keys.get(order, ()), task.task_id)


@pytest.mark.parametrize("which", FILTERS, ids=str)
def test_a_part_of_a_list_is_what_sorting_all_tasks_gives(server: str, run_dir: Path, which: TaskFilter) -> None:
    with open_database(server) as database, database.connect() as connection:
        found = list(tasks.page(connection, "pg", which, limit=1000).items)
        assert bool(found) == (which.app != "nobody")
        for order, descending in product(TaskOrder, (False, True)):
            found.sort(key=lambda task, order=order: key(task, order), reverse=descending)  # type: ignore[misc] # bound
            for offset in (0, len(found) // 3, max(0, len(found) - 5), len(found) + 3):
                part = tasks.page(connection, "pg", which, order=order, descending=descending, offset=offset, limit=11)
                assert part.total == len(found)
                assert part.items == tuple(found[offset : offset + 11]), (order, descending, offset)


def test_lists_are_read_in_the_order_of_indexes(server: str, run_dir: Path) -> None:
    statements: list[tuple[str, Any]] = []
    with open_database(server) as database, database.connect() as connection:
        connection.execute(text("SET enable_sort = off"))  # of so few tasks sorting would be quicker
        connection.execute(text("SET enable_seqscan = off"))
        connection.execute(text("SET enable_bitmapscan = off"))
        event.listen(
            connection, "before_cursor_execute", lambda _c, _cur, sql, values, *_: statements.append((sql, values))
        )
        for which, order, descending in product(FILTERS[:3], TaskOrder, (False, True)):
            listing.find(connection, "pg", which, order, descending=descending, offset=70, limit=10)
        lists = [(sql, values) for sql, values in statements if "FROM public.task_rows" in sql and "LIMIT" in sql]
        assert len(lists) >= 36
        for sql, values in lists:
            plan = [row[0].strip() for row in connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {sql}", values)]
            steps = {step.removeprefix("->").strip() for step in plan}
            assert not steps & {"Sort", "Incremental Sort"}, plan


def test_a_rebuild_gives_the_same(server: str, run_dir: Path) -> None:
    with open_database(server) as database:
        with database.connect() as connection:
            before = workflows.apps(connection, "pg")
        rebuild(run_dir, server)
        with database.connect() as connection:
            assert workflows.apps(connection, "pg") == before


def test_a_reader_cannot_write(server: str, run_dir: Path) -> None:
    with open_database(server) as database, pytest.raises(DatabaseError), database.connect() as connection:
        connection.execute(text("DELETE FROM public.status_rows"))


def test_a_server_that_is_not_there_is_said_to_be_busy() -> None:
    with (
        open_database("postgresql://me:hush@127.0.0.1:9/none") as database,
        pytest.raises(DatabaseBusy, match="does not answer") as caught,
        database.connect(),
    ):
        pass
    assert "hush" not in str(caught.value)
