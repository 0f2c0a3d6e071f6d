"""Local inputs that are not there when their task is about to start."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flow_core as flow
from flow_core.errors import MissingInputs, StagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import File
from flow_core.interfaces.call import DEFAULT_SPEC, NodeContext
from flow_core.remote.inputs import CheckInputs
from flow_core.remote.run import execute
from flow_core.testing import MemoryExecutor

WHERE = NodeContext(node="node1")
called: list[object] = []


@flow.python_app
def reads(after: object = None, inputs: Any = (), outputs: Any = ()) -> str:
    called.append(inputs)
    if outputs:
        Path(outputs[0]).write_text("made")
    return Path(inputs[0]).read_text()


@flow.bash_app
def shows(inputs: Any = (), stdout: Any = None) -> str:
    return f"cat {inputs[0]}"


@flow.python_app
def waits(event: threading.Event) -> None:
    event.wait(50)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    called.clear()
    with flow.load(flow.Config(executors=[ThreadPoolExecutor("here")], run_dir=str(tmp_path / "runinfo"))):
        yield


@pytest.mark.usefixtures("kernel")
def test_an_input_that_was_removed_before_its_task_starts_is_named_and_the_app_not_called() -> None:
    Path("in.txt").write_text("x")
    event = threading.Event()
    future = reads(waits(event), inputs=[File("in.txt")])
    Path("in.txt").unlink()
    event.set()
    with pytest.raises(MissingInputs, match=rf"task {future.tid} \(reads\).*in\.txt does not exist") as caught:
        future.result(50)
    assert caught.value.inputs == ["in.txt"]
    assert not called


@pytest.mark.usefixtures("kernel")
def test_a_link_to_nothing_is_named_with_what_it_leads_to() -> None:
    os.symlink("nowhere", "link")
    for app in (reads, shows):
        with pytest.raises(MissingInputs, match="link is a link to nowhere, which does not exist"):
            app(inputs=[File("link")]).result(50)


@pytest.mark.usefixtures("kernel")
def test_what_the_app_makes_itself_and_what_is_no_input_may_be_missing() -> None:
    assert reads(inputs=[File("new.txt")], outputs=[File("new.txt")]).result(50) == "made"
    with pytest.raises(FileNotFoundError):
        reads(File("none.txt"), inputs=["none.txt"]).result(50)


@pytest.mark.usefixtures("kernel")
def test_links_directories_and_outputs_of_others_are_inputs(tmp_path: Path) -> None:
    Path("dir").mkdir()
    Path("dir/a").write_text("a")
    os.symlink("dir/a", "link")
    assert reads(inputs=[File("link"), File("dir"), File(tmp_path / "dir" / "a")]).result(50) == "a"
    first = reads(inputs=[File("link")], outputs=[File("out")])
    assert reads(inputs=[first.outputs[0]]).result(50) == "made"


def test_the_step_says_why_and_where(tmp_path: Path) -> None:
    os.symlink("circle", tmp_path / "circle")
    (tmp_path / "file").touch()
    names = ["circle", "file/below", *(f"none{number}" for number in range(6))]
    step = CheckInputs(3, "app", ("file", *names), str(tmp_path))
    said = r"task 3 \(app\) was not started on node1.*circle is a link .*circle; file/below cannot be used: N.*3 more"
    with pytest.raises(MissingInputs, match=said) as caught:
        execute(lambda: None, (), {}, DEFAULT_SPEC, (step,), WHERE)
    assert caught.value.inputs == names


def test_the_step_takes_relative_paths_for_those_of_the_directory_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    step = CheckInputs(3, "app", ("a",))
    with pytest.raises(MissingInputs, match=f"a does not exist in {tmp_path}"):
        execute(lambda: None, (), {}, DEFAULT_SPEC, (step,), WHERE)
    Path("a").touch()
    assert execute(lambda: 5, (), {}, DEFAULT_SPEC, (step,), WHERE) == 5


@pytest.fixture
def retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryExecutor]:
    monkeypatch.chdir(tmp_path)
    executor = MemoryExecutor("memory")
    with flow.load(flow.Config([executor], retries=2, run_dir=str(tmp_path / "runinfo"))):
        yield executor


def test_an_input_that_is_nowhere_is_not_tried_for_again(retried: MemoryExecutor) -> None:
    future = reads(inputs=[File("in.txt")])
    retried.fail(retried.waiting[0], MissingInputs("it lacks inputs: in.txt", ["in.txt"]))
    with pytest.raises(MissingInputs):
        future.result(10)
    assert not retried.waiting


def test_an_input_that_a_node_does_not_see_is_tried_for_on_another_one(retried: MemoryExecutor) -> None:
    Path("in.txt").write_text("x")
    future = reads(inputs=[File("in.txt")])
    retried.fail(retried.waiting[0], MissingInputs("it lacks inputs: in.txt", ["in.txt"]))
    retried.run_all()
    assert future.result(10) == "x"


def test_a_retry_handler_is_not_asked_about_what_no_try_could_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    executor, asked = MemoryExecutor("memory"), []

    def handler(error: BaseException, task: object) -> float:
        asked.append(type(error))
        return 0.0 if len(asked) < 2 else 100.0

    gone = StagingError("there is no such file", "http://h/a")
    gone.final = True
    with flow.load(flow.Config([executor], retries=2, retry_handler=handler, run_dir=str(tmp_path / "runinfo"))):
        first, second = reads(inputs=[File("none.txt")]), reads(inputs=[File("other.txt")])
        third = reads(inputs=[File("third.txt")])
        executor.fail(executor.waiting[0], MissingInputs("it lacks inputs", ["none.txt"]))
        executor.fail(executor.waiting[0], gone)
        assert isinstance(first.exception(10), MissingInputs)
        assert second.exception(10) is gone
        assert not asked
        executor.fail(executor.waiting[0], StagingError("the server is away", "http://h/a"))
        executor.wait_submitted(4)
        executor.fail(executor.waiting[0], StagingError("the server is away", "http://h/a"))
        assert isinstance(third.exception(10), StagingError)
        assert asked == [StagingError, StagingError]
