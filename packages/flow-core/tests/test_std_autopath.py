"""Files of AUTO_LOGNAME that a function of the user's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kernel_apps import Load

import flow_core as flow
from flow_core import AUTO_LOGNAME, TaskView
from flow_core.errors import BadStdStreamFile, HookError


@flow.bash_app
def say(word: str, stdout: Any = None, stderr: Any = None) -> str:
    return f"echo {word}; echo {word} >&2"


def test_the_function_names_the_files_of_both_streams(load: Load, tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    def named(task: TaskView, stream: str) -> Path:
        seen.append((type(task), task.tid, task.app, task.label, task.args, stream))
        return tmp_path / f"{task.app}-{task.tid}.{stream}"

    load(std_autopath=named)
    future = say("hello", stdout=AUTO_LOGNAME, stderr=AUTO_LOGNAME, label="L")
    assert future.result(20) == 0
    assert future.stdout == str(tmp_path / "say-0.stdout")
    assert (tmp_path / "say-0.stdout").read_text() == (tmp_path / "say-0.stderr").read_text() == "hello\n"
    assert seen == [(TaskView, 0, "say", "L", ("hello",), stream) for stream in ("stdout", "stderr")]


def test_a_mode_of_the_call_or_of_the_function_counts(load: Load, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    kernel = load(std_autopath=lambda _task, _stream: log)
    assert say("a", stdout=(AUTO_LOGNAME, "w")).result(20) == 0
    assert log.read_text() == "a\n"
    kernel.cleanup()
    load(std_autopath=lambda _task, _stream: (log, "w"))
    assert say("b", stdout=AUTO_LOGNAME).result(20) == 0
    assert log.read_text() == "b\n"
    with pytest.raises(BadStdStreamFile, match="needs a path"):
        say("c", stdout=(AUTO_LOGNAME, "w"))


def test_streams_that_the_call_names_are_not_asked_about(load: Load, tmp_path: Path) -> None:
    load(std_autopath=lambda _task, _stream: 1 / 0)
    assert say("a", stdout=str(tmp_path / "mine")).result(20) == 0


@pytest.mark.parametrize("answer", [None, "", 5, AUTO_LOGNAME, ("x", "r")], ids=repr)
def test_an_answer_that_names_no_file_is_refused_at_the_call(load: Load, answer: Any) -> None:
    load(std_autopath=lambda _task, _stream: answer)
    with pytest.raises((HookError, BadStdStreamFile), match="stdout") as raised:
        say("a", stdout=AUTO_LOGNAME)
    assert "std_autopath" in str(raised.value)


def test_a_function_that_raises_is_named(load: Load) -> None:
    load(std_autopath=lambda _task, _stream: 1 / 0)
    with pytest.raises(HookError, match=r"task 0 \(say\): std_autopath .* raised ZeroDivisionError"):
        say("a", stdout=AUTO_LOGNAME)
