"""Which try made an output: older files, half files of failed and killed tries, and what becomes of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

import flow_core as flow
from flow_core.errors import MissingOutputs
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import File
from flow_core.interfaces.call import NodeContext
from flow_core.interfaces.staging import Staging
from flow_core.remote.links import seen
from flow_core.remote.outputs import CheckOutputs
from flow_core.remote.replaced_outputs import clear_for, put_back, unshared
from flow_core.remote.staged import reserved

HERE = NodeContext()


class Died(BaseException):
    """The process was killed: no line of the step runs any more."""


class Trying:
    """One task's tries, one after the other, at one place."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.path = folder / "out"
        self.kind = kind
        self.number = 0

    def write(self, text: str) -> None:
        if self.kind == "directory":
            self.path.mkdir(exist_ok=True)
            with (self.path / "part").open("a") as stream:
                stream.write(text)
        else:
            with self.path.open("a") as stream:
                stream.write(text)

    def read(self) -> str | None:
        place = self.path / "part" if self.path.is_dir() else self.path
        return place.read_text() if place.exists() else None

    def run(self, body: Callable[[], object]) -> object:
        self.number += 1
        path = str(self.path)
        return CheckOutputs("app", (path,), replaced=(path,), task="run-7", number=self.number).run(body, HERE)

    def killed(self, body: Callable[[], object]) -> None:
        """Make a try of which nothing runs after its body."""
        kept = self.path.parent.parent / "kept"

        def die() -> object:
            body()
            if kept.exists():
                shutil.rmtree(kept)
            shutil.copytree(self.path.parent, kept, symlinks=True)
            raise Died

        with pytest.raises(Died):
            self.run(die)
        shutil.rmtree(self.path.parent)
        kept.rename(self.path.parent)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["file", "directory"]),
    st.sampled_from([None, "older"]),
    st.lists(st.sampled_from(["half", "nothing", "killed", "killed early", "silent"]), max_size=5),
    st.sampled_from(["whole", "half", "killed", "nothing"]),
)
@example("file", None, ["killed"], "nothing")
@example("file", "older", ["killed", "silent"], "whole")
def test_what_is_there_is_what_the_try_that_succeeded_wrote_else_what_was_there_before(
    tmp_path_factory: pytest.TempPathFactory, kind: str, older: str | None, tries: list[str], last: str
) -> None:
    folder = tmp_path_factory.mktemp("tries") / "d"
    folder.mkdir()
    task = Trying(folder, kind)
    if older is not None:
        task.path.write_text(older)

    def half() -> None:
        task.write("half ")
        raise ZeroDivisionError

    def fails() -> None:
        raise ZeroDivisionError

    for each in [*tries, last]:
        if each == "half":
            with pytest.raises(ZeroDivisionError):
                task.run(half)
        elif each == "nothing":
            with pytest.raises(ZeroDivisionError):
                task.run(fails)
        elif each == "killed":
            task.killed(lambda: task.write("half "))
        elif each == "killed early":
            task.killed(lambda: None)
        elif each == "silent":
            with pytest.raises(MissingOutputs):
                task.run(lambda: None)
        else:
            task.run(lambda: task.write("whole"))
        if not each.startswith("killed"):
            assert task.read() == ("whole" if each == "whole" else older)
    put_back(str(task.path), "run-7", task.number)
    assert task.read() == ("whole" if last == "whole" else older)
    assert os.listdir(folder) == (["out"] if task.read() is not None else [])


def test_a_twin_that_still_runs_touches_nothing_of_the_try_that_followed_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("older")

    def check(number: int) -> CheckOutputs:
        return CheckOutputs("app", (str(out),), replaced=(str(out),), task="run-7", number=number)

    def first(ends: BaseException | None) -> None:
        stream = out.open("w")
        stream.write("half")
        stream.flush()
        check(2).run(lambda: out.write_text("whole"), HERE)
        stream.write(" and more")
        stream.close()
        if ends is not None:
            raise ends

    for ends in (ZeroDivisionError(), None):
        if ends is None:
            check(1).run(lambda: first(None), HERE)
        else:
            with pytest.raises(ZeroDivisionError):
                check(1).run(lambda: first(ends), HERE)  # noqa: B023
        assert out.read_text() == "whole"
        assert os.listdir(tmp_path) == ["out"]


