"""The read side: typed records of what is in the database."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import text

from flow_core.interfaces.events import FileMoving, FileStaged, RunStarted, TaskEnded, TaskJoined, TaskSubmitted
from flow_monitor.errors import DatabaseError, DatabaseMissing, NoSuchRecord, NotOurDatabase, SchemaMismatch
from flow_monitor.log.reader import Position
from flow_monitor.project.projection_core import Projection
from flow_monitor.project.rebuild import rebuild, upgrade
from flow_monitor.project.store import Progress, RunStore
from flow_monitor.queries import (
    blocks,
    database as database_module,
    graph,
    provenance,
    resources,
    tasks,
    timeline,
    workflows,
)
from flow_monitor.queries.database import Database, open_database
from flow_monitor.queries.records import RunState
from flow_monitor.queries.tasks import TaskFilter, TaskOrder
from flow_monitor.queries.workflows import WorkflowOrder
from flow_monitor.schema import version
from flow_monitor.schema.engine import writing_engine
from flow_monitor.testing.made import as_version, make_database, write_log
from flow_monitor.testing.synthetic import SyntheticRun

Projected = Callable[[SyntheticRun], Database]

RUN = SyntheticRun(tasks=60, fail_rate=0.5, seed=7)


@pytest.fixture
def projected(tmp_path: Path) -> Iterator[Projected]:
    """Give a function that projects a run into the test's database and returns it, opened for reading."""
    with open_database(str(tmp_path / "monitoring.db")) as database:

        def project(run: SyntheticRun) -> Database:
            make_database(tmp_path, run)
            return database

        yield project


