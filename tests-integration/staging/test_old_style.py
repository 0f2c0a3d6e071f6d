"""Staging methods in the older style, by the adapter: on the submit side and around the task."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor as Pool
from pathlib import Path
from typing import Any

import pytest

import flow
from flow import Config, File
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.providers import LocalProvider
from flow_core.errors import FlowError, StagingError
from flow_staging import OldStyleStaging


class Copying:
    """Copies files of a directory, which stands for a server: ``old://host/name``."""

    def __init__(self, server: Path, elsewhere: Path | None = None) -> None:
        self.server = server
        self.elsewhere = elsewhere
        self.seen: list[tuple[object, str]] = []

    def can_stage_in(self, file: Any) -> bool:
        return bool(file.scheme == "old")

    can_stage_out = can_stage_in

    def stage_in(self, dm: Any, executor: str, file: Any, parent: Any) -> Future[Any]:
        self.seen.append((dm, executor))
        if self.elsewhere is not None:
            file.local_path = str(self.elsewhere / file.filename)
        with Pool(1) as pool:
            return pool.submit(shutil.copy, self.server / file.filename, file.local_path)

    def stage_out(self, dm: Any, executor: str, file: Any, app_future: Future[Any]) -> None:
        assert app_future.done()
        shutil.copy(file.filepath, self.server / file.filename)

    def replace_task(self, dm: Any, executor: str, file: Any, func: Any) -> Any:
        server = self.server

        def bring(*args: Any, **kwargs: Any) -> Any:
            shutil.copy(server / file.filename, file.local_path)
            return func(*args, **kwargs)

        return bring

    def replace_task_stage_out(self, dm: Any, executor: str, file: Any, func: Any) -> Any:
        server = self.server

        def take(*args: Any, **kwargs: Any) -> Any:
            result = func(*args, **kwargs)
            shutil.copy(file.local_path, server / file.filename)
            return result

        return take


@flow.python_app
def upper(inputs: Any = (), outputs: Any = ()) -> list[str]:
    import os
    from pathlib import Path

    words = [Path(file.filepath).read_text() for file in inputs]
    with open(outputs[0].filepath, "w") as out:
        out.write("".join(words).upper())
    return [os.path.basename(file.filepath) for file in inputs]


@pytest.fixture
def server(tmp_path: Path) -> Path:
    made = tmp_path / "server"
    made.mkdir()
    (made / "a").write_text("a")
    (made / "b").write_text("b")
    return made


def _executor(kind: str) -> Any:
    if kind == "threads":
        return ThreadPoolExecutor()
    return HighThroughputExecutor("htex", max_workers=1, provider=LocalProvider(init_blocks=1, max_blocks=1))


KINDS = ["threads", pytest.param("htex", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_task", [False, True], ids=["submit side", "in the task"])
def test_files_are_moved_by_the_older_methods(
    server: Path, tmp_path: Path, kind: str, in_task: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    provider = Copying(server)
    staging = [OldStyleStaging(provider, manager="dm", in_task=in_task)]
    with flow.load(Config([_executor(kind)], run_dir=tmp_path / "runinfo", staging=staging)):
        files = [File("old://host/a"), File("old://host/b")]
        assert upper(inputs=files, outputs=[File("old://host/c")]).result(60) == ["a", "b"]
    assert (server / "c").read_text() == "AB"
    assert provider.seen == ([] if in_task else [("dm", kind)] * 2)


def test_a_place_that_the_method_chooses_is_where_the_task_finds_the_file(server: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    staging = [OldStyleStaging(Copying(server, elsewhere))]
    with flow.load(Config([ThreadPoolExecutor()], run_dir=tmp_path / "runinfo", staging=staging)):
        upper(inputs=[File("old://host/a")], outputs=[File("old://host/c")]).result(30)
    assert (server / "c").read_text() == "A"
    assert (elsewhere / "a").read_text() == "a"


@pytest.mark.parametrize("in_task", [False, True], ids=["submit side", "in the task"])
def test_what_the_method_raises_fails_its_task_with_the_url(server: Path, tmp_path: Path, in_task: bool) -> None:
    staging = [OldStyleStaging(Copying(server), in_task=in_task)]
    with flow.load(Config([ThreadPoolExecutor()], run_dir=tmp_path / "runinfo", staging=staging)):
        error = upper(inputs=[File("old://host/none")], outputs=[File("old://host/c")]).exception(30)
    assert isinstance(error, (StagingError, FileNotFoundError))
    assert "none" in str(error)


@pytest.mark.parametrize("method", ["stage_in", "replace_task"])
def test_a_method_that_hangs_or_exits_costs_its_own_task_only(server: Path, tmp_path: Path, method: str) -> None:
    release = threading.Event()

    def hang(*_given: Any) -> Any:
        assert release.wait(60)
        raise SystemExit("hostile")

    provider = Copying(server)
    setattr(provider, method, hang)
    staging = [OldStyleStaging(provider, in_task=method == "replace_task")]
    with flow.load(Config([ThreadPoolExecutor()], run_dir=tmp_path / "runinfo", staging=staging, hook_timeout=0.5)):
        victim = upper(inputs=[File("old://host/a")], outputs=[])
        others = [length("abc") for _ in range(20)]
        assert [other.result(30) for other in others] == [3] * 20
        assert isinstance(victim.exception(30), FlowError)  # of its staging, and no IndexError of its function
        release.set()


@flow.python_app
def length(text: str) -> int:
    return len(text)


def test_a_method_that_replaces_no_function_is_refused_by_name(server: Path, tmp_path: Path) -> None:
    class Wrong(Copying):
        def replace_task(self, *_given: Any) -> Any:
            return None

    staging = [OldStyleStaging(Wrong(server), in_task=True)]
    with flow.load(Config([ThreadPoolExecutor()], run_dir=tmp_path / "runinfo", staging=staging)):
        error = upper(inputs=[File("old://host/a")], outputs=[File("old://host/c")]).exception(30)
    assert "Wrong.replace_task returned NoneType" in str(error)


def test_a_method_that_returns_no_future_is_refused_by_name(server: Path, tmp_path: Path) -> None:
    class Wrong(Copying):
        def stage_in(self, *_given: Any) -> Any:
            return "done"

    with flow.load(
        Config([ThreadPoolExecutor()], run_dir=tmp_path / "runinfo", staging=[OldStyleStaging(Wrong(server))])
    ):
        error = upper(inputs=[File("old://host/a")], outputs=[File("old://host/c")]).exception(30)
    assert "Wrong.stage_in returned str" in str(error)
