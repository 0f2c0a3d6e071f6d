"""Progress of files by connection, of the bytes of a transfer that were taken."""

from __future__ import annotations

from hypothesis import given, strategies as st

from flow_core.interfaces.call import FileMoved, FileProgress
from flow_core.remote.script_files import ScriptFile
from flow_executors.client.moved_files_core import EVERY_S, MovedFiles
from flow_executors.wire.files import Entry

FILES = (ScriptFile("data/a", "/p/data/a"), ScriptFile("ftp://me:secret@h/b", "/p/b"), ScriptFile("c", "/p/c"))


def moved_of(*sent: tuple[int, int, int]) -> MovedFiles:
    """Return what moves, for each entry its file, size and offset."""
    entries = [Entry(file, "", "f", size) for file, size, _ in sent]
    moved = MovedFiles(FILES, "in", 10.0)
    moved.listed(entries)
    for entry, (_, _, offset) in zip(entries, sent, strict=True):
        moved.sent(entry, offset)
    return moved


def test_the_file_that_moves_is_told_with_what_is_there_of_it_and_its_speed() -> None:
    moved = moved_of((0, 100, 0), (1, 1000, 0))
    assert moved.progress(60, 20.0) == [FileProgress("data/a", "in", 60, 100, 6.0, 10.0)]
    assert moved.progress(600, 30.0) == [FileProgress("ftp://me:***@h/b", "in", 500, 1000, 54.0, 20.0)]


def test_what_was_there_after_a_break_counts() -> None:
    assert moved_of((0, 1000, 400)).progress(100, 20.0)[0].moved == 500


def test_members_of_a_directory_are_one_file() -> None:
    assert moved_of((2, 100, 0), (2, 300, 0)).progress(250, 20.0) == [FileProgress("c", "in", 250, 400, 25.0, 10.0)]


def test_reports_are_due_every_few_seconds() -> None:
    moved = moved_of((0, 100, 0))
    assert [moved.due(10.0 + EVERY_S - 1), moved.due(10.0 + EVERY_S)] == [False, True]
    moved.progress(1, 10.0 + EVERY_S)
    assert not moved.due(11.0 + EVERY_S)


def test_all_that_was_listed_was_moved_in_the_end() -> None:
    moved = moved_of((0, 100, 0), (2, 5, 0), (2, 6, 0))
    assert moved.moved() == [FileMoved("data/a", "in", "/p/data/a", 100), FileMoved("c", "in", "/p/c", 11)]


def test_the_file_that_failed_is_told() -> None:
    moved = moved_of((0, 100, 0), (2, 5, 0))
    assert moved.failed("full", "c") == [FileMoved("c", "in", "/p/c", -1, "full")]
    assert moved.failed("full", "") == [FileMoved("data/a", "in", "/p/data/a", -1, "full")]
    assert MovedFiles(FILES, "in", 0.0).failed("full", "") == []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50), st.integers(0, 50))), st.integers(0, 5000))
def test_what_is_told_never_exceeds_the_file(sent: list[tuple[int, int, int]], taken: int) -> None:
    for one in moved_of(*((file, size, min(size, offset)) for file, size, offset in sent)).progress(taken, 20.0):
        assert 0 <= one.moved <= one.total
