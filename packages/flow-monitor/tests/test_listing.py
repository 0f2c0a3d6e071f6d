"""Lists of tasks: every order with every filter, from any place, is what sorting all tasks would give; by indexes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Connection

from flow_core.interfaces.events import Event, TaskChanged, TaskEnded, TaskSubmitted, TryEnded, TryLaunched, TryStarted
from flow_core.interfaces.outcome import Place
from flow_monitor.log.reader import Position
from flow_monitor.project.projection_core import Projection
from flow_monitor.project.rebuild import upgrade
from flow_monitor.project.store import Progress, RunStore
from flow_monitor.queries import graph, listing, provenance, resources, tasks
from flow_monitor.queries.database import Database, open_database
from flow_monitor.queries.records import Task
from flow_monitor.queries.tasks import TaskFilter, TaskOrder
from flow_monitor.schema.engine import writing_engine
from flow_monitor.schema.version import HEAD
from flow_monitor.testing.made import as_version, make_database
from flow_monitor.testing.synthetic import SyntheticRun

RUN = SyntheticRun(tasks=240, width=40, fail_rate=0.4, samples=0, ended=False, seed=3)
STATES = ("exec_done", "memo_done", "failed", "dep_fail", "running", "pending", "launched")
FILTERS = (
    TaskFilter(),
    TaskFilter(app="simulate"),
    TaskFilter(states=("failed",)),
    TaskFilter(states=("failed", "memo_done", "exec_done")),
    TaskFilter(app="simulate", states=("exec_done",)),
    TaskFilter(app="nobody"),
    TaskFilter(states=("no_such_state",)),
    TaskFilter(search="PART 1"),
    TaskFilter(search="converge", app="simulate", states=("failed",)),
    TaskFilter(search="12"),
    TaskFilter(search="100%"),
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Give a run whose last tasks are still running."""
    with open_database(str(make_database(tmp_path_factory.mktemp("run"), RUN))) as opened:
        yield opened


def key(task: Task, order: TaskOrder) -> tuple[object, ...]:
    """Return what a task is sorted by; what is not known comes first."""
    took = -1 if task.run_time_ns is None else task.run_time_ns
    return {
        TaskOrder.ID: (),
        TaskOrder.INVOKED: (),
        TaskOrder.APP: (task.app,),
        TaskOrder.STATUS: (task.status,),
        TaskOrder.RUN_TIME: (took,),
        TaskOrder.TRIES: (-1 if task.time_returned is None else task.tries, took),
    }[order] + (task.task_id,)


def fits(task: Task, which: TaskFilter) -> bool:
    """Tell whether a list with this filter has the task."""
    text_of = f"{task.label}\n{task.error}".lower()
    found = task.task_id == int(which.search) if which.search.isdecimal() else which.search.lower() in text_of
    return (not which.app or task.app == which.app) and (not which.states or task.status in which.states) and found


