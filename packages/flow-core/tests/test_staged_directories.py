"""Directories of tasks: whose they are on the disk, and when they are removed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import flow_core as flow
from flow_core.errors import AppException
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import File
from flow_core.interfaces.call import NodeContext
from flow_core.interfaces.staging import Staging
from flow_core.remote.staged import (
    OwnDirectory,
    claim,
    claim_alone,
    home_of,
    of_a_task,
    release_of_another,
    remove,
    reserved,
    sweep,
)
from flow_core.staging.places import StagedPaths


def test_files_of_tasks_belong_to_the_directory_of_the_reserved_one() -> None:
    assert home_of(Path(reserved("/wd"), "token", "7", "a")) == Path("/wd")
    assert home_of(Path(reserved(""), "token-7", "a")) == Path()
    assert home_of(Path("/wd/a")) == Path("/wd")
    assert of_a_task(Path(reserved("/wd"), "token", "7", "a"))
    assert not of_a_task("/wd/a.flow-staged-0")


def test_a_directory_belongs_to_one_until_it_is_released(tmp_path: Path) -> None:
    path = os.path.join(reserved(str(tmp_path)), "one")
    own = claim(path)
    Path(path, "file").write_text("mine")
    with pytest.raises(FileExistsError):
        claim(path)
    sweep(os.path.dirname(path))
    assert Path(path, "file").read_text() == "mine"
    own.release()
    own.release()
    assert list(tmp_path.iterdir()) == []


def test_directories_that_were_made_for_one_go_with_the_last_and_those_that_were_there_stay(tmp_path: Path) -> None:
    folder = reserved(str(tmp_path / "made" / "work"))
    first, second = (claim_alone(os.path.join(folder, name)) for name in ("a", "b"))
    first.release()
    assert os.listdir(folder) == ["b", "b.lock"]
    second.release()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    claim_alone(os.path.join(reserved(str(tmp_path / "there")), "a")).release()
    assert list((tmp_path / "there").iterdir()) == []


def test_a_directory_that_was_made_for_one_stays_where_somebody_has_put_something_into_it(tmp_path: Path) -> None:
    work = tmp_path / "work"
    own = claim_alone(os.path.join(reserved(str(work)), "a"))
    (work / "mine").write_text("")
    own.release()
    assert os.listdir(work) == ["mine"]


def test_directories_that_a_killed_process_made_are_removed_by_who_ends_its_claim(tmp_path: Path) -> None:
    path = os.path.join(reserved(str(tmp_path / "work")), "a")
    code = f"import os; from flow_core.remote.staged import claim_alone; own = claim_alone({path!r}); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 9
    release_of_another(path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    folder = reserved(str(tmp_path))
    code = (
        "import os, pathlib, sys; from flow_core.remote.staged import claim\n"
        "for name in ('a', 'b'):\n"
        f"    own = claim(os.path.join({folder!r}, name)); (pathlib.Path(own.path) / 'half').write_text('')\n"
        "os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 9
    assert sorted(os.listdir(folder)) == ["a", "a.lock", "b", "b.lock"]
    again = claim(os.path.join(folder, "a"))  # the same name: another try, taken up elsewhere
    assert sorted(os.listdir(folder)) == ["a", "a.lock"]
    assert os.listdir(again.path) == []
    again.release()


def test_what_is_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    folder = Path(reserved(str(tmp_path)))
    (folder / "far").mkdir(parents=True)
    (folder / "far.lock").write_text("another.example.org")
    sweep(str(folder))
    assert sorted(os.listdir(folder)) == ["far", "far.lock"]


def test_a_try_on_a_node_has_a_directory_and_takes_it_away(tmp_path: Path) -> None:
    path = os.path.join(reserved(str(tmp_path)), "token-7")

    def body() -> list[str]:
        with pytest.raises(AppException, match="another try"):
            OwnDirectory(path).run(lambda: None, NodeContext())
        return os.listdir(path)

    assert OwnDirectory(path).run(body, NodeContext()) == []
    with pytest.raises(ZeroDivisionError):
        OwnDirectory(path).run(lambda: 1 / 0, NodeContext())
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "wd").write_text("no directory")
    path = os.path.join(reserved(str(tmp_path / "wd")), "token-7")
    with pytest.raises(AppException, match=r"wd/.*token-7.*working_dir"):
        OwnDirectory(path).run(lambda: None, NodeContext(node="here"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["try", "end"]), st.integers(0, 3)), max_size=30))
def test_only_the_last_try_of_a_task_that_lives_has_files(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]]
) -> None:
    home = tmp_path_factory.mktemp("home")
    places, live, over = StagedPaths(home), dict[int, Path](), set[int]()
    for event, task in events:
        if task in over:
            continue
        if event == "try":
            folder = Path(places.begin(task).here(None))
            assert not folder.exists()
            folder.mkdir()
            live[task] = folder
        else:
            places.ended(task)
            live.pop(task, None)
            over.add(task)
    places._file_work.close()
    assert sorted(home.glob(".flow-staged-*/*/*")) == sorted(live.values())
    places.close()
    assert list(home.iterdir()) == []


def test_a_directory_that_a_result_names_stays_for_the_run(tmp_path: Path) -> None:
    places = StagedPaths(tmp_path)
    kinds: list[Callable[[Path], object]] = [str, Path, lambda path: File("http://h/a", local_path=path)]
    for number, kind in enumerate([*kinds, *kinds]):
        folder = Path(places.begin(number).here(None))
        folder.mkdir()
        value = kind(folder / "a")
        places.ended(number, value if number < len(kinds) else {"k": [1, (value,)]})
        places._file_work.close()
        assert folder.exists()
    places.close()
    assert list(tmp_path.iterdir()) == []


def test_directories_go_with_their_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Copies(Staging):
        def can_stage_in(self, file: File) -> bool:
            return file.scheme == "mine"

        def stage(self, transfers: Any) -> None:
            for transfer in transfers:
                transfer.local_path.write_text(transfer.file.url)

    @flow.python_app
    def read(file: Any) -> str:
        return Path(file).read_text()

    @flow.python_app
    def where(file: Any) -> str:
        return str(file)

    executor = ThreadPoolExecutor(storage_access=[Copies()], working_dir="wd")
    with flow.load(flow.Config(executors=[executor])) as kernel:
        assert [read(File(f"mine://h/{n}")).result(30) for n in range(3)] == [f"mine://h/{n}" for n in range(3)]
        place = where(File("mine://h/x")).result(30)
        kernel.staging.places._file_work.close()
        assert list((tmp_path / "wd").glob(".flow-staged-*/*/*")) == [Path(place).absolute().parent]
        assert Path(place).read_text() == "mine://h/x"
    assert list(Path("wd").iterdir()) == []


def test_a_directory_is_removed_with_all_that_is_in_it_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "deep").mkdir(parents=True)
    (kept / "deep" / "file").write_text("kept")
    flat, deep, link = tmp_path / "flat", tmp_path / "deep", tmp_path / "link"
    flat.mkdir()
    for name in ("a", "b\n", ".c"):
        (flat / name).write_text("x")
    (flat / "link").symlink_to(kept)
    (deep / "er").mkdir(parents=True)
    (deep / "er" / "file").write_text("x")
    (deep / "link").symlink_to(kept)
    link.symlink_to(kept)
    for path in (flat, deep, link, tmp_path / "none"):
        remove(str(path))
    assert not flat.exists()
    assert not deep.exists()
    assert (kept / "deep" / "file").read_text() == "kept"


def test_what_a_killed_run_left_in_its_own_directory_is_removed_by_the_next_run(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal; from flow_core.staging.places import StagedPaths\n"
        "root = StagedPaths(pathlib.Path('runinfo', '000')).root(None)\n"
        "pathlib.Path(root, 'file').write_text('left')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60).returncode == -9
    killed = Path(reserved(str(tmp_path / "runinfo" / "000")))
    assert list(killed.glob("*/file"))
    lives = StagedPaths(tmp_path / "runinfo" / "001")
    kept = Path(lives.root(None))
    after = StagedPaths(tmp_path / "runinfo" / "002")
    after.root(None)
    after.close()
    lives._file_work.close()  # which of the two runs removes it is a matter of moments
    assert not killed.exists()
    assert kept.exists()
    lives.close()
    assert not Path(reserved(str(tmp_path / "runinfo" / "001"))).exists()
