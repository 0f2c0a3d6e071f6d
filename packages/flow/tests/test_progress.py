from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flow.progress import ProgressBar
from flow.progress.counts import AppCounts, line
from flow.progress.notebook import table
from flow_core.errors import ConfigurationError
from flow_core.events import FileMoving, TaskEnded, TaskSubmitted
from flow_core.interfaces.sinks import RunInfo

RUN = RunInfo(run_id="run", epoch=0, run_dir=Path("runinfo/007"), name="test", started_ns=0)


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
    if bar._bars is not None:
        bar._bars.progress.refresh()
    assert bar.close(1.0) == 0
    return screen.getvalue()


def test_each_app_has_a_row_that_counts_its_tasks() -> None:
    screen = drawn(submitted(1, "parse"), submitted(2, "parse"), submitted(3, "sort"), ended(1))
    assert "parse" in screen
    assert "1/2" in screen
    assert "0/1" in screen


def test_failures_are_counted_beside_the_row() -> None:
    assert "1 failed" in drawn(submitted(1, "parse"), ended(1, error="ValueError: no"))


def test_a_long_name_of_an_app_leaves_room_for_the_numbers() -> None:
    screen = drawn(submitted(1, "a" * 200), submitted(2, "parse"), ended(2, error="ValueError: no"))
    assert "aaa…" in screen
    assert "0/1" in screen
    assert "1/1" in screen
    assert "1 failed" in screen


def moving(task_id: int, moved: int, total: int) -> FileMoving:
    return FileMoving(0, task_id, f"http://h/{task_id}", "in", moved, total, 1e6)


def test_files_that_move_have_no_total_while_the_size_of_one_is_not_known() -> None:
    assert "30/90" in drawn(moving(1, 10_000_000, 40_000_000), moving(2, 20_000_000, 50_000_000))
    assert "30/?" in drawn(moving(1, 10_000_000, 40_000_000), moving(2, 20_000_000, -1))


def test_many_apps_share_a_last_row() -> None:
    assert "other apps" in drawn(*(submitted(number, f"app{number}") for number in range(30)))


def test_the_command_at_the_end_names_a_run_elsewhere_by_its_path() -> None:
    screen = io.StringIO()
    bar = ProgressBar(Console(file=screen, force_terminal=False, width=200))
    bar.start(replace(RUN, run_dir=Path("/data/my runs/003")))
    bar.emit([submitted(1, "parse"), ended(1, "ValueError")])
    bar.close(1.0)
    assert "see: flow status '/data/my runs/003'" in screen.getvalue()


def test_without_a_terminal_the_end_is_one_line() -> None:
    said = drawn(submitted(1, "parse"), submitted(2, "parse"), ended(1), ended(2, "ValueError"), terminal=False)
    assert said.splitlines() == ["flow: in 0 s 1 of 2 tasks went well, 1 failed; see: flow status 007"]
    assert drawn(terminal=False) == ""


def test_without_a_terminal_a_line_comes_now_and_then_where_something_has_changed() -> None:
    screen = io.StringIO()
    bar = ProgressBar(Console(file=screen, force_terminal=False), every_s=0.01)
    bar.start(RUN)
    for number in range(3):
        bar.emit([submitted(number, "parse")])
        until(lambda number=number: f"of {number + 1} tasks ended" in screen.getvalue())
    bar.close(1.0)
    # Nothing changed after the last task, so nothing more was told but the end.
    assert len(screen.getvalue().splitlines()) == 4


def test_a_pipe_that_nobody_reads_ends_no_run() -> None:
    screen = io.StringIO()
    bar = ProgressBar(Console(file=screen, force_terminal=False))
    bar.start(RUN)
    bar.emit([submitted(1, "parse"), ended(1)])
    screen.close()
    assert bar.close(1.0) == 0


def test_a_period_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="every_s"):
        ProgressBar(every_s=-1)


def test_a_line_tells_failures_retries_speed_and_what_is_left() -> None:
    counts = AppCounts(submitted=100, ended=40, failed=2, remembered=3, retried=4)
    assert line(counts, 60.0, 2.0) == (
        "after 60 s: 40 of 100 tasks ended, 2 failed, 3 from memory, 4 retries, 2 a second, 30 s left at that"
    )
    assert line(counts, 60.0, 0.0) == "after 60 s: 40 of 100 tasks ended, 2 failed, 3 from memory, 4 retries"


def test_a_table_of_a_notebook_shows_names_as_text() -> None:
    shown = table({"<b>": AppCounts(3, 2, 1)}, "after 1 s")
    assert "&lt;b&gt;" in shown
    assert "1 failed" in shown
    assert "<b>" not in shown


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_a_bar_can_be_used_for_a_second_run() -> None:
    bar = ProgressBar(Console(file=io.StringIO(), force_terminal=True))
    for _ in range(2):
        bar.start(RUN)
        bar.emit([submitted(1, "parse"), ended(1)])
        bar.close(1.0)
        bar.close(1.0)