def test_a_file_that_can_only_be_taken_for_unchanging_is_opened_again_when_it_has_changed(
    projected: Projected, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_, asked = database_module._open, []

    def refuses_side_files(uri: str) -> sqlite3.Connection:
        asked.append(uri)
        if "immutable" not in uri:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return open_(uri)

    monkeypatch.setattr(database_module, "_open", refuses_side_files)
    database = projected(SyntheticRun(run_id="a", tasks=10))
    for more in ("b", "c"):
        for _ in range(2):
            with database.connect() as connection:
                before = workflows.page(connection).total
        projected(SyntheticRun(run_id=more, tasks=10))
        with database.connect() as connection:
            assert workflows.page(connection).total == before + 1
    assert len(asked) == 6


def test_a_run_has_its_counts_and_times(projected: Projected) -> None:
    with projected(RUN).connect() as connection:
        run = workflows.one(connection, RUN.run_id)
    assert run.submitted == 60
    assert run.completed + run.failed + run.cancelled == 60
    assert run.unfinished == 0
    assert run.state is RunState.FAILED
    assert run.time_began == RUN.began_ns
    assert (run.duration_ns or 0) > 0


def test_runs_are_searched_sorted_and_paged(projected: Projected) -> None:
    projected(SyntheticRun(run_id="a", tasks=10, name="alpha.py", began_ns=10**18, seed=1))
    projected(SyntheticRun(run_id="b", tasks=20, name="beta_100%.py", began_ns=2 * 10**18, seed=2))
    database = projected(SyntheticRun(run_id="c", tasks=15, name="Gamma.py", began_ns=3 * 10**18, seed=3))
    with database.connect() as connection:
        assert [run.run_id for run in workflows.page(connection).items] == ["c", "b", "a"]
        most = workflows.page(connection, order=WorkflowOrder.TASKS)
        assert [run.run_id for run in most.items] == ["b", "c", "a"]
        names = workflows.page(connection, order=WorkflowOrder.NAME, descending=False, limit=2, offset=1)
        assert ([run.run_id for run in names.items], names.total) == (["b", "c"], 3)
        assert [run.run_id for run in workflows.page(connection, search="00%").items] == ["b"]
        assert workflows.page(connection, search="_").total == 1


def test_tasks_are_filtered_sorted_and_paged(projected: Projected) -> None:
    with projected(RUN).connect() as connection:
        first = tasks.page(connection, RUN.run_id, limit=25)
        assert ([task.task_id for task in first.items], first.total) == (list(range(25)), 60)
        failed = tasks.page(connection, RUN.run_id, TaskFilter(states=("failed",)))
        assert failed.total == len(failed.items) > 0
        assert all("did not converge" in task.error for task in failed.items)
        merges = tasks.page(connection, RUN.run_id, TaskFilter(app="merge", search="no such text"))
        assert merges.total == 0
        one = tasks.page(connection, RUN.run_id, TaskFilter(search="12"))
        assert [task.task_id for task in one.items] == [12]
        slow = tasks.page(connection, RUN.run_id, order=TaskOrder.RUN_TIME, descending=True, limit=10).items
        times = [task.run_time_ns or 0 for task in slow]
        assert times == sorted(times, reverse=True)


def test_one_task_has_tries_states_files_and_neighbours(projected: Projected) -> None:
    with projected(RUN).connect() as connection:
        failed = tasks.page(connection, RUN.run_id, TaskFilter(states=("failed",))).items[0]
        detail = tasks.one(connection, RUN.run_id, failed.task_id)
        assert [one.verdict for one in detail.tries] == ["APP_ERROR", "APP_ERROR"]
        assert detail.traceback.startswith("Traceback")
        names = [change.status for change in detail.history]
        assert names[0] == "pending"
        assert names[-1] == "failed"
        assert "fail_retryable" in names
        root = tasks.one(connection, RUN.run_id, 0)
        assert root.dependents == tuple(range(1, 13))
        staged = tasks.one(connection, RUN.run_id, 4)
        assert [(one.url, one.size) for one in staged.outputs] == [("https://store.example/out_4.csv", 12_345)]
        assert len(staged.inputs) == 1
        assert tasks.samples(connection, RUN.run_id, 0)


def test_what_is_not_there_is_named(projected: Projected) -> None:
    with projected(RUN).connect() as connection:
        with pytest.raises(NoSuchRecord, match="'nope'"):
            workflows.one(connection, "nope")
        for task_id in (-1, 99, 1 << 70):
            with pytest.raises(NoSuchRecord, match="no task"):
                tasks.one(connection, RUN.run_id, task_id)


def test_the_graph_of_apps_counts_every_edge(projected: Projected) -> None:
    with projected(RUN).connect() as connection:
        nodes = graph.tasks(connection, RUN.run_id)
        apps = graph.apps(connection, RUN.run_id)
        assert sum(n for _, _, n in apps.edges) == sum(len(task.depends) for task in nodes)
        assert sum(app.count for app in apps.nodes) == len(nodes) == 60
        assert sum(sum(stage.tasks.values()) for stage in graph.stages(connection, RUN.run_id)) == 60
        assert graph.states(connection, RUN.run_id) == {task.task_id: task.status for task in nodes}


def test_the_timeline_shows_each_try_in_its_lane_or_says_it_is_a_selection(projected: Projected) -> None:
    with projected(RUN).connect() as connection:
        everything = timeline.spans(connection, RUN.run_id)
        assert everything.complete
        starts = [span.start for span in everything.spans]
        assert starts == sorted(starts)
        some = timeline.spans(connection, RUN.run_id, limit=20)
        assert not some.complete
        assert 10 < len(some.spans) <= 20
        assert len({20 * (span.start - starts[0]) // (starts[-1] - starts[0]) for span in some.spans}) > 10
        since, until = starts[20], starts[30]
        window = timeline.spans(connection, RUN.run_id, since=since, until=until)
        running = [span for span in everything.spans if span.start <= until and (span.end or until) >= since]
        assert list(window.spans) == running


def test_running_tasks_add_up_to_the_time_that_tries_ran(projected: Projected) -> None:
    with projected(RUN).connect() as connection:
        times, counts = timeline.running_per_app(connection, RUN.run_id)
        ran = {app.name: app.run_time_sum_s for app in workflows.apps(connection, RUN.run_id)}
        end = workflows.one(connection, RUN.run_id).time_last_event
    assert end is not None
    assert len(times) == len(counts["simulate"])
    lengths = [later - time for time, later in pairwise([*times, end])]
    for app, row in counts.items():
        area = sum(mean * length for mean, length in zip(row, lengths, strict=True)) / 1e9
        assert area == pytest.approx(ran[app], rel=1e-6)


def test_sums_made_from_the_tries_show_what_kept_ones_show(projected: Projected, tmp_path: Path) -> None:
    database = projected(RUN)
    with database.connect() as connection:
        kept = timeline.running_per_app(connection, RUN.run_id, bins=20)
        nodes = blocks.nodes(connection, RUN.run_id)
    as_version(Path(database.name), 1)
    upgrade(f"sqlite:///{database.name}")
    with database.connect() as connection:
        times, counts = timeline.running_per_app(connection, RUN.run_id, bins=20)
        assert blocks.nodes(connection, RUN.run_id) == nodes
        assert workflows.page(connection).total == 1
    assert counts.keys() == kept[1].keys()
    assert len(times) > 5


def test_a_database_of_the_version_before_is_read_and_older_ones_are_told_to_be_upgraded(projected: Projected) -> None:
    database = projected(RUN)
    with database.connect() as connection:
        nodes = graph.tasks(connection, RUN.run_id)
        usage = {by: resources.usage(connection, RUN.run_id, by, bins=40) for by in resources.Grouping}
    as_version(Path(database.name), version.HEAD - 1)
    with database.connect() as connection:
        assert {by: resources.usage(connection, RUN.run_id, by, bins=40) for by in resources.Grouping} == usage
        assert tasks.one(connection, RUN.run_id, 3).moving == ()
    with contextlib.closing(sqlite3.connect(database.name)) as written, written:
        written.execute("DELETE FROM usage_sums")  # as of runs of versions before 5
    with database.connect() as connection:
        assert [task.task_id for task in graph.tasks(connection, RUN.run_id)] == [task.task_id for task in nodes]
        for by, kept in usage.items():
            made = resources.usage(connection, RUN.run_id, by, bins=40)
            assert {one.group for one in made} == {one.group for one in kept}
            for group in {one.group for one in kept}:
                areas = [sum(one.cpu_cores * one.width_ns for one in use if one.group == group) for use in (made, kept)]
                assert areas[0] == pytest.approx(areas[1], rel=1e-6)
            tries = sum(one.processes * one.width_ns for one in made)
            assert 0.5 * tries < sum(one.cpu_cores * one.width_ns for one in made) < tries
        assert workflows.gaps(connection, RUN.run_id) == ()
        assert graph.apps(connection, RUN.run_id).joins == ()
        assert tasks.one(connection, RUN.run_id, 3).waits_for == ()
        assert len(list(provenance.tasks(connection, RUN.run_id))) == len(nodes)
    as_version(Path(database.name), version.HEAD - 2)
    with pytest.raises(SchemaMismatch, match="flow monitor upgrade"), database.connect():
        pass


JOINS = [
    TaskSubmitted(1, 0, "read", "python", "", ("t",), ()),
    TaskSubmitted(2, 1, "spread", "join", "", ("t",), ()),
    TaskSubmitted(3, 2, "work", "python", "", ("t",), (), parent=1),
    TaskSubmitted(4, 3, "work", "python", "", ("t",), (2,), parent=1),
    TaskJoined(5, 1, (3, 0)),
    TaskSubmitted(6, 4, "report", "python", "", ("t",), (1,)),
]


@pytest.mark.parametrize("portion", [1, 2, len(JOINS)])
def test_join_tasks_are_shown_with_what_they_made_and_what_they_wait_for(tmp_path: Path, portion: int) -> None:
    path = tmp_path / "m.db"
    upgrade(f"sqlite:///{path}")
    engine = writing_engine(f"sqlite:///{path}")
    for at in range(0, len(JOINS), portion):  # each portion by a projection that was begun anew
        store = RunStore(engine, "r", "none")
        before, fold = store.resume(), Projection("r", store.load_tally())
        fold.fold(JOINS[at : at + portion])
        store.apply(fold.take(), before, Progress(Position(at + portion), at + portion), 1)
    engine.dispose()
    with open_database(str(path)) as database, database.connect() as connection:
        nodes = {task.task_id: task for task in graph.tasks(connection, "r")}
        assert {task_id: task.parent for task_id, task in nodes.items()} == {0: None, 1: None, 2: 1, 3: 1, 4: None}
        assert [task.waits_for for task in nodes.values()] == [(), (3, 0), (), (), ()]
        assert [task.depth for task in nodes.values()] == [0, 0, 1, 2, 1]
        assert graph.apps(connection, "r").joins == (("spread", "read", 1), ("spread", "work", 2))
        assert tasks.one(connection, "r", 1).waits_for == (3, 0)
        assert connection.execute(text("SELECT run_id, waits_for FROM joined")).all() == [("r", "3,0")]


def test_use_is_the_same_however_it_is_grouped(projected: Projected) -> None:
    with projected(RUN).connect() as connection:
        sums = []
        for by in resources.Grouping:
            usage = resources.usage(connection, RUN.run_id, by)
            sums.append(round(sum(one.cpu_cores for one in usage), 6))
        assert sums[0] > 0
        assert set(sums) == {sums[0]}
        assert {one.group for one in resources.node_load(connection, RUN.run_id)} == {
            "node00.cluster",
            "node01.cluster",
        }


LONG = SyntheticRun(tasks=1500, width=200, nodes=3, samples=4, fail_rate=0.1, seed=3)
SHORT = SyntheticRun(tasks=40, samples=300, seed=5)
UNSAMPLED = SyntheticRun(tasks=50, samples=0)


@pytest.mark.parametrize("bins", [1, 3, 7, 200])
@pytest.mark.parametrize(
    "run", [RUN, LONG, SHORT, SyntheticRun(tasks=50, samples=0)], ids=["run", "long", "short", "no"]
)
def test_what_is_under_the_plot_is_the_cpu_time_of_the_tasks(
    projected: Projected, run: SyntheticRun, bins: int
) -> None:
    with projected(run).connect() as connection:
        told = sum(app.cpu_s for app in workflows.apps(connection, run.run_id))
        for by in resources.Grouping:
            usage = resources.usage(connection, run.run_id, by, bins=bins)
            assert len({one.time_ns for one in usage}) <= bins
            assert sum(one.cpu_cores * one.width_ns for one in usage) / 1e9 == pytest.approx(told, rel=0.001)


@pytest.mark.parametrize("run", [RUN, LONG, SHORT], ids=["run", "long", "short"])
def test_no_moment_shows_more_memory_processes_or_cores_than_the_tries_that_ran_could_have(
    projected: Projected, run: SyntheticRun
) -> None:
    with projected(run).connect() as connection:
        rows = connection.execute(
            text("SELECT task_try_time_running AS start, task_try_time_returned AS end, max_rss_kb AS rss FROM try")
        ).all()
        for one in resources.usage(connection, run.run_id, bins=50):
            begin, end = one.time_ns, one.time_ns + one.width_ns
            parts = [(min(end, row.end) - max(begin, row.start), row.rss << 10) for row in rows]
            ran = [(part / one.width_ns, memory) for part, memory in parts if part > 0]
            tries = sum(part for part, _ in ran)
            assert one.memory <= sum(part * memory for part, memory in ran) * 1.001
            assert one.processes <= 2 * tries * 1.001
            assert one.cpu_cores <= tries * 1.001
            assert one.cpu_cores >= 0.5 * tries * 0.999


def test_many_ask_for_sums_at_once(projected: Projected) -> None:
    database = projected(RUN)
    together = threading.Barrier(20)

    def ask(_number: int) -> int:
        with database.connect() as connection:
            together.wait(20)
            return len(resources.usage(connection, RUN.run_id, resources.Grouping.APP))

    with ThreadPoolExecutor(20) as pool:
        counts = list(pool.map(ask, range(20)))
    assert len({*counts}) == 1
    assert counts[0] > 1


def test_blocks_and_nodes_tell_their_history(projected: Projected) -> None:
    with projected(RUN).connect() as connection:
        found = blocks.blocks(connection, RUN.run_id)
        assert [[status for _, status, _ in block.history] for block in found] == [
            ["PENDING", "RUNNING", "SCALED_IN"]
        ] * 2
        assert found[0].time_requested == RUN.began_ns
        nodes = blocks.nodes(connection, RUN.run_id)
        assert [node.lost for node in nodes] == [True, False]
        assert sum(node.tries for node in nodes) > 0


def test_the_database_cannot_be_changed_through_a_reader(projected: Projected) -> None:
    with pytest.raises(DatabaseError), projected(RUN).connect() as connection:
        connection.execute(text("DELETE FROM status_rows"))


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with (
        open_database(str(tmp_path / "no.db")) as database,
        pytest.raises(DatabaseMissing, match="MonitoringHub"),
        database.connect(),
    ):
        pass
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize("content", [b"", b"not a database at all", b"SQLite format 3\x00" + b"\xff" * 2000])
def test_files_that_are_no_database_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.db"
    path.write_bytes(content)
    with open_database(str(path)) as database, pytest.raises(DatabaseError, match=r"odd\.db"), database.connect():
        pass


def test_a_database_without_our_tables_is_not_ours(tmp_path: Path) -> None:
    import sqlite3

    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    with open_database(str(tmp_path / "other.db")) as database, pytest.raises(NotOurDatabase), database.connect():
        pass


def test_a_closed_database_in_a_directory_that_cannot_be_written_is_read(
    projected: Projected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flow_monitor.queries import database as module

    projected(RUN).close()
    opened = module._open
    asked: list[str] = []

    def no_shared_memory(uri: str) -> object:
        asked.append(uri)
        if "immutable" not in uri:  # what SQLite says where it may not make the -shm file
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return opened(uri)

    monkeypatch.setattr(module, "_open", no_shared_memory)
    with open_database(str(tmp_path / "monitoring.db")) as database, database.connect() as connection:
        assert workflows.page(connection).total == 1
    assert any("immutable=1" in uri for uri in asked)


def test_files_that_move_for_long_are_known_until_they_are_there_or_their_task_has_ended(tmp_path: Path) -> None:
    begin = [
        TaskSubmitted(1, 0, "read", "python", "", ("t",), ()),
        TaskSubmitted(2, 1, "read", "python", "", ("t",), ()),
    ]
    moving = [
        FileMoving(3, 0, "http://h/a", "in", 10, 100, 2.0),
        FileMoving(4, 0, "http://h/a", "in", 20, 100, 3.0),
        FileMoving(5, 0, "http://h/b", "in", 7, -1, 1.0),
        FileMoving(6, 1, "http://h/a", "out", 1, 2, 1.0),
        FileStaged(7, 0, "http://h/b", "/b", "in", 9),
    ]
    ended = TaskEnded(8, 1, "failed", error="it broke")
    path = tmp_path / "monitoring.db"
    started = RunStarted(0, "r1", 1, "n", "s", "v", "3.11", "h", "u", str(tmp_path / "run"), ("t",))
    write_log(tmp_path / "run", "r1", [started, *begin, *moving, ended])
    rebuild(tmp_path / "run", f"sqlite:///{path}")
    with open_database(str(path)) as database, database.connect() as connection:
        (move,) = tasks.one(connection, "r1", 0).moving
        assert (move.url, move.direction, move.moved, move.total, move.speed) == ("http://h/a", "in", 20, 100, 3.0)
        assert (move.time_ns, move.share) == (4, 0.2)
        assert tasks.one(connection, "r1", 1).moving == ()
