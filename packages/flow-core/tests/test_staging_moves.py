"""Transfers on the submit side: one future a task, told of one by one, so many at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import StagingError
from flow_core.files import File
from flow_core.interfaces.staging import Digests, Direction, Staging, Transfer
from flow_core.staging.moves import Moves, Work


class Web(Staging):
    """Leaves it to the test to end the transfers."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def stage(self, transfers: Sequence[Transfer]) -> Future[Digests] | None:
        self.futures.append(Future())
        return self.futures[-1]


def coming(method: Staging, path: Path, *urls: str) -> Work:
    return [(method, [Transfer(File(url), path / File(url).filename, Direction.IN, 7, "here") for url in urls])]


def test_a_failed_transfer_names_files_and_method(tmp_path: Path) -> None:
    web = Web()
    moved = Moves(10).start(coming(web, tmp_path, "http://h/a"))
    web.futures[0].set_exception(OSError("disk full"))
    with pytest.raises(
        StagingError, match="task 7 on executor here: Web could not bring in http://h/a: OSError: disk full"
    ) as caught:
        moved.result(10)
    assert caught.value.url == "http://h/a"
    assert isinstance(caught.value.__cause__, OSError)


def test_a_failed_transfer_shows_no_password(tmp_path: Path) -> None:
    web, moves = Web(), Moves(10)
    moved = moves.start(coming(web, tmp_path, "ftp://me:secret@h/a"))
    web.futures[0].set_exception(OSError("no answer from ftp://me:secret@h/a"))
    error = moved.exception(10)
    assert isinstance(error, StagingError)
    assert str(error).count("ftp://me:***@h/a") == 2
    assert "secret" not in f"{error} {error.url}"
    moves.close()
    assert "secret" not in str(moves.start(coming(web, tmp_path, "ftp://me:secret@h/a")).exception(10))


def test_each_file_that_was_moved_or_was_not_is_told_of_with_what_was_learnt(tmp_path: Path) -> None:
    told: list[tuple[str, str, str]] = []
    moves = Moves(10, lambda transfer, digest, error: told.append((transfer.file.url, digest, type(error).__name__)))
    web = Web()
    for number in range(5):
        moves.start(coming(web, tmp_path, f"http://h/{number}", f"http://h/{number}b"))
    web.futures[0].set_result(None)
    web.futures[1].set_exception(OSError("disk full"))
    web.futures[2].set_result(["ab", ""])
    web.futures[3].set_result(["one digest", "for each", "is wanted"])
    web.futures[4].set_result("xy")
    assert told == [
        ("http://h/0", "", "NoneType"),
        ("http://h/0b", "", "NoneType"),
        ("http://h/1", "", "StagingError"),
        ("http://h/1b", "", "StagingError"),
        ("http://h/2", "ab", "NoneType"),
        ("http://h/2b", "", "NoneType"),
        ("http://h/3", "", "NoneType"),
        ("http://h/3b", "", "NoneType"),
        ("http://h/4", "", "NoneType"),
        ("http://h/4b", "", "NoneType"),
    ]


def test_an_error_of_the_method_itself_comes_over_as_it_is(tmp_path: Path) -> None:
    web = Web()
    moved = Moves(10).start(coming(web, tmp_path, "http://h/a"))
    web.futures[0].set_exception(StagingError("404", "http://h/a"))
    assert str(moved.exception(10)) == "404"


def test_a_method_that_raises_at_once_fails_the_task_not_the_kernel(tmp_path: Path) -> None:
    class Raising(Staging):
        def stage(self, transfers: Sequence[Transfer]) -> Future[None] | None:
            raise RuntimeError("broken")

    moved = Moves(10).start(coming(Raising(), tmp_path, "http://h/a"))
    assert isinstance(moved.exception(10), StagingError)


def test_only_so_many_tasks_move_files_at_once_and_the_others_in_turn(tmp_path: Path) -> None:
    web, moves = Web(), Moves(2)
    moved = [moves.start(coming(web, tmp_path, f"http://h/{number}")) for number in range(5)]
    assert len(web.futures) == 2
    web.futures[1].set_result(None)
    assert (len(web.futures), [future.done() for future in moved]) == (3, [False, True, False, False, False])
    web.futures[0].set_exception(OSError("gone"))
    web.futures[2].set_result(None)
    for future in web.futures[3:]:
        future.set_result(None)
    assert len(web.futures) == 5
    assert [future.exception(10) is None for future in moved] == [False, True, True, True, True]


def test_thousands_that_end_at_once_do_not_nest(tmp_path: Path) -> None:
    class AtOnce(Web):
        def stage(self, transfers: Sequence[Transfer]) -> Future[Digests] | None:
            return None if transfers[0].file.filename != "0" else super().stage(transfers)

    web, moves = AtOnce(), Moves(1)
    moved = [moves.start(coming(web, tmp_path, f"http://h/{number}")) for number in range(3000)]
    assert not any(future.done() for future in moved)
    web.futures[0].set_result(None)
    assert all(future.done() for future in moved)


def test_what_has_no_turn_before_the_end_fails_with_its_name(tmp_path: Path) -> None:
    web, moves = Web(), Moves(1)
    first, second = (moves.start(coming(web, tmp_path, f"http://h/{number}")) for number in range(2))
    moves.close()
    assert not first.done()
    with pytest.raises(StagingError, match="http://h/1 was not moved"):
        second.result(10)
    web.futures[0].set_result(None)
    assert first.result(10) is None
    with pytest.raises(StagingError, match="the run ended"):
        moves.start(coming(web, tmp_path, "http://h/2")).result(10)
