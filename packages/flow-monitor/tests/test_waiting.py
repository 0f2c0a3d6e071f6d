"""Why a task is not done, as far as the events of its run tell."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from flow_core.interfaces.events import (
    BlockChanged,
    Event,
    NodeHeld,
    NodeJoined,
    NodeLeft,
    RunStarted,
    TaskChanged,
    TaskEnded,
    TaskJoined,
    TaskSubmitted,
    TryLaunched,
    TryStarted,
)
from flow_core.interfaces.outcome import Place
from flow_monitor.project.projector import Job, Projector
from flow_monitor.queries import tasks, waiting as module
from flow_monitor.queries.database import open_database
from flow_monitor.queries.records import Dependency, Hold, TaskDetail, Waiting
from flow_monitor.testing.made import write_log

_S = 1_000_000_000


def submitted(task_id: int, *depends: int, app: str = "f") -> TaskSubmitted:
    return TaskSubmitted(task_id * _S, task_id, app, "python", "", ("htex",), depends)


def launched(task_id: int, executor: str = "htex") -> TryLaunched:
    return TryLaunched(100 * _S + task_id, task_id, 0, task_id + 1, executor)


def details(directory: Path, events: Sequence[Event], *task_ids: int) -> list[TaskDetail]:
    run_dir = directory / "000"
    began = RunStarted(1, "run", 1, "name", "", "", "", "host", "user", str(run_dir), ("htex",))
    log = write_log(run_dir, "run", [began, *events])
    _project(Job("run", log, f"sqlite:///{directory / 'monitoring.db'}"))
    with open_database(str(directory / "monitoring.db")) as database, database.connect() as connection:
        return [tasks.one(connection, "run", task_id) for task_id in task_ids]


def _project(job: Job) -> None:
    """Project a run that goes on: nothing is ended in the database."""
    looks = iter([True, True, False])
    projector = Projector(job, lambda _s: next(looks), 5.0, logging.getLogger("test"))
    projector.open()
    with concurrent.futures.ThreadPoolExecutor(1) as niced:
        niced.submit(projector.follow).result(30)
    projector.close()


def why(directory: Path, events: Sequence[Event], task_id: int) -> Waiting:
    (detail,) = details(directory, events, task_id)
    assert detail.waiting is not None
    return detail.waiting


def test_a_waiting_task_names_the_dependencies_that_have_not_ended(tmp_path: Path) -> None:
    place = Place("htex", worker=1)
    events: list[Event] = [
        submitted(0),
        submitted(1, app="g"),
        submitted(2),
        TaskEnded(50 * _S, 2, "exec_done"),
        submitted(3, 0, 1, 2),
        launched(0),
        launched(1),
        TryStarted(200 * _S, 1, 0, place),
    ]
    found = why(tmp_path, events, 3)
    assert found.dependencies == (Dependency(0, "f", "launched"), Dependency(1, "g", "running"))
    assert (found.dependencies_total, found.failed, found.since) == (2, (), 3 * _S)


def test_a_dependency_that_failed_is_told_apart(tmp_path: Path) -> None:
    events = [submitted(0), TaskEnded(50 * _S, 0, "failed"), submitted(1), submitted(2, 0, 1)]
    found = why(tmp_path, events, 2)
    assert found.failed == (Dependency(0, "f", "failed"),)
    assert found.dependencies_total == 1


def test_a_join_task_waits_for_what_its_body_returned(tmp_path: Path) -> None:
    events = [submitted(0), launched(0), submitted(1), TaskJoined(9 * _S, 0, (1,)), TaskChanged(9 * _S, 0, "joining")]
    assert why(tmp_path, events, 0).dependencies == (Dependency(1, "f", "pending"),)


def test_a_queued_task_counts_those_called_before_it_at_the_same_executor(tmp_path: Path) -> None:
    events: list[Event] = [submitted(n, app="fg"[n % 2]) for n in range(6)]
    events += [launched(n, "other" if n == 1 else "htex") for n in (0, 1, 2, 3, 5)]
    events += [TaskEnded(300 * _S, 0, "exec_done")]
    assert (why(tmp_path, events, 5).ahead, why(tmp_path, events, 2).ahead) == (2, 0)


def test_of_very_many_ahead_some_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = [submitted(n) for n in range(30)]
    events += [launched(n) for n in range(30)]
    monkeypatch.setattr(module, "_COUNTED", 10)
    found = why(tmp_path, events, 29)
    assert (found.ahead, found.ahead_more) == (10, True)


def test_a_queued_task_shows_nodes_and_blocks_without_any(tmp_path: Path) -> None:
    def joined(block: str, executor: str = "htex") -> NodeJoined:
        return NodeJoined(150 * _S, executor, block, "n", f"m{block}{executor}", 1, 4, 8, 0, "3.11")

    events: list[Event] = [
        submitted(0),
        launched(0),
        BlockChanged(10 * _S, "htex", "0", "1", "RUNNING"),
        BlockChanged(10 * _S, "htex", "1", "2", "PENDING"),
        BlockChanged(20 * _S, "htex", "1", "2", "PENDING", "QOSMaxJobs"),
        BlockChanged(10 * _S, "htex", "2", "3", "FAILED"),
        BlockChanged(10 * _S, "other", "0", "9", "PENDING"),
        joined("0"),
        joined("0", "other"),
        joined("7"),
        NodeLeft(160 * _S, "htex", "7", "m7htex", "over", False),
    ]
    found = why(tmp_path, events, 0)
    assert (found.nodes, found.workers, found.blocks_failed) == (1, 4, 1)
    assert [(block.block, block.job_id, block.status, block.reason) for block in found.blocks] == [
        ("1", "2", "PENDING", "QOSMaxJobs")
    ]


def test_a_task_shows_nodes_of_its_executor_that_are_held_and_not_free_again(tmp_path: Path) -> None:
    events: list[Event] = [
        submitted(0),
        launched(0),
        NodeHeld(10 * _S, "htex", "n1", "it failed"),
        NodeHeld(11 * _S, "htex", "n2", "it failed"),
        NodeHeld(12 * _S, "htex", "n2", ""),
        NodeHeld(13 * _S, "htex", "n3", "it failed"),
        NodeHeld(14 * _S, "htex", "n3", ""),
        NodeHeld(15 * _S, "htex", "n3", "it is slow"),
        NodeHeld(10 * _S, "other", "n4", "it failed"),
    ]
    assert why(tmp_path, events, 0).held == (
        Hold("htex", "n1", "it failed", 10 * _S),
        Hold("htex", "n3", "it is slow", 15 * _S),
    )


def test_what_runs_or_has_ended_waits_for_nothing(tmp_path: Path) -> None:
    events = [submitted(0), launched(0), TryStarted(200 * _S, 0, 0, Place("htex")), submitted(1, 0)]
    events.append(TaskEnded(300 * _S, 1, "cancelled"))
    running, cancelled = details(tmp_path, events, 0, 1)
    assert running.waiting == Waiting(since=200 * _S)
    assert cancelled.waiting is None
