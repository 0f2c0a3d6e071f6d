"""One task on a node: steps, environment, outputs, and tasks from files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import (
    AppException,
    AppTimeout,
    DeserializationError,
    MissingOutputs,
    SerializationError,
)
from flow_core.interfaces.call import DEFAULT_SPEC, NodeContext, TaskSpec
from flow_core.remote.outputs import CheckOutputs, MakeDirectories
from flow_core.remote.parcel import TaskResult, pack_task
from flow_core.remote.run import execute
from flow_core.remote.task_file import read_result, run_file, write_task

HERE = NodeContext(executor="here", node="node1")
PROCESS = NodeContext(executor="here", main_thread=True)


@dataclass(frozen=True)
class Marking:
    """A step that notes when it is entered and left."""

    name: str
    trail: list[str]

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        self.trail.append(f"into {self.name} on {where.executor}")
        try:
            return inner()
        finally:
            self.trail.append(f"out of {self.name}")


def variable(name: str) -> str | None:
    return os.environ.get(name)


def test_a_plain_task_is_just_called() -> None:
    assert execute(divmod, (7, 2), {}, DEFAULT_SPEC, (), HERE) == (3, 1)


def test_arguments_of_any_name_reach_the_function() -> None:
    def function(**kwargs: object) -> dict[str, object]:
        return kwargs

    kwargs: dict[str, Any] = {"func": 1, "args": 2, "spec": 3, "self": 4}
    assert execute(function, (), kwargs, DEFAULT_SPEC, (), HERE) == kwargs


def test_the_first_step_is_the_outermost() -> None:
    trail: list[str] = []
    steps = (Marking("a", trail), Marking("b", trail))
    assert execute(lambda: trail.append("function"), (), {}, DEFAULT_SPEC, steps, HERE) is None
    assert trail == ["into a on here", "into b on here", "function", "out of b", "out of a"]


def test_the_environment_is_set_for_the_task_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD", "before")
    spec = TaskSpec(environment=(("NEW", "1"), ("OLD", "2")))
    assert execute(variable, ("NEW",), {}, spec, (), PROCESS) == "1"
    assert execute(variable, ("OLD",), {}, spec, (), PROCESS) == "2"
    assert (variable("NEW"), variable("OLD")) == (None, "before")


def test_a_python_app_in_a_thread_cannot_have_an_environment_of_its_own() -> None:
    with pytest.raises(AppException, match=r"NEW.*'here'.*bash app"):
        execute(variable, ("NEW",), {}, TaskSpec(environment=(("NEW", "1"),)), (), HERE)


def test_a_python_app_has_its_walltime() -> None:
    waiting = threading.Event()
    with pytest.raises(AppTimeout):
        execute(lambda: [waiting.wait(0.01) for _ in range(4000)], (), {}, TaskSpec(walltime_s=0.05), (), PROCESS)


def test_directories_are_made_before_and_outputs_looked_for_after(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    steps = (CheckOutputs("app", (str(out),)), MakeDirectories((str(out.parent),)))
    assert execute(out.write_text, ("x",), {}, DEFAULT_SPEC, steps, HERE) == 1
    assert execute(lambda: "again", (), {}, DEFAULT_SPEC, steps, HERE) == "again"


def test_missing_outputs_are_named(tmp_path: Path) -> None:
    paths = tuple(str(tmp_path / f"out{number}") for number in range(8))
    Path(paths[0]).mkdir()
    with pytest.raises(MissingOutputs, match=r"'app'.*out1.*2 more.*node1") as caught:
        execute(lambda: None, (), {}, DEFAULT_SPEC, (CheckOutputs("app", paths),), HERE)
    assert caught.value.outputs == list(paths[1:])


def test_outputs_are_not_looked_for_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        execute(lambda: 1 / 0, (), {}, DEFAULT_SPEC, (CheckOutputs("app", ("/none",)),), HERE)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AppException, match="file/under"):
        execute(lambda: None, (), {}, DEFAULT_SPEC, (MakeDirectories((str(tmp_path / "file" / "under"),)),), HERE)


# -- tasks from files


def run_as_command(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flow_core.remote", *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)


def through_files(tmp_path: Path, func: Callable[..., object], *args: object, **settings: Any) -> TaskResult:
    write_task(str(tmp_path / "task"), func, args, **settings)
    done = run_as_command(tmp_path, "run", "task", "result")
    result = read_result(str(tmp_path / "result"))
    assert done.returncode == (0 if result.error is None else 1), done.stderr
    return result


def test_a_task_file_is_run_by_a_command(tmp_path: Path) -> None:
    result = through_files(tmp_path, lambda x, y: x + y, 1, kwargs={"y": 2})
    assert (result.value, result.error) == (3, None)
    assert 0 < result.started_ns <= result.ended_ns


def test_a_task_file_knows_steps_and_spec(tmp_path: Path) -> None:
    result = through_files(
        tmp_path,
        os.getenv,
        "NEW",
        spec=TaskSpec(environment=(("NEW", "1"),)),
        steps=(MakeDirectories(("made",)),),
    )
    assert result.value == "1"
    assert (tmp_path / "made").is_dir()


def test_the_exception_of_a_task_is_its_result(tmp_path: Path) -> None:
    result = through_files(tmp_path, lambda: 1 / 0)
    assert isinstance(result.error, ZeroDivisionError)


def test_a_task_that_exits_has_a_result_too(tmp_path: Path) -> None:
    error = through_files(tmp_path, lambda: sys.exit(3)).error
    assert isinstance(error, AppException)
    assert "the app ended its process: sys.exit(3)" in str(error)


def test_a_result_that_cannot_be_pickled_is_an_error(tmp_path: Path) -> None:
    error = through_files(tmp_path, lambda: __import__("threading").Lock()).error
    assert isinstance(error, SerializationError)
    assert "the result cannot be pickled" in str(error)


def test_a_task_that_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SerializationError, match=r"argument 1 \(lock\) of len"):
        write_task(str(tmp_path / "task"), len, (threading.Lock(),))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_task_is_an_error_in_the_result(tmp_path: Path) -> None:
    (tmp_path / "task").write_bytes(b"something else")
    assert not run_file(str(tmp_path / "task"), str(tmp_path / "result"))
    assert isinstance(read_result(str(tmp_path / "result")).error, DeserializationError)


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(b"FLOWRSLT1\ntorn")
    with pytest.raises(DeserializationError):
        read_result(str(tmp_path / "result"))


def test_wrong_usage_says_the_right_one(tmp_path: Path) -> None:
    done = run_as_command(tmp_path, "walk")
    assert done.returncode == 2
    assert "usage:" in done.stderr
    done = run_as_command(tmp_path, "run", "none", "nowhere/result")
    assert done.returncode == 2
    assert "nowhere" in done.stderr


def test_an_argument_that_cannot_be_pickled_is_named_with_what_to_do() -> None:
    lock = threading.Lock()
    for args, kwargs, named in (((1, lock), {}, "argument 2"), ((), {"guard": lock}, "argument guard")):
        with pytest.raises(SerializationError, match=rf"{named} \(lock\) of len cannot be pickled.*pass a File"):
            pack_task(len, args, kwargs)
