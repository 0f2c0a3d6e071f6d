"""From the log to the database: every event once, wherever the projection was stopped."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import create_engine, text

from flow_core.interfaces.events import (
    Event,
    EventsLost,
    TaskChanged,
    TaskEnded,
    TaskSubmitted,
    TryEnded,
    TryLaunched,
    TryStarted,
)
from flow_core.interfaces.outcome import Place
from flow_monitor.errors import LogError, ProjectionConflict
from flow_monitor.log.reader import LogReader, Position
from flow_monitor.project import activity as module, projector as projector_module, rebuild as rebuild_module
from flow_monitor.project.activity import Activity
from flow_monitor.project.process import _niced
from flow_monitor.project.projection_core import (
    RESOURCE_COLUMNS,
    STATUS_COLUMNS,
    TASK_COLUMNS,
    TRY_COLUMNS,
    Projection,
    Rows,
)
from flow_monitor.project.projector import Job, Outage, Projector
from flow_monitor.project.rebuild import rebuild, upgrade
from flow_monitor.project.store import Progress, RunStore
from flow_monitor.queries import workflows
from flow_monitor.queries.database import open_database
from flow_monitor.queries.records import RunState
from flow_monitor.schema import tables
from flow_monitor.schema.engine import writing_engine
from flow_monitor.testing.made import write_log
from flow_monitor.testing.synthetic import SyntheticRun

RUN = SyntheticRun(tasks=80, samples=6, fail_rate=0.4, seed=4)
EVENTS = list(RUN.events())


def _rounded(value: object) -> object:
    """Return a sum of floats as it is in whatever order it was made."""
    return float(f"{value:.9g}") if isinstance(value, float) else value


def dump(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables but where the projection stands."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        names = connection.execute(text("SELECT name FROM sqlite_master WHERE type='table' ORDER BY 1")).scalars().all()
        found = {
            name: sorted((tuple(row) for row in connection.execute(text(f'SELECT * FROM "{name}"'))), key=repr)
            for name in names
            if name not in ("projection", "resource")
        }
        resources = 'SELECT task_id, try_id, timestamp, hostname, psutil_process_cpu_percent FROM "resource"'
        found["resource"] = sorted((tuple(row) for row in connection.execute(text(resources))), key=repr)
    engine.dispose()
    found["usage_sums"] = [tuple(map(_rounded, row)) for row in found["usage_sums"]]
    found["app_status"] = [row for row in found["app_status"] if row[-1]]  # a sum of 0 is as good as none
    return found


def in_batches(path: Path, log: Path, sizes: list[int]) -> None:
    """Project a log with the process ended, and begun anew, after each batch."""
    for size in [*sizes, 1 << 30]:
        engine = writing_engine(f"sqlite:///{path}")
        store = RunStore(engine, RUN.run_id, str(log))
        before = store.resume()
        fold = Projection(RUN.run_id, store.load_tally() if before.position.offset else None)
        with LogReader(log, before.position) as reader:
            portion = reader.read(size, final=True)
        fold.fold(portion.events)
        store.apply(fold.take(), before, Progress(portion.position, before.events + len(portion.events)), 1)
        engine.dispose()


@pytest.fixture
def small_frames(tmp_path: Path) -> Path:
    from flow_monitor.log.writer import LogWriter

    path = tmp_path / "run" / "monitoring" / "events.log"
    writer = LogWriter(path, RUN.run_id, 1)
    for start in range(0, len(EVENTS), 7):
        writer.append(EVENTS[start : start + 7])
    writer.close()
    return path


def test_stopping_anywhere_and_resuming_gives_the_same_database(tmp_path: Path, small_frames: Path) -> None:
    whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
    for path, sizes in ((whole, []), (parts, [1, 30, 3, 200, 17, 90, 1, 1, 60])):
        upgrade(f"sqlite:///{path}")
        in_batches(path, small_frames, sizes)
    assert dump(whole) == dump(parts)


def test_a_rebuild_tries_a_database_for_as_long_as_it_is_told(
    tmp_path: Path, small_frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    class Patient(rebuild_module.Projector):
        def __init__(self, job: object, wait: object, patience_s: float, logger: object) -> None:
            told.append(patience_s)
            super().__init__(job, wait, patience_s, logger)  # type: ignore[arg-type]

    monkeypatch.setattr(rebuild_module, "Projector", Patient)
    rebuild(small_frames, f"sqlite:///{tmp_path / 'm.db'}", patience_s=7.0)
    assert told == [7.0]


def test_a_rebuilt_database_equals_the_first(tmp_path: Path, small_frames: Path) -> None:
    path = tmp_path / "monitoring.db"
    first = rebuild(small_frames.parent.parent, f"sqlite:///{path}")
    before = dump(path)
    assert rebuild(small_frames, f"sqlite:///{path}") == first
    assert dump(path) == before
    assert first.events == len(EVENTS)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(len(EVENTS[:60]))), missing=st.sets(st.integers(0, 59), max_size=30))
def test_any_order_and_any_gaps_give_counts_that_agree(order: list[int], missing: set[int]) -> None:
    fold = Projection("r")
    fold.fold([EVENTS[at] for at in order if at not in missing])
    rows = fold.take()
    assert all(n >= 0 for n in fold.tally.counted().values())
    states: dict[str, int] = {}
    for row in rows.tasks.values():
        if state := row[TASK_COLUMNS.index("task_status")]:
            states[str(state)] = states.get(str(state), 0) + 1
    sums: dict[str, int] = {}
    for (_app, state), n in fold.tally.counted().items():
        sums[state] = sums.get(state, 0) + n
    assert {s: n for s, n in sums.items() if n} == states


def test_every_task_of_a_log_with_gaps_has_its_rows(tmp_path: Path) -> None:
    events: list[Event] = [
        EventsLost(1, 40, "disk full"),
        TryLaunched(2, 7, 0, 1, "htex"),
        TryEnded(3, 8, 0, "OK", 1, 2, "htex", None, None),
        TaskEnded(4, 8, "EXEC_DONE"),
    ]
    write_log(tmp_path, "r", events)
    rebuild(tmp_path, f"sqlite:///{tmp_path / 'm.db'}")
    with open_database(str(tmp_path / "m.db")) as database, database.connect() as connection:
        run = workflows.one(connection, "r")
        assert run.events_lost == 40
        assert run.submitted == 2
        assert workflows.counts_by_state(connection, "r") == {"launched": 1, "exec_done": 1}
        assert workflows.gaps(connection, "r")[0].reason == "disk full"


@pytest.mark.parametrize(("items", "told"), [(("1", "a.txt"), '["1", "a.txt"]'), ((), '["a.txt"]')], ids=str)
def test_task_inputs_are_all_that_the_call_was_given(items: tuple[str, ...], told: str) -> None:
    rows = fold_of(TaskSubmitted(1, 0, "f", "python", "", (), (), ("a.txt",), items=items))
    assert shown(rows)["task_inputs"] == told


def fold_of(*events: Event) -> Rows:
    fold = Projection("r")
    fold.fold(events)
    return fold.take()


def shown(rows: Rows, task_id: int = 0) -> dict[str, object]:
    return dict(zip(TASK_COLUMNS, rows.tasks[task_id], strict=True))


SUBMITTED = TaskSubmitted(1, 0, "app", "python", "", ("x",), ())


def test_a_late_report_of_a_start_does_not_bring_a_finished_task_back() -> None:
    rows = fold_of(SUBMITTED, TaskEnded(5, 0, "exec_done"), TryStarted(3, 0, 0, Place("x")))
    assert shown(rows)["task_status"] == "exec_done"


def test_a_short_task_whose_start_was_never_reported_still_ran() -> None:
    rows = fold_of(SUBMITTED, TryLaunched(2, 0, 0, 9, "x"), TryEnded(9, 0, 0, "OK", 4, 8, "x", None, None))
    assert [state for _, _, state, _ in rows.statuses] == ["pending", "launched", "running"]
    assert shown(rows)["task_time_running"] == 4


def test_states_are_kept_in_small_letters() -> None:
    assert shown(fold_of(SUBMITTED, TaskChanged(2, 0, "FAIL_RETRYABLE")))["task_status"] == "fail_retryable"


def test_depth_is_the_longest_way_from_a_task_without_parents() -> None:
    tasks = [
        TaskSubmitted(1, i, "a", "python", "", (), depends) for i, depends in enumerate([(), (0,), (0, 1), (2, 0)])
    ]
    rows = fold_of(*tasks)
    assert [shown(rows, i)["task_depth"] for i in range(4)] == [0, 1, 2, 3]


def test_two_projections_of_one_run_do_not_mix(tmp_path: Path, small_frames: Path) -> None:
    endpoint = f"sqlite:///{tmp_path / 'm.db'}"
    upgrade(endpoint)
    engine = writing_engine(endpoint)
    store = RunStore(engine, RUN.run_id, "log")
    before = store.resume()
    store.apply(Rows(), before, Progress(Position(100)), 1)
    with pytest.raises(ProjectionConflict, match="another process"):
        store.apply(Rows(), before, Progress(Position(200)), 1)
    engine.dispose()


def test_a_run_whose_log_ends_without_an_end_is_shown_as_killed(tmp_path: Path) -> None:
    write_log(tmp_path, "r", list(SyntheticRun(tasks=20, ended=False).events()))
    rebuild(tmp_path, f"sqlite:///{tmp_path / 'm.db'}")
    with open_database(str(tmp_path / "m.db")) as database, database.connect() as connection:
        assert workflows.one(connection, "r").state is RunState.DIED


def test_a_database_that_stays_away_ends_the_projection_when_its_patience_is_over(
    tmp_path: Path, small_frames: Path
) -> None:
    (tmp_path / "nodir").write_text("a file where a directory should be")
    job = Job(RUN.run_id, small_frames, f"sqlite:///{tmp_path / 'nodir' / 'm.db'}")
    with pytest.raises(Outage, match="cannot open the database"):
        Projector(job, lambda _s: False, 0.2, logging.getLogger("test")).run()


def test_following_ends_between_batches_and_another_thread_brings_the_rest(tmp_path: Path, small_frames: Path) -> None:
    rebuilt, path = tmp_path / "rebuilt.db", tmp_path / "m.db"
    rebuild(small_frames, f"sqlite:///{rebuilt}")
    waits = iter([True, True, False])
    projector = Projector(
        Job(RUN.run_id, small_frames, f"sqlite:///{path}"), lambda _s: next(waits), 5.0, logging.getLogger("test")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projector_module, "LEAST_BATCH_EVENTS", 20)
        patch.setattr(projector_module, "BATCH_EVENTS", 20)
        projector.open()
        with concurrent.futures.ThreadPoolExecutor(1) as niced:
            niced.submit(projector.follow).result(30)
        with open_database(str(path)) as database, database.connect() as connection:
            assert 0 < workflows.one(connection, RUN.run_id).submitted < RUN.tasks
            assert workflows.one(connection, RUN.run_id).state is not RunState.DIED
    assert projector.finish().events == len(EVENTS)
    projector.close()
    assert dump(path) == dump(rebuilt)


def test_batches_shrink_while_they_take_long_and_grow_again() -> None:
    size = projector_module.BATCH_EVENTS
    for _ in range(10):
        size = projector_module._next_size(size, 5.0)
    assert size == projector_module.LEAST_BATCH_EVENTS
    assert projector_module._next_size(size, projector_module.LONGEST_BATCH_S / 2) == size
    for _ in range(10):
        size = projector_module._next_size(size, 0.01)
    assert size == projector_module.BATCH_EVENTS


@pytest.mark.skipif(sys.platform != "linux", reason="priorities are of whole processes elsewhere")
def test_the_lowest_priority_is_that_of_a_thread_and_ends_with_it() -> None:
    before, seen = os.getpriority(os.PRIO_PROCESS, 0), []
    _niced(lambda: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    assert seen == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    with pytest.raises(Outage, match="no"):
        _niced(lambda: (_ for _ in ()).throw(Outage("no")))


def test_rebuilding_from_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="cannot open the event log"):
        rebuild(tmp_path, f"sqlite:///{tmp_path / 'm.db'}")


def test_the_columns_of_rows_are_those_of_the_tables() -> None:
    assert [c.name for c in tables.task.columns] == ["run_key", *TASK_COLUMNS]
    assert [c.name for c in tables.try_.columns] == ["run_key", *TRY_COLUMNS]
    assert [c.name for c in tables.status.columns] == ["run_key", *STATUS_COLUMNS]
    assert {c.name for c in tables.resource.columns} == {"resource_id", "run_key", *RESOURCE_COLUMNS}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1 << 40), st.integers(1, 1 << 40)), max_size=60),
    st.integers(1, 12),
)
def test_the_sums_of_activity_keep_the_time_that_tries_ran(tries: list[tuple[str, int, int]], most: int) -> None:
    activity = Activity(width=4)
    original, module.MOST_BINS = module.MOST_BINS, most
    try:
        for app, began, took in tries:
            activity.began(app, began)
            activity.ended(app, began + took)
        activity.take()
    finally:
        module.MOST_BINS = original
    assert len(activity.bins) <= max(most, 2)
    for app in "ab":
        ran = sum(
            ended * begin + end_offsets - started * begin - start_offsets
            for (name, begin), (started, ended, start_offsets, end_offsets) in activity.bins.items()
            if name == app
        )
        assert ran == sum(took for name, _, took in tries if name == app)