def test_a_missing_output_that_was_there_before_is_explained(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("older")
    step = CheckOutputs("app", (str(out),), replaced=(str(out),), task="run-7")
    with pytest.raises(MissingOutputs, match=r"older .*/out lies there.*update=True"):
        step.run(lambda: None, HERE)
    with pytest.raises(FileNotFoundError) as caught:
        step.run(out.read_text, HERE)
    assert "moved aside" in caught.value.__notes__[0]
    assert out.read_text() == "older"


def test_links_lead_to_where_they_led(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, out = tmp_path / "disk" / "target", tmp_path / "out"
    out.symlink_to(target)
    step = CheckOutputs("app", (str(out),), replaced=(str(out),), task="run-7")
    for text in ("one", "two"):
        step.run(lambda: out.write_text(text), HERE)  # noqa: B023
        assert out.is_symlink()
        assert target.read_text() == text
    with pytest.raises(MissingOutputs):
        step.run(lambda: None, HERE)
    assert target.read_text() == "two"


def test_directories_that_are_there_and_devices_stay(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine").write_text("")
    paths = (str(tmp_path / "results"), "/dev/null")
    CheckOutputs("app", paths, replaced=paths, task="run-7").run(lambda: None, HERE)
    with pytest.raises(ZeroDivisionError):
        CheckOutputs("app", paths, replaced=paths, task="run-7").run(lambda: 1 / 0, HERE)
    assert os.listdir(tmp_path / "results") == ["mine"]


@pytest.mark.parametrize("name", ["x" * 250, "a b\n'*?[1]", "ü" * 120])
def test_names_of_any_kind_are_moved_aside(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    out.write_text("older")
    step = CheckOutputs("app", (str(out),), replaced=(str(out),), task="run-7")
    with pytest.raises(MissingOutputs):
        step.run(lambda: None, HERE)
    step.run(lambda: out.write_text("new"), HERE)
    assert (out.read_text(), os.listdir(tmp_path)) == ("new", [name])


def test_a_file_that_cannot_be_moved_counts_if_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "rename", refused)
    out = tmp_path / "out"
    out.write_text("older")
    step = CheckOutputs("app", (str(out),), replaced=(str(out),), task="run-7")
    with pytest.raises(MissingOutputs, match="update=True"):
        step.run(lambda: None, HERE)
    step.run(lambda: out.write_text("a new one"), HERE)
    assert out.read_text() == "a new one"


def test_what_is_changed_in_place_is_no_link_of_other_files(tmp_path: Path) -> None:
    kept, mine = tmp_path / "kept", tmp_path / "mine"
    kept.write_text("content")
    kept.chmod(0o750)
    os.link(kept, mine)
    unshared(str(mine))
    mine.write_text("changed")
    assert kept.read_text() == "content"
    assert mine.stat().st_mode == kept.stat().st_mode
    unshared(str(tmp_path / "none"))


# -- through a kernel


@flow.python_app
def half_then_nothing(flag: str, outputs: Any = ()) -> None:
    if not os.path.exists(flag):
        open(flag, "w").close()
        with open(outputs[0], "w") as stream:
            stream.write("half of a failed try")
        raise RuntimeError


@flow.bash_app
def half_by_bash(flag: str, outputs: Any = ()) -> str:
    return f"test -e {flag} || {{ touch {flag}; echo half > {outputs[0]}; exit 3; }}"


@flow.python_app
def append(text: str, inputs: Any = (), outputs: Any = ()) -> None:
    with open(outputs[0], "a") as stream:
        stream.write(text)


@pytest.mark.parametrize("app", [half_then_nothing, half_by_bash])
@pytest.mark.parametrize("older", [None, "older"])
def test_a_half_file_of_a_failed_try_is_no_output(
    app: Any, older: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if older is not None:
        Path("out").write_text(older)
    with flow.load(flow.Config(retries=1)):
        future = app("flag", outputs=[File("out")])
        assert isinstance(future.outputs[0].exception(30), MissingOutputs)
    assert (Path("out").read_text() if Path("out").exists() else None) == older
    assert sorted(os.listdir()) == sorted(["flag", "runinfo", *(["out"] if older else [])])


def test_an_app_that_adds_to_a_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with flow.load(flow.Config()):
        append("one ", outputs=[File("log", update=True)]).result(30)
        two = append("two ", outputs=[File("log", update=True)])
        append("three ", inputs=[two.outputs[0]], outputs=[File(str(tmp_path / "log"))]).result(30)
        assert Path("log").read_text() == "one two three "
        append("four", outputs=[File("log")]).result(30)
        assert Path("log").read_text() == "four"


def test_what_comes_in_and_goes_out_is_changed_for_nobody_else(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.write_text("in the store ")

    class Links(Staging):
        def can_stage_in(self, file: File) -> bool:
            return file.scheme == "mine"

        can_stage_out = can_stage_in

        def stage(self, transfers: Any) -> None:
            for transfer in transfers:
                if transfer.direction.value == "in":
                    os.link(store, transfer.local_path)
                else:
                    (tmp_path / "published").write_text(transfer.local_path.read_text())

    executor = ThreadPoolExecutor(storage_access=[Links()], working_dir=str(tmp_path / "wd"))
    with flow.load(flow.Config(executors=[executor], run_dir=tmp_path / "runinfo")):
        file = File("mine://h/a")
        append("and more", inputs=[file], outputs=[file]).outputs[0].result(30)
    assert (tmp_path / "published").read_text() == "in the store and more"
    assert store.read_text() == "in the store "
    assert not list((tmp_path / "wd").glob(f"{Path(reserved('')).name}*"))


@pytest.mark.parametrize(("given", "made"), [("link", "real"), ("real", "link"), ("folder/real", "real")])
def test_an_input_by_another_name_is_changed_too(
    given: str, made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same file, by a symbolic link: moved aside it would be no input any more."""
    monkeypatch.chdir(tmp_path)
    Path("real").write_text("one ")
    Path("link").symlink_to("real")
    Path("folder").symlink_to(".")
    with flow.load(flow.Config()):
        append("two", inputs=[File(given)], outputs=[File(made)]).result(30)
    assert Path("real").read_text() == "one two"


def test_a_hard_link_of_an_input_is_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("input").write_text("one ")
    os.link("input", "out")
    with flow.load(flow.Config()):
        append("two", inputs=[File("input")], outputs=[File("out")]).result(30)
    assert (Path("input").read_text(), Path("out").read_text()) == ("one ", "two")


@pytest.mark.parametrize("name", ["link", "folder/out", "ways/out", "ways/../folder/out", "./folder/./out", "out/"])
def test_what_lies_at_a_place_comes_back_however_the_place_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "ways").symlink_to("folder")
    (tmp_path / "link").symlink_to("folder/out")
    real = Path(os.path.realpath(name))
    real.write_text("old")
    before = sorted(tmp_path.rglob("*"))
    for ended in ("failed", "killed"):
        place = clear_for(name, "task", 1, seen(name))
        assert place.moved
        assert not real.exists()
        real.write_text("half")
        if ended == "failed":
            place.failed()
        else:
            put_back(name, "task", 1)
        assert real.read_text() == "old"
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("stays", [True, False])
def test_a_later_try_takes_over_that_nothing_lay_at_a_place(stays: bool, tmp_path: Path) -> None:
    """The try before it may still run: it must not remove what is the later one's."""
    path = str(tmp_path / "out")
    first = clear_for(path, "task", 1, None, stays=stays)
    Path(path).write_text("half")
    second = clear_for(path, "task", 2, seen(path), stays=stays)
    assert not os.path.exists(path)
    Path(path).write_text("whole")
    first.failed()
    assert second.made()
    second.succeeded()
    assert os.listdir(tmp_path) == ["out"]
    put_back(path, "task", 2)
    assert Path(path).read_text() == "whole"


@pytest.mark.parametrize("stays", [True, False])
def test_a_half_output_of_a_killed_first_try_is_removed(stays: bool, tmp_path: Path) -> None:
    path = str(tmp_path / "out")
    clear_for(path, "task", 1, None, stays=stays)
    Path(path).write_text("half")
    put_back(path, "task", 1)
    assert os.listdir(tmp_path) == []


def test_a_task_of_threads_alone_makes_no_file_beside_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    @flow.python_app
    def seen_beside(outputs: list[File]) -> list[str]:
        Path(outputs[0]).touch()
        return os.listdir(Path(outputs[0]).parent)

    with flow.load(flow.Config()):
        assert seen_beside(outputs=[File("folder/out")]).result(30) == ["out"]