def check(connection: Connection, which: TaskFilter, run_id: str = RUN.run_id) -> None:
    """Compare parts of lists in all orders with what sorting in Python gives."""
    everything = tasks.page(connection, run_id, limit=1000).items
    assert len(everything) > 4
    wanted = [task for task in everything if fits(task, which)]
    for order, descending in product(TaskOrder, (False, True)):
        wanted.sort(key=lambda task, order=order: key(task, order), reverse=descending)  # type: ignore[misc] # bound
        for offset in (0, len(wanted) // 3, max(0, len(wanted) - 5), len(wanted) + 3):
            part = tasks.page(connection, run_id, which, order=order, descending=descending, offset=offset, limit=11)
            assert part.total == len(wanted)
            assert part.items == tuple(wanted[offset : offset + 11]), (which, order, descending, offset)


@pytest.mark.parametrize("which", FILTERS, ids=str)
def test_a_part_of_a_list_is_what_sorting_all_tasks_gives(database: Database, which: TaskFilter) -> None:
    with database.connect() as connection:
        check(connection, which)


def test_lists_of_too_many_groups_to_merge_are_the_same(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MOST_GROUPS", 1)
    with database.connect() as connection:
        for which in FILTERS:
            check(connection, which)


def test_lists_of_the_version_before_are_the_same(tmp_path: Path) -> None:
    path = make_database(tmp_path, RUN)
    as_version(path, HEAD - 1)
    with open_database(str(path)) as database, database.connect() as connection:
        for which in FILTERS:
            check(connection, which)
    upgrade(f"sqlite:///{path}")
    with open_database(str(path)) as database, database.connect() as connection:
        check(connection, TaskFilter())


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order", TaskOrder, ids=str)
def test_pages_are_read_from_indexes_in_their_order(database: Database, order: TaskOrder, descending: bool) -> None:
    statements: list[tuple[str, object]] = []
    with database.connect() as connection:
        event.listen(
            connection, "before_cursor_execute", lambda _c, _cur, sql, values, *_: statements.append((sql, values))
        )
        for which in FILTERS[:5]:
            for offset in (0, 30):
                listing.find(connection, RUN.run_id, which, order, descending=descending, offset=offset, limit=10)
        asked = [(sql, values) for sql, values in statements if "task_rows" in sql]
        assert len(asked) >= 10
        for sql, values in asked:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
            steps = [step for step in plan if "task_rows" in step]
            assert steps
            assert all(step.startswith("SEARCH") and "COVERING INDEX ix_task_" in step for step in steps), plan
            assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order", [TaskOrder.APP, TaskOrder.STATUS], ids=str)
def test_apps_and_states_before_a_part_of_a_list_are_passed_over_unread(
    database: Database, order: TaskOrder, descending: bool
) -> None:
    asked: list[tuple[str, ...]] = []
    with database.connect() as connection:
        everything = listing.find(
            connection, RUN.run_id, TaskFilter(), order, descending=descending, offset=0, limit=999
        )
        column = "task_func_name" if order is TaskOrder.APP else "task_status"
        query = text(f"SELECT {column} FROM task WHERE task_id = :task")
        offset = 100
        here = connection.execute(query, {"task": everything.task_ids[offset]}).scalar_one()
        event.listen(
            connection,
            "before_cursor_execute",
            lambda _c, _cur, sql, values, *_: asked.append((sql, *map(str, values))),
        )
        part = listing.find(connection, RUN.run_id, TaskFilter(), order, descending=descending, offset=offset, limit=1)
    assert part.task_ids == everything.task_ids[offset : offset + 1]
    lists = [values for sql, *values in asked if "task_rows" in sql and "LIMIT" in sql]
    names = {"split", "simulate", "analyse", "merge"} if order is TaskOrder.APP else {*STATES}
    assert [names & {*values} for values in lists] == [{here}]


def test_text_is_looked_for_among_the_tasks_that_have_any(database: Database) -> None:
    statements: list[tuple[str, object]] = []
    with database.connect() as connection:
        event.listen(
            connection, "before_cursor_execute", lambda _c, _cur, sql, values, *_: statements.append((sql, values))
        )
        for order in TaskOrder:
            listing.find(connection, RUN.run_id, TaskFilter(search="part"), order, descending=True, offset=0, limit=10)
        for sql, values in [one for one in statements if "task_rows" in one[0]]:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
            assert any("COVERING INDEX ix_task_text" in step for step in plan), plan


def project(path: Path, batches: list[list[Event]]) -> None:
    """Project batches, each by a projection that was begun anew."""
    upgrade(f"sqlite:///{path}")
    engine = writing_engine(f"sqlite:///{path}")
    for at, batch in enumerate(batches):
        store = RunStore(engine, "r", "none")
        before, fold = store.resume(), Projection("r", store.load_tally())
        fold.fold(batch)
        store.apply(fold.take(), before, Progress(Position(at + 1), at + 1), 1)
    engine.dispose()


TASK: list[Event] = [
    TaskSubmitted(10, 0, "work", "python", "", ("t",), ()),
    TryLaunched(20, 0, 0, 7, "t"),
    TryStarted(30, 0, 0, Place("t")),
    TryEnded(70, 0, 0, "OK", 30, 70, "t", Place("t"), None),
    TaskEnded(80, 0, "exec_done", tries=1),
]


@pytest.mark.parametrize("portion", [1, 2, 3, len(TASK)])
def test_the_run_time_is_known_whatever_batches_start_and_end_come_in(tmp_path: Path, portion: int) -> None:
    path = tmp_path / "m.db"
    project(path, [TASK[at : at + portion] for at in range(0, len(TASK), portion)])
    with open_database(str(path)) as database, database.connect() as connection:
        assert connection.execute(text("SELECT task_run_time FROM task")).scalar_one() == 40


RETRIED: list[Event] = [
    *TASK[:3],
    TryEnded(70, 0, 0, "APP_ERROR", 30, 70, "t", Place("t"), None),
    TaskChanged(71, 0, "fail_retryable"),
    TryLaunched(900, 0, 1, 8, "t"),
    TryEnded(1000, 0, 1, "OK", 990, 1000, "t", Place("t"), None),
    TaskEnded(1010, 0, "exec_done", tries=2),
]


@pytest.mark.parametrize("portion", [1, 2, 3, 4, 5, len(RETRIED)])
def test_the_run_time_of_a_retried_task_is_that_of_its_tries_without_the_waits(tmp_path: Path, portion: int) -> None:
    path = tmp_path / "m.db"
    project(path, [RETRIED[at : at + portion] for at in range(0, len(RETRIED), portion)])
    with open_database(str(path)) as database, database.connect() as connection:
        assert tasks.one(connection, "r", 0).task.run_time_ns == 50
        assert [task.run_time_ns for task in tasks.page(connection, "r").items] == [50]
        assert graph.tasks(connection, "r")[0].run_time_s == pytest.approx(50e-9)
        assert [task.seconds for task in provenance.tasks(connection, "r")] == [pytest.approx(50e-9)]
    as_version(path, 4)
    upgrade(f"sqlite:///{path}")
    with open_database(str(path)) as database, database.connect() as connection:
        assert tasks.one(connection, "r", 0).task.run_time_ns == 50


def test_use_over_time_is_the_same_however_often_the_projection_was_begun_anew(tmp_path: Path) -> None:
    events = list(SyntheticRun(run_id="r", tasks=30, samples=40, fail_rate=0.5, ended=False).events())
    project(tmp_path / "once.db", [events])
    project(tmp_path / "often.db", [events[at : at + 41] for at in range(0, len(events), 41)])
    found = []
    for name in ("once.db", "often.db"):
        with open_database(str(tmp_path / name)) as database, database.connect() as connection:
            found.append(resources.usage(connection, "r", resources.Grouping.NODE, bins=30))
    once, often = found
    assert [(one.time_ns, one.group) for one in often] == [(one.time_ns, one.group) for one in once]
    for field in ("cpu_cores", "memory", "processes"):
        assert [getattr(one, field) for one in often] == pytest.approx([getattr(one, field) for one in once], abs=1e-6)


def test_tasks_of_which_only_the_id_is_known_are_listed_too(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    apps = [TaskSubmitted(at, at, "work" if at % 2 else "rest", "python", "", ("t",), ()) for at in range(1, 9)]
    ended: list[Event] = [TaskEnded(20 + at, at, "exec_done") for at in (2, 9)]
    engine_rows = "INSERT INTO task_rows (run_key, task_id) SELECT run_key, {} FROM workflow"
    project(path, [[*apps, *ended]])
    engine = writing_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for task_id in (11, 12):
            connection.execute(text(engine_rows.format(task_id)))
    engine.dispose()
    with open_database(str(path)) as database, database.connect() as connection:
        for order in TaskOrder:
            found = listing.find(connection, "r", TaskFilter(), order, descending=True, offset=0, limit=99)
            assert sorted(found.task_ids) == [*range(1, 10), 11, 12]
            rest = listing.find(connection, "r", TaskFilter(), order, descending=True, offset=8, limit=99)
            assert rest.task_ids == found.task_ids[8:]
