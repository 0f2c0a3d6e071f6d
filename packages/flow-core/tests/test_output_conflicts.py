"""Two unfinished tasks that declare one output."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flow_core as flow
from flow_core.apps.definition import AppDefinition, AppKind, CallOptions
from flow_core.errors import OutputConflict
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import Directory, File, Glob
from flow_core.graph.task import Task
from flow_core.interfaces.memoizer import AppIdentity
from flow_core.kernel.output_owners import OutputOwners, place_of

GO = threading.Event()


@flow.python_app
def make(number: int, inputs: Any = (), outputs: Any = ()) -> None:
    GO.wait(30)
    for output in outputs:
        with open(output, "a") as stream:
            stream.write(str(number))


@flow.python_app
def wait(inputs: Any = ()) -> None:
    GO.wait(30)


@flow.join_app
def joined(outputs: Any = ()) -> Any:
    return make(1, outputs=outputs)


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    GO.clear()
    yield
    GO.set()


def loaded(mode: Any, **options: Any) -> flow.DataFlowKernel:
    return flow.load(flow.Config(output_conflicts=mode, **options))


def test_the_second_call_is_refused_however_the_path_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with loaded("refuse"):
        first = make(1, outputs=[File("out")])
        for name in ("out", "./out", str(tmp_path / "out"), "link/out", f"file://{tmp_path}/out"):
            with pytest.raises(OutputConflict, match=rf"task 1|task \d+ \(make\).*out.*task {first.tid} \(make\)"):
                make(2, outputs=[File("other"), File(name)])
        second = make(2, outputs=[File("other")])  # what was refused owns nothing
        GO.set()
        first.result(30)
        second.result(30)
        make(3, outputs=[File("out")]).result(30)


def test_calls_that_wait_for_each_other_are_in_order() -> None:
    with loaded("refuse"):
        first = make(1, outputs=[File("out")])
        between = wait(inputs=[first])
        second = make(2, inputs=[between], outputs=[File("out", update=True)])
        many = [wait(inputs=[second]) for _ in range(10)]
        third = make(3, inputs=many, outputs=[File("out", update=True)])
        GO.set()
        third.result(30)
    assert Path("out").read_text() == "123"


def test_apps_that_only_add_to_a_file_may_do_so_at_once() -> None:
    with loaded("refuse"):
        futures = [make(n, outputs=[File("log", update=True)]) for n in range(5)]
        with pytest.raises(OutputConflict):
            make(5, outputs=[File("log")])
        GO.set()
        for future in futures:
            future.result(30)
    assert sorted(Path("log").read_text()) == list("01234")


def test_join_apps_do_not_meet_their_own_parts() -> None:
    with loaded("refuse"):
        GO.set()
        joined(outputs=[File("out")]).result(30)
    assert Path("out").read_text() == "1"


def test_by_default_it_is_said_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), loaded("warn"):
        futures = [make(n, outputs=[File("out")]) for n in range(4)]
        GO.set()
        for future in futures:
            future.result(30)
    said = [record.getMessage() for record in caplog.records if "declare one output" in record.getMessage()]
    assert len(said) == 1
    assert "task 0 (make) and task 1 (make)" in said[0]
    assert "output_conflicts='refuse'" in said[0]


@pytest.mark.parametrize("_", range(20))
def test_it_may_be_allowed(caplog: pytest.LogCaptureFixture, _: int) -> None:
    with caplog.at_level(logging.WARNING), loaded("allow"):
        futures = [make(n, outputs=[File("out")]) for n in range(4)]
        GO.set()
        for future in futures:
            future.result(30)
    assert not [record for record in caplog.records if "declare one output" in record.getMessage()]


def test_relative_paths_on_nodes_with_disks_of_their_own_are_not_compared() -> None:
    with loaded("refuse", executors=[ThreadPoolExecutor(working_dir="wd")]):
        futures = [make(n, outputs=[File("out")]) for n in range(2)]
        with pytest.raises(OutputConflict):
            [make(n, outputs=[File(os.path.abspath("there"))]) for n in range(2)]
        GO.set()
        for future in futures:
            future.result(30)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("HTTP://Host:80/a", "http://host/a", True),
        ("http://host/a%7Eb", "http://host/a~b", True),
        ("http://host:81/a", "http://host/a", False),
        ("http://host/a?v=1", "http://host/a?v=2", False),
        ("ftp://me@host/a", "ftp://you@host/a", False),
        ("ftp://Host:21/a", "ftp://host/a", True),
        ("s3://bucket/a%20b", "s3://bucket/a b", False),
        ("zip:a.zip/x", "zip:./a.zip/x", True),
        ("zip:a.zip/x", "zip:a.zip/y", False),
        ("a", "./a", True),
    ],
)
def test_ways_of_writing_a_url(one: str, two: str, same: bool, tmp_path: Path) -> None:
    assert (place_of(File(one), str(tmp_path)) == place_of(File(two), str(tmp_path))) is same


def test_links_on_the_way_are_followed_and_turned_links_are_seen(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    for name in ("one", "two", "one"):
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        assert place_of(File("link/x"), str(tmp_path)) == str(tmp_path.resolve() / name / "x")
        assert place_of(File(f"{name}/../link/./x"), str(tmp_path)) == str(tmp_path.resolve() / name / "x")
    (tmp_path / "one" / "x").symlink_to("../two/y")
    assert place_of(File("link/x"), str(tmp_path)) == str(tmp_path.resolve() / "two" / "y")
    later = place_of(File("new/x"), str(tmp_path))
    (tmp_path / "new").mkdir()
    assert place_of(File("new/x"), str(tmp_path)) == later


@flow.python_app
def make_sets(outputs: Any = ()) -> None:
    GO.wait(30)
    for output in outputs:
        folder = Path(output.folder if isinstance(output, Glob) else output)
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "a.png").write_text("a")
        (folder / "b.txt").write_text("b")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Directory("out"), File("out/deep/x.txt")),
        (File("out/deep/x.txt"), Directory("./out/")),
        (Directory("out"), Directory("out/deep")),
        (Directory("out/deep"), Directory("out")),
        (Directory("out"), Glob("out/*.txt")),
        (Glob("out/*.txt"), Directory("out")),
        (Glob("out/*.txt"), File("out/x.txt")),
        (File("out/x.txt"), Glob("out/*.txt")),
        (Glob("out/**/*.txt"), Directory("out/deep")),
        (Directory("out/deep"), Glob("out/**/*.txt")),
        (Glob("out/*/x.txt"), Directory("out/deep")),
        (Directory("s3://bucket/out"), File("s3://bucket/out/x")),
        (Directory("s3://bucket/"), Directory("s3://bucket")),
        (Directory("zip:a.zip/out"), File("zip:./a.zip/out/x")),
        (Glob("ftp://host/a%20b/*.txt"), File("ftp://HOST:21/a b/x.txt")),
    ],
)
def test_what_is_in_a_directory_or_matches_a_pattern_is_seen(first: File, second: File) -> None:
    refusing = _Refusing()
    one = refusing.claim(1, first)
    with pytest.raises(OutputConflict, match=r"task 2.*which task 1"):
        refusing.claim(2, second)
    refusing.owners.ended([one])
    refusing.claim(3, second)
    assert refusing.owners.places


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Directory("out"), File("output/x.txt")),
        (Directory("out/a"), Directory("out/b")),
        (Glob("out/*.txt"), File("out/x.png")),
        (Glob("out/*.txt"), File("out/deep/x.txt")),
        (Glob("out/*.txt"), Directory("out/deep")),
        (Glob("out/a*"), Glob("out/b*")),
        (Directory("out", update=True), File("out/log", update=True)),
        (Directory("s3://bucket/out"), File("s3://bucket/out.txt")),
        (Directory("s3://one"), File("s3://two/x")),
    ],
)
def test_what_is_beside_a_directory_or_does_not_match_a_pattern_is_none_of_it(first: File, second: File) -> None:
    refusing = _Refusing()
    one, two = refusing.claim(1, first), refusing.claim(2, second)
    refusing.owners.ended([one, two])
    assert not refusing.owners.places
    assert not any((refusing.owners._owners, refusing.owners._below, refusing.owners._sets))


def test_an_output_that_is_declared_twice_in_one_call_is_refused_however_it_is_written() -> None:
    with loaded("refuse"):
        for pair in ((File("out"), File("./out")), (File("file:///no/out"), File("/no/out")), (File("a"), File("a"))):
            with pytest.raises(OutputConflict, match="twice"):
                make(1, outputs=pair)
        GO.set()
        make(1, outputs=[File("out"), File("other")]).result(30)


def test_an_output_that_is_declared_twice_in_one_call_is_told_of_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    GO.set()
    with caplog.at_level(logging.WARNING), loaded("warn"):
        make(1, outputs=[File("out"), File("./out")]).result(30)
    assert [
        record.getMessage() for record in caplog.records if "declares the output ./out twice" in record.getMessage()
    ]


def test_a_call_is_refused_for_what_lies_in_the_directory_of_another(tmp_path: Path) -> None:
    with loaded("refuse"):
        first = make_sets(outputs=[Directory("out")])
        with pytest.raises(OutputConflict, match=r"out/x .which may hold, or be in, out."):
            make(2, outputs=[File(str(tmp_path / "out" / "x"))])
        after = make(3, inputs=[first], outputs=[File("out/x")])
        GO.set()
        after.result(30)


class _Refusing:
    """The owners of outputs in a run that refuses conflicts, where no task waits for another."""

    def __init__(self) -> None:
        self.owners = OutputOwners("refuse", lambda _task, _parents: False, lambda *_: None)

    def claim(self, number: int, output: File) -> Task:
        app = AppDefinition(
            make_sets, "make_sets", AppKind.PYTHON, None, False, AppIdentity("a", make_sets, "python:1")
        )
        task = Task(number, app, (), {}, CallOptions(outputs=(output,)), None, None)  # type: ignore[arg-type]  # unused
        self.owners.claim(task, os.getcwd(), ())
        return task
