from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from flow.progress import ProgressBar
from flow_core.events import FileMoving, TaskEnded, TaskSubmitted
from flow_core.interfaces.sinks import RunInfo

RUN = RunInfo(run_id="run", epoch=0, run_dir=Path("."), name="test", started_ns=0)


def submitted(task_id: int, app: str) -> TaskSubmitted:
    return TaskSubmitted(
        time_ns=0, task_id=task_id, app=app, app_kind="python", label="", executors=("threads",), depends=()
    )


def ended(task_id: int, error: str = "") -> TaskEnded:
    return TaskEnded(time_ns=0, task_id=task_id, state="failed" if error else "exec_done", error=error)


def drawn(*events: TaskSubmitted | TaskEnded | FileMoving, terminal: bool = True) -> str:
    screen = io.StringIO()
    bar = ProgressBar(Console(file=screen, force_terminal=terminal, width=100))
    bar.start(RUN)
    bar.emit(events)
    if bar._progress is not None:
        bar._progress.refresh()
    assert bar.close(1.0) == 0
    return screen.getvalue()


def test_each_app_has_a_row_that_counts_its_tasks() -> None:
    screen = drawn(submitted(1, "parse"), submitted(2, "parse"), submitted(3, "sort"), ended(1))
    assert "parse" in screen
    assert "1/2" in screen
    assert "0/1" in screen


def test_failures_are_counted_beside_the_row() -> None:
    assert "1 failed" in drawn(submitted(1, "parse"), ended(1, error="ValueError: no"))


def moving(task_id: int, moved: int, total: int) -> FileMoving:
    return FileMoving(0, task_id, f"http://h/{task_id}", "in", moved, total, 1e6)


def test_files_that_move_have_no_total_while_the_size_of_one_is_not_known() -> None:
    assert "30/90" in drawn(moving(1, 10_000_000, 40_000_000), moving(2, 20_000_000, 50_000_000))
    assert "30/?" in drawn(moving(1, 10_000_000, 40_000_000), moving(2, 20_000_000, -1))


def test_many_apps_share_a_last_row() -> None:
    assert "other apps" in drawn(*(submitted(number, f"app{number}") for number in range(30)))


def test_nothing_is_drawn_without_a_terminal() -> None:
    assert drawn(submitted(1, "parse"), ended(1), terminal=False).strip() == ""


def test_a_bar_can_be_used_for_a_second_run() -> None:
    bar = ProgressBar(Console(file=io.StringIO(), force_terminal=True))
    for _ in range(2):
        bar.start(RUN)
        bar.emit([submitted(1, "parse"), ended(1)])
        bar.close(1.0)
        bar.close(1.0)
