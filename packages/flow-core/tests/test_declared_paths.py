"""Relative paths of a call lead to where the script was when it made the call, wherever and whenever the task runs."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import flow_core as flow
from flow_core.errors import MissingOutputs
from flow_core.executors.futures import FuturesExecutor
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import File
from flow_core.interfaces.events import Event, EventKind, TaskSubmitted
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.sinks import RunInfo


@flow.python_app(executors=["gate"])
def wait_for(event: threading.Event) -> None:
    event.wait(50)


@flow.bash_app(executors=["there"])
def shout(after: object, inputs: Any = (), outputs: Any = (), stdout: Any = None) -> str:
    return f'echo heard; tr a-z A-Z < "{inputs[0]}" > "{outputs[0]}"'


@flow.python_app(executors=["there"])
def copy(after: object, source: File, inputs: Any = (), outputs: Any = ()) -> None:
    Path(outputs[0]).write_text(Path(source).read_text() + Path(inputs[0]).read_text())


@flow.python_app(executors=["there"])
def makes_nothing(outputs: Any = ()) -> None:
    pass


@flow.python_app(executors=["there"])
def given(file: File) -> str:
    return str(file)


@flow.join_app
def passes_on(after: object, file: File) -> Any:
    return given(file)


class Sink:
    wants = EventKind.TASK

    def __init__(self) -> None:
        self.submitted: list[TaskSubmitted] = []

    def start(self, run: RunInfo) -> None:
        pass

    def emit(self, events: Sequence[Event]) -> None:
        self.submitted += [event for event in events if isinstance(event, TaskSubmitted)]

    def close(self, timeout_s: float) -> int:
        return 0


def make_pool() -> Executor:
    context = multiprocessing.get_context("forkserver")
    return FuturesExecutor("there", lambda: concurrent.futures.ProcessPoolExecutor(1, mp_context=context))


MAKERS: dict[str, Callable[[], Executor]] = {
    "threads": lambda: ThreadPoolExecutor("there"),
    "pool": make_pool,
}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """Where the script is at the start, at its calls, and later; it is in the first one."""
    folders = tmp_path / "start", tmp_path / "the call", tmp_path / "later"
    for folder in folders:
        folder.mkdir()
        (folder / "in.txt").write_text(folder.name)
    monkeypatch.chdir(folders[0])
    return folders


def load(executor: Executor, tmp_path: Path, sink: Sink) -> Any:
    executors = [executor, ThreadPoolExecutor("gate")]
    return flow.load(flow.Config(executors, run_dir=tmp_path / "runs", sinks=[sink]))


@pytest.mark.parametrize("kind", MAKERS)
def test_files_of_a_call_are_those_of_its_directory(tmp_path: Path, places: tuple[Path, Path, Path], kind: str) -> None:
    event, sink = threading.Event(), Sink()
    start, call, later = places
    with load(MAKERS[kind](), tmp_path, sink):
        given(File("in.txt")).result()  # so that the pool's process is made here
        os.chdir(call)
        gate = wait_for(event)
        loud = shout(gate, inputs=[File("in.txt")], outputs=[File("sub/loud.txt")], stdout="told.txt")
        both = copy(gate, File("in.txt"), inputs=[loud.outputs[0]], outputs=["both.txt"])
        joined = passes_on(gate, File("in.txt"))
        os.chdir(later)
        event.set()
        both.result()
        assert copy(None, File("in.txt"), inputs=[loud.outputs[0]], outputs=["third.txt"]).result() is None
        assert Path(loud.outputs[0].filepath).read_text() == "THE CALL"
        assert joined.result() == str(call / "in.txt")
    assert (call / "sub" / "loud.txt").read_text() == "THE CALL"
    assert (call / "told.txt").read_text() == "heard\n"
    assert (call / "both.txt").read_text() == "the callTHE CALL"
    assert (later / "third.txt").read_text() == "laterTHE CALL"
    assert sorted(entry.name for entry in start.iterdir()) == ["in.txt"]
    assert str(call / "told.txt") in [told.stdout for told in sink.submitted]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_function_sees_a_path_as_it_was_given_where_that_leads_to_the_file(
    tmp_path: Path, places: tuple[Path, Path, Path], kind: str
) -> None:
    with load(MAKERS[kind](), tmp_path, Sink()):
        assert given(File("in.txt")).result() == "in.txt"


@pytest.mark.parametrize("kind", MAKERS)
def test_outputs_are_looked_for_in_the_directory_of_the_call(
    tmp_path: Path, places: tuple[Path, Path, Path], kind: str
) -> None:
    with load(MAKERS[kind](), tmp_path, Sink()):
        given(File("in.txt")).result()
        (places[0] / "out.txt").write_text("of somebody else")
        os.chdir(places[1])
        error = makes_nothing(outputs=["out.txt"]).exception()
    assert isinstance(error, MissingOutputs)
    assert error.outputs == ["out.txt"]
    assert str(places[1]) in str(error)


def test_an_executor_with_a_directory_of_its_own_takes_paths_as_they_are(
    tmp_path: Path, places: tuple[Path, Path, Path]
) -> None:
    executor = ThreadPoolExecutor("there", working_dir="nodes")
    with load(executor, tmp_path, Sink()):
        event = threading.Event()
        os.chdir(places[1])
        future = passes_on(wait_for(event), File("in.txt"))
        os.chdir(places[2])
        event.set()
        assert future.result() == "in.txt"


def test_a_file_knows_its_directory_wherever_it_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = File("a/b.txt").relative_to(str(tmp_path))
    assert (str(file), file.place) == ("a/b.txt", str(tmp_path / "a/b.txt"))
    monkeypatch.chdir("/")
    back = pickle.loads(pickle.dumps(file))
    assert str(back) == str(tmp_path / "a/b.txt")
    assert back == file == File("a/b.txt")
    assert back.relative_to("/elsewhere") is back
    assert File("/abs").relative_to("/x").directory == ""
    assert File("http://host/x").relative_to("/x").directory == ""


def test_calls_that_name_no_files_do_not_ask_for_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with load(ThreadPoolExecutor("there"), tmp_path, Sink()):
        asked = []
        here = os.getcwd()
        monkeypatch.setattr(os, "getcwd", lambda: asked.append(1) or here)
        several = [plain() for _ in range(10)]
        for future in (
            plain(several[0]),
            plain([1], {"a": 2}),
            plain(*several),
            plain(inputs=several),
            plain(inputs=[]),
        ):
            future.result()
        assert not asked
        Path("in.txt").touch()
        plain(inputs=[*several, File("in.txt")]).result()
        assert asked


@flow.python_app(executors=["there"])
def plain(*values: object, inputs: Any = ()) -> None:
    pass
