"""Places of files on nodes: below the working directory, however that is written, and never outside by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow_core.errors import StagingError
from flow_core.files import File
from flow_core.interfaces.call import NodeContext
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging.transfer.method import on_node

IN, OUT = Direction.IN, Direction.OUT


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a link that leads out, one that stays, and a directory beside it."""
    for name in ("wd/inside", "beside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "wd/out").symlink_to(tmp_path / "beside")
    (tmp_path / "wd/in").symlink_to(tmp_path / "wd/inside")
    (tmp_path / "to-wd").symlink_to(tmp_path / "wd")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def placed(path: str, root: str, direction: Direction = IN) -> Path:
    transfer = Transfer(File("http://h/x"), Path(path), direction, 7, "here")
    return on_node(transfer, NodeContext(executor="here", working_dir=root)).local_path


@pytest.mark.parametrize("root", ["wd", "./wd", "to-wd", "wd/../wd"])
@pytest.mark.parametrize("direction", [IN, OUT])
@pytest.mark.parametrize("path", ["x", "new/x", "in/x", "inside/../x"])
def test_what_is_below_stays_below(here: Path, root: str, direction: Direction, path: str) -> None:
    for base in (root, str(here / root)):
        assert placed(path, base, direction) == Path(base, path)


@pytest.mark.parametrize("root", ["wd", "to-wd"])
@pytest.mark.parametrize("path", ["out/x", "../x", "../wd-too/x", "inside/../../x", "out"])
def test_what_leads_out_by_links_or_dots_is_refused(here: Path, root: str, path: str) -> None:
    for base in (root, str(here / root)):
        with pytest.raises(StagingError, match="leads out of the working directory"):
            placed(path, base, OUT)
        if path != "out":
            with pytest.raises(StagingError, match="leads out of the working directory"):
                placed(path, base, IN)


def test_a_file_that_comes_in_replaces_a_link_that_leads_out() -> None:
    assert placed("out", "wd", IN) == Path("wd/out")


def test_a_path_outside_that_the_user_chose_is_meant(here: Path) -> None:
    assert placed(str(here / "beside/x"), "wd") == here / "beside/x"


def test_the_root_of_all_files_is_a_working_directory(here: Path) -> None:
    assert placed("/x", "/") == Path("/x")
    assert placed("x", "/") == Path("/x")
    assert placed("tmp/x", "/", OUT) == Path("/tmp/x")
