"""Cached calls know the files that they read by what these hold."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from kernel_apps import Load

import flow_core as flow
from flow_core.errors import ConfigurationError, MissingInputs
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import Directory, File
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity, MemoEntry
from flow_core.interfaces.staging import Staging, Transfer
from flow_core.interfaces.versions import stamp_of
from flow_core.kernel.kernel import DataFlowKernel
from flow_core.memo.key import memo_key, with_contents
from flow_core.memo.memoizer import BasicMemoizer
from flow_core.staging import contents as contents_module
from flow_core.staging.contents import Contents

TIMEOUT_S = 30
RUNS: list[object] = []
"""What the tasks of a test have read, in their order: they run in threads of this process."""
TOLD = logging.getLogger("flow-test-runs")
"""Where they say so: a logger is no part of keys, as the list would be."""


class _Runs(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        RUNS.append(record.msg)


TOLD.addHandler(_Runs())
TOLD.propagate = False
TOLD.setLevel(logging.INFO)


@flow.python_app(cache=True)
def read(inputs: Any = ()) -> str:
    text = "".join(Path(each).read_text() for each in inputs)
    TOLD.info(text)
    return text


@flow.python_app(cache=True)
def read_all(*given: Any, **named: Any) -> int:
    TOLD.info(given)
    return time.monotonic_ns()


BEGUN, GO = threading.Event(), threading.Event()


@flow.python_app(cache=True)
def waits(file: Any) -> str:
    text = Path(file).read_text()
    TOLD.info(text)
    BEGUN.set()
    assert GO.wait(TIMEOUT_S)
    return text


@pytest.fixture(autouse=True)
def _nothing_has_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RUNS.clear()
    BEGUN.clear()
    GO.clear()


def result(future: Any) -> Any:
    return future.result(timeout=TIMEOUT_S)


def log_of(kernel: DataFlowKernel) -> str:
    return (kernel.run_dir / "flow.log").read_text()


# -- sequences of edits

NAMES = ("one", "two")
_edits = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from("ABC")),
    st.tuples(st.just("replace"), st.sampled_from(NAMES), st.sampled_from("ABC")),
    st.tuples(st.just("old date"), st.sampled_from(NAMES), st.sampled_from("AB")),
    st.tuples(st.just("touch"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("copy"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("swap"), st.none(), st.none()),
    st.tuples(st.just("link"), st.sampled_from(NAMES), st.sampled_from("AB")),
)


def _edit(folder: Path, kind: str, name: str | None, text: str | None) -> None:
    path, other = folder / (name or NAMES[0]), folder / (NAMES[1] if name == NAMES[0] else NAMES[0])
    if kind == "write":
        path.write_text(text or "")
    elif kind == "replace":
        (folder / "new").write_text(text or "")
        (folder / "new").replace(path)
    elif kind == "old date":
        path.write_text(text or "")
        os.utime(path, (1_000_000_000, 1_000_000_000))
    elif kind == "remove":
        path.unlink(missing_ok=True)
    elif kind == "touch":
        path.touch()
    elif kind == "copy" and other.exists():
        path.unlink(missing_ok=True)
        shutil.copy2(other, path)
    elif kind == "link":
        path.unlink(missing_ok=True)
        (folder / f"target of {text}").write_text(text or "")
        path.symlink_to(f"target of {text}")
    elif kind == "swap" and all((folder / each).exists() for each in NAMES):
        (folder / NAMES[0]).rename(folder / "aside")
        (folder / NAMES[1]).rename(folder / NAMES[0])
        (folder / "aside").rename(folder / NAMES[1])


def test_a_call_is_found_if_and_only_if_its_file_holds_what_it_held_in_one_before(load: Load, tmp_path: Path) -> None:
    folders = (tmp_path / str(number) for number in count())

    @settings(max_examples=60, deadline=None)
    @given(steps=st.lists(st.tuples(st.lists(_edits, max_size=3), st.sampled_from(NAMES)), min_size=1, max_size=10))
    def check(steps: list[Any]) -> None:
        folder = next(folders)
        folder.mkdir()
        known: set[tuple[str, str]] = set()
        for edits, name in steps:
            for edit in edits:
                _edit(folder, *edit)
            RUNS.clear()
            path = folder / name
            future = read(inputs=[File(path)])
            if not path.exists():
                assert isinstance(future.exception(timeout=TIMEOUT_S), MissingInputs)
                continue
            text = path.read_text()
            assert result(future) == text
            assert len(RUNS) == ((name, text) not in known)
            known.add((name, text))

    load()
    check()


# -- where files are

_WAYS: list[Callable[[File], Any]] = [
    lambda file: read_all(file),
    lambda file: read_all(1, [file]),
    lambda file: read_all({"deep": (1, [file])}),
    lambda file: read_all(inputs=[file]),
    lambda file: read_all(named={"a": file}),
    lambda file: read_all({file}),
]


@pytest.mark.parametrize("way", _WAYS)
def test_files_count_wherever_they_are_in_the_arguments(load: Load, way: Callable[[File], Any]) -> None:
    load()
    file = File("data.txt")
    Path("data.txt").write_text("A")
    first = result(way(file))
    assert result(way(file)) == first
    Path("data.txt").write_text("B")
    second = result(way(file))
    assert second != first
    Path("data.txt").write_text("A")
    assert result(way(file)) == first
    assert len(RUNS) == 2


def test_files_of_futures_count(load: Load) -> None:
    load()

    @flow.python_app
    def make(text: str, outputs: Any = ()) -> None:
        Path(outputs[0]).write_text(text)

    for text in "ABAB":
        assert result(read(inputs=[make(text, outputs=[File("made.txt")]).outputs[0]])) == text
    assert RUNS == ["A", "B"]


TABLE = File("table.txt")


def test_files_that_a_function_names_count(load: Load) -> None:
    load()

    @flow.python_app(cache=True)
    def of_global() -> str:
        TOLD.info(1)
        return Path(TABLE).read_text()

    @flow.python_app(cache=True)
    def of_default(file: File = File("table.txt")) -> str:  # noqa: B008  (a File never changes)
        TOLD.info(1)
        return Path(file).read_text()

    for app in (of_global, of_default):
        for text in "ABA":
            Path("table.txt").write_text(text)
            assert result(app()) == text
    assert len(RUNS) == 4
    Path("other.txt").write_text("C")
    for text in "AB":  # the default is not used
        Path("table.txt").write_text(text)
        assert result(of_default(File("other.txt"))) == "C"
    assert len(RUNS) == 5


def test_directories_count_with_all_files_in_them(load: Load) -> None:
    load()
    folder = Path("folder")
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a").write_text("A")

    def run() -> Any:
        return result(read_all(inputs=[Directory("folder")]))

    first = run()
    (folder / "b").write_text("B")
    assert run() != first
    (folder / "b").unlink()
    assert run() == first
    (folder / "below" / "a").write_text("C")
    assert run() != first
    (folder / "below" / "a").write_text("A")
    assert run() == first
    assert len(RUNS) == 3


def test_links_in_directories_and_what_is_behind_them_count(load: Load) -> None:
    load()
    for name in ("folder", "elsewhere"):
        Path(name).mkdir()
    Path("elsewhere/a").write_text("A")
    Path("folder/link").symlink_to(Path("elsewhere").absolute())
    Path("folder/circle").symlink_to(Path("folder").absolute())
    Path("folder/nowhere").symlink_to("nothing")

    def run() -> Any:
        return result(read_all(inputs=[Directory("folder")]))

    first = run()
    assert run() == first
    Path("elsewhere/a").write_text("B")
    second = run()
    assert second != first
    Path("folder/empty").mkdir()
    assert run() not in (first, second)
    Path("folder/empty").rmdir()
    Path("elsewhere/a").write_text("A")
    assert run() == first


def test_of_very_many_files_each_counts(tmp_path: Path) -> None:
    """More than a record has room for parts."""
    named = memo_key(AppIdentity("app", len), Call(len, ([],)))
    contents = [(f"{number}\udcff", "A") for number in range(70_000)]
    keys = [
        with_contents(named, [*contents[:index], (contents[index][0], "B"), *contents[index + 1 :]])
        for index in (0, 99, 100, 69_999)
    ]
    keys.append(with_contents(named, contents))
    assert len({key.digest for key in keys}) == 5
    memo = BasicMemoizer(checkpoint_mode="task_exit", checkpoint_dir=tmp_path)
    memo.store([MemoEntry(key, 0, key.digest) for key in keys])
    memo.close()
    again = BasicMemoizer(checkpoint_dir=tmp_path / "again", checkpoint_files=[tmp_path])
    for key in keys:
        found = again.lookup(key)
        assert found is not None
        assert found.result() == key.digest
    assert again.explain(with_contents(named, [*contents[:-1], ("x", "A")])).changes.endswith(
        "and others, 69900 in all"
    )
    again.close()


def test_what_a_call_declares_to_make_is_no_input_of_it(load: Load) -> None:
    load()

    @flow.python_app(cache=True)
    def make(place: Any, outputs: Any = ()) -> int:
        Path(place).write_text("made")
        TOLD.info(1)
        return 1

    for _ in range(3):
        assert result(make(File("made.txt"), outputs=[File("made.txt")])) == 1
    assert len(RUNS) == 1


def test_a_file_that_a_call_adds_to_counts_as_it_was_before(load: Load) -> None:
    kernel = load()

    @flow.python_app(cache=True)
    def add(inputs: Any = (), outputs: Any = ()) -> str:
        with open(outputs[0], "a") as stream:
            stream.write("A")
        return Path(inputs[0]).read_text()

    log = File("log.txt", update=True)
    Path("log.txt").write_text("")
    for text in ("A", "AA", "AAA"):
        assert result(add(inputs=[log], outputs=[log])) == text
    assert "log.txt (other content)" in log_of(kernel)


def test_bash_apps_too(load: Load) -> None:
    load()

    @flow.bash_app(cache=True)
    def upper(inputs: Any = (), outputs: Any = ()) -> str:
        return f"tr a-z A-Z < {inputs[0]} > {outputs[0]}; echo x >> calls"

    for text, calls in (("a", 1), ("a", 1), ("b", 2)):
        Path("in.txt").write_text(text)
        result(upper(inputs=[File("in.txt")], outputs=[File("out.txt")]))
        assert Path("out.txt").read_text() == text.upper()
        assert Path("calls").read_text().count("x") == calls


# -- what else counts, and what does not


def test_names_alone_count_where_that_is_wanted(load: Load) -> None:
    load()

    @flow.python_app(cache=True, cache_files="names")
    def by_name(inputs: Any = ()) -> str:
        return Path(inputs[0]).read_text()

    Path("data.txt").write_text("A")
    assert result(by_name(inputs=[File("data.txt")])) == "A"
    Path("data.txt").write_text("B")
    assert result(by_name(inputs=[File("data.txt")])) == "A"


def test_another_word_for_what_counts_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cache_files must be one of 'contents', 'names'"):
        flow.python_app(cache=True, cache_files="dates")(len)


def test_ignored_parameters_are_not_looked_at(load: Load) -> None:
    load()

    @flow.python_app(cache=True, ignore_for_cache=["file"])
    def ignoring(file: Any) -> str:
        return Path(file).read_text()

    Path("data.txt").write_text("A")
    assert result(ignoring(File("data.txt"))) == "A"
    Path("data.txt").write_text("B")
    assert result(ignoring(File("data.txt"))) == "A"


def test_calls_without_files_are_not_looked_at(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = load()
    monkeypatch.setattr(kernel.staging, "look_at_inputs", None)
    first = result(read_all("data.txt", Path("data.txt")))
    assert result(read_all("data.txt", Path("data.txt"))) == first


def test_a_stated_digest_is_enough(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from hashlib import sha256

    kernel = load()
    monkeypatch.setattr(kernel.staging, "look_at_inputs", None)
    for text in "ABA":
        Path("data.txt").write_text(text)
        assert result(read(inputs=[File("data.txt", sha256=sha256(text.encode()).hexdigest())])) == text
    assert RUNS == ["A", "B"]


def test_identical_calls_in_flight_are_those_that_read_the_same(load: Load) -> None:
    load()

    Path("data.txt").write_text("A")
    first = waits(File("data.txt"))
    assert BEGUN.wait(TIMEOUT_S)
    Path("new.txt").write_text("B")
    Path("new.txt").replace("data.txt")
    second = waits(File("data.txt"))
    GO.set()
    assert (result(first), result(second)) == ("A", "B")


def test_what_is_written_to_while_a_task_runs_is_not_remembered(load: Load) -> None:
    kernel = load()

    @flow.python_app(cache=True)
    def disturbed(file: Any) -> str:
        text = Path(file).read_text()
        TOLD.info(text)
        if not Path("begun").exists():
            Path("begun").touch()
            Path("data.txt").write_text("B")
            Path("data.txt").write_text("A")  # as before, and yet it may have been read in between
        return text

    Path("data.txt").write_text("A")
    for runs in (1, 2, 2):
        assert result(disturbed(File("data.txt"))) == "A"
        assert len(RUNS) == runs
    assert "is not remembered, since it is not known that its files were" in log_of(kernel)
    assert "data.txt (it was written again)" in log_of(kernel)


@pytest.mark.parametrize("given", ["link", "link to link", "directory", "link in directory", "directory in directory"])
def test_what_was_read_by_a_link_that_led_elsewhere_meanwhile_is_not_remembered(load: Load, given: str) -> None:
    kernel = load()
    for name, text in (("a", "A"), ("b", "B")):
        Path(name).mkdir()
        Path(name, "data.txt").write_text(text)
    Path("folder").mkdir()
    link, one, other, file, read_path = {
        "link": ("link", "a/data.txt", "b/data.txt", File("link"), "link"),
        "link to link": ("link", "a/data.txt", "b/data.txt", File("first"), "first"),
        "directory": ("link", "a", "b", Directory("link"), "link/data.txt"),
        "link in directory": ("folder/link", "../a/data.txt", "../b/data.txt", Directory("folder"), "folder/link"),
        "directory in directory": ("folder/link", "../a", "../b", Directory("folder"), "folder/link/data.txt"),
    }[given]
    if given == "link to link":
        Path("first").symlink_to("link")

    @flow.python_app(cache=True)
    def disturbed(file: Any) -> str:
        if Path("begun").exists():
            text = Path(read_path).read_text()
        else:
            Path("begun").touch()
            Path(link).replace("kept link")  # a link that is put back keeps its inode
            Path(link).symlink_to(other)
            text = Path(read_path).read_text()
            Path("kept link").replace(link)
        TOLD.info(text)
        return text

    Path(link).symlink_to(one)
    assert [result(disturbed(file)) for _ in range(3)] == ["B", "A", "A"]
    assert RUNS == ["B", "A"]
    assert "is not remembered, since it is not known that its files were" in log_of(kernel)


def test_followers_of_a_call_whose_file_changed_run_themselves(load: Load) -> None:
    load()

    Path("data.txt").write_text("A")
    first, second = waits(File("data.txt")), waits(File("data.txt"))
    assert BEGUN.wait(TIMEOUT_S)
    # At once: the second call may read it just now, and must not find it empty.
    Path("new.txt").write_text("B")
    Path("new.txt").replace("data.txt")
    GO.set()
    assert sorted([result(first), result(second)]) == ["A", "B"]  # whichever of them was the first to be looked at


def test_results_are_found_in_later_runs_as_long_as_files_hold_the_same(load: Load, tmp_path: Path) -> None:
    for text, mode, runs in (("A", "task_exit", 1), ("A", "dfk_exit", 1), ("B", "periodic", 2), ("A", "manual", 2)):
        Path("data.txt").write_text(text)
        earlier = sorted(str(path) for path in (tmp_path / "runinfo").glob("*/checkpoint"))
        with load(checkpoint_mode=mode, checkpoint_files=earlier):
            assert result(read(inputs=[File("data.txt")])) == text
        flow.clear()
        assert len(RUNS) == runs


def test_results_that_were_remembered_by_names_alone_are_not_taken_for_contents(load: Load, tmp_path: Path) -> None:
    Path("data.txt").write_text("A")

    def app(**options: Any) -> Any:
        def reads(file: Any) -> str:
            return Path(file).read_text()

        return flow.python_app(reads, cache=True, **options)  # type: ignore[call-overload]  # any options

    with load(checkpoint_mode="task_exit"):
        assert result(app(cache_files="names")(File("data.txt"))) == "A"
    flow.clear()
    Path("data.txt").write_text("B")
    earlier = [str(path) for path in (tmp_path / "runinfo").glob("*/checkpoint")]
    with load(checkpoint_files=earlier) as kernel:
        assert result(app()(File("data.txt"))) == "B"
        assert result(app(cache_files="names")(File("data.txt"))) == "A"
    assert "without the contents of their files" in log_of(kernel)


# -- what is read, and when


def _look(contents: Contents, path: Path) -> str:
    (version,) = contents.look([File(path)]).result(timeout=TIMEOUT_S)
    assert version is not None
    return version


def test_a_file_is_read_once_for_each_state_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read_paths, contents = tmp_path / "data", [], Contents()
    path.write_text("A")
    digest_of = contents_module._digest_of
    monkeypatch.setattr(
        contents_module, "_digest_of", lambda *given: (read_paths.append(given[0]), digest_of(*given))[1]
    )
    monkeypatch.setattr(contents_module, "_TICK_NS", -(10**12))  # as if it were long since it was written
    monkeypatch.setattr(contents_module, "_COARSE_NS", -(10**12))
    first = _look(contents, path)
    assert [_look(contents, path) for _ in range(5)] == [first] * 5
    assert len(read_paths) == 1
    path.touch()
    assert _look(contents, path).partition("\n")[0] == first.partition("\n")[0]
    assert len(read_paths) == 2
    contents.close()


def test_what_was_written_just_now_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second change within one tick of the file system's clock shows in nothing but the bytes."""
    path, contents, now = tmp_path / "data", Contents(), time.time_ns()
    path.write_text("A")
    monkeypatch.setattr(contents_module, "_TICK_NS", 10**12)
    monkeypatch.setattr(contents_module, "_COARSE_NS", 10**12)
    monkeypatch.setattr(contents_module.Stamp, "of", classmethod(lambda cls, status: cls(status.st_size, now, now, 7)))
    first = _look(contents, path)
    path.write_text("B")
    assert _look(contents, path) != first
    contents.close()


def test_large_files_are_known_by_size_and_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, contents = tmp_path / "data", Contents()
    monkeypatch.setattr(contents_module, "DIGESTED_BYTES", 10)
    monkeypatch.setattr(contents_module, "_digest_of", None)
    path.write_text("A" * 11)
    os.utime(path, ns=(5, 5))
    first = _look(contents, path)
    assert _look(contents, path) == first
    os.utime(path, ns=(6, 6))
    assert _look(contents, path) != first
    os.utime(path, ns=(5, 5))
    assert _look(contents, path).partition("\n")[0] == first.partition("\n")[0]
    contents.close()


def test_a_file_that_changes_all_the_while_is_like_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, contents = tmp_path / "data", Contents()
    path.write_text("A")
    monkeypatch.setattr(contents_module, "_digest_of", lambda *_given: "")
    assert _look(contents, path) != _look(contents, path)
    contents.close()


def test_a_file_that_cannot_be_read_is_like_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, contents = tmp_path / "data", Contents()
    path.write_text("A")

    def broken(*_given: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(contents_module, "_digest_of", broken)
    first = _look(contents, path)
    assert "Input/output error" in first
    assert _look(contents, path) != first
    contents.close()


def test_what_earlier_runs_knew_of_a_file_need_not_be_read_again(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_paths: list[str] = []
    digest_of = contents_module._digest_of
    monkeypatch.setattr(
        contents_module, "_digest_of", lambda path, stamp: (read_paths.append(path), digest_of(path, stamp))[1]
    )
    monkeypatch.setattr(contents_module, "_TICK_NS", -(10**12))  # as if it were long since they were written
    monkeypatch.setattr(contents_module, "_COARSE_NS", -(10**12))
    Path("folder").mkdir()
    paths = [Path("data.txt"), *(Path(f"folder/{number}") for number in range(3))]
    for path in paths:
        path.write_text("A")
    given = [File("data.txt"), Directory("folder")]
    runs: list[Path] = []
    for expected in (4, 0, 1, 0):
        with load(checkpoint_mode="task_exit", checkpoint_files=list(runs)) as kernel:
            result(read_all(given))
        flow.clear()
        runs.append(kernel.run_dir)
        assert len(read_paths) == expected
        read_paths.clear()
        if len(runs) == 2:
            paths[0].write_text("B")
    assert len(RUNS) == 2


def test_of_file_systems_that_know_whole_seconds_nothing_is_known_to_later_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, contents = tmp_path / "data", Contents()
    path.write_text("A")
    for ctime_ns, is_noted in ((1_000_000_001, True), (1_000_000_000, False)):
        of = classmethod(lambda cls, status, ctime_ns=ctime_ns: cls(status.st_size, 7, ctime_ns, 7))
        monkeypatch.setattr(contents_module.Stamp, "of", of)
        first = _look(contents, path)
        assert bool(stamp_of(first)) is is_noted
        assert _look(contents, path) == first
    contents.close()


def test_a_file_with_the_dates_of_before_and_another_content_is_read(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents_module, "_TICK_NS", -(10**12))
    monkeypatch.setattr(contents_module, "_COARSE_NS", -(10**12))
    runs: list[Path] = []
    for text in "AB":
        Path("data.txt").write_text(text)
        os.utime("data.txt", (1, 1))
        with load(checkpoint_mode="task_exit", checkpoint_files=list(runs)) as kernel:
            assert result(read(inputs=[File("data.txt")])) == text
        flow.clear()
        runs.append(kernel.run_dir)
    assert len(RUNS) == 2


def test_it_is_told_that_files_are_looked_at(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    begun, go = threading.Event(), threading.Event()
    digest_of = contents_module._digest_of

    def slow(path: str, stamp: contents_module.Stamp) -> str:
        begun.set()
        assert go.wait(TIMEOUT_S)
        return digest_of(path, stamp)

    monkeypatch.setattr(contents_module, "_digest_of", slow)
    for name in ("one", "two"):
        Path(name).write_text(name)
    future = read(inputs=[File("one"), File("two")])
    assert begun.wait(TIMEOUT_S)
    assert "it is looked what its files hold: one and 1 other file" in future.why().line
    go.set()
    assert result(future) == "onetwo"


class Elsewhere(Staging):
    """Brings files of which no version can be told."""

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "elsewhere"

    def stage(self, transfers: Sequence[Transfer]) -> Future[None]:
        for transfer in transfers:
            transfer.local_path.write_text("A")
        done: Future[None] = Future()
        done.set_result(None)
        return done


def test_where_no_version_can_be_told_names_alone_count(load: Load) -> None:
    executor = ThreadPoolExecutor("here", storage_access=[Elsewhere()])
    kernel = load(executor)
    assert [result(read(inputs=[File("elsewhere://host/a")])) for _ in range(2)] == ["A", "A"]
    assert result(read(inputs=[File("elsewhere://host/b")])) == "A"
    assert len(RUNS) == 2
    assert kernel.summary().memoized == 1


def test_what_was_remembered_by_names_alone_is_not_found_where_a_version_is_not_known(load: Load) -> None:
    load(ThreadPoolExecutor("here", storage_access=[Elsewhere()]))

    def app(**options: Any) -> Any:
        def reads(file: Any) -> str:
            TOLD.info(1)
            return Path(file).read_text()

        return flow.python_app(reads, cache=True, **options)  # type: ignore[call-overload]  # any options

    for options in ({"cache_files": "names"}, {}):
        assert result(app(**options)(File("elsewhere://host/a"))) == "A"
    assert len(RUNS) == 2
