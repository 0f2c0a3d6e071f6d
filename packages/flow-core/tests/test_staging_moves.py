"""Transfers on the submit side: one future a task, told of one by one, so many at once."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import AppTimeout, HookError, StagingError
from flow_core.files import File
from flow_core.interfaces.staging import Digests, Direction, Progress, Staging, StagingFuture, Transfer
from flow_core.staging.transfer_queue import TransferQueue, Work


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
    moved = TransferQueue(10).start(coming(web, tmp_path, "http://h/a"))
    web.futures[0].set_exception(OSError("disk full"))
    with pytest.raises(
        StagingError, match="task 7 on executor here: Web could not bring in http://h/a: OSError: disk full"
    ) as caught:
        moved.result(10)
    assert caught.value.url == "http://h/a"
    assert isinstance(caught.value.__cause__, OSError)


def test_a_failed_transfer_shows_no_password(tmp_path: Path) -> None:
    web, moves = Web(), TransferQueue(10)
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
    moves = TransferQueue(
        10, lambda transfer, digest, error: told.append((transfer.file.url, digest, type(error).__name__))
    )
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
    moved = TransferQueue(10).start(coming(web, tmp_path, "http://h/a"))
    web.futures[0].set_exception(StagingError("404", "http://h/a"))
    assert str(moved.exception(10)) == "404"


def test_a_method_that_raises_at_once_fails_the_task_not_the_kernel(tmp_path: Path) -> None:
    class Raising(Staging):
        def stage(self, transfers: Sequence[Transfer]) -> Future[None] | None:
            raise RuntimeError("broken")

    moved = TransferQueue(10).start(coming(Raising(), tmp_path, "http://h/a"))
    assert isinstance(moved.exception(10), StagingError)


def test_a_method_that_does_not_come_back_fails_its_task_and_frees_its_turn(tmp_path: Path) -> None:
    release, stopped, begun = threading.Event(), threading.Event(), threading.Semaphore(0)
    late: Future[Digests] = Future()
    late.add_done_callback(lambda _: stopped.set())

    class Hanging(Web):
        def stage(self, transfers: Sequence[Transfer]) -> Future[Digests] | None:
            if transfers[0].file.filename != "0":
                given = super().stage(transfers)
                begun.release()
                return given
            release.wait(20)
            return late

    web, moves = Hanging(), TransferQueue(1, apart=True, hook_timeout_s=0.05)
    first = moves.start([*coming(web, tmp_path, "http://h/0"), *coming(web, tmp_path, "http://h/1")], who="task 3 (f)")
    second = moves.start(coming(web, tmp_path, "http://h/2", "http://h/3"))
    with pytest.raises(
        HookError, match=r"^task 3 .*Hanging.stage.* has not returned for 0.05 s .*, in .*Hanging.stage"
    ):
        first.result(10)
    assert begun.acquire(timeout=10)  # the next one has its turn
    web.futures[0].set_result(None)
    assert second.result(10) is None
    release.set()
    assert stopped.wait(10)
    assert late.cancelled()
    assert len(web.futures) == 1


def test_only_so_many_tasks_move_files_at_once_and_the_others_in_turn(tmp_path: Path) -> None:
    web, moves = Web(), TransferQueue(2)
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


@pytest.mark.parametrize(("said", "begun"), [(None, 10), (30, 32), (0, 10), ("many", 10), (True, 10)])
def test_without_a_limit_a_method_is_given_as_much_as_it_moves_at_once_and_some_more(
    tmp_path: Path, said: Any, begun: int
) -> None:
    web, moves = Web(), TransferQueue(None)
    web.at_once = said
    for number in range(50):
        moves.start(coming(web, tmp_path, f"http://h/{number}"))
    assert len(web.futures) == begun
    moves.close()


def test_a_method_that_would_move_more_at_once_keeps_to_a_limit_that_is_given(tmp_path: Path) -> None:
    web, moves = Web(), TransferQueue(3)
    web.at_once = 30
    for number in range(5):
        moves.start(coming(web, tmp_path, f"http://h/{number}"))
    assert len(web.futures) == 3
    moves.close()


def test_files_of_one_task_that_two_methods_move_are_bound_by_the_one_that_moves_fewer(tmp_path: Path) -> None:
    many, few, moves = Web(), Web(), TransferQueue(None)
    many.at_once, few.at_once = 30, 1
    for number in range(9):
        moves.start(coming(many, tmp_path, f"http://h/{number}") + coming(few, tmp_path, f"http://h/{number}.more"))
    assert (len(many.futures), len(few.futures)) == (3, 3)
    moves.close()


def test_thousands_that_end_at_once_do_not_nest(tmp_path: Path) -> None:
    class AtOnce(Web):
        def stage(self, transfers: Sequence[Transfer]) -> Future[Digests] | None:
            return None if transfers[0].file.filename != "0" else super().stage(transfers)

    web, moves = AtOnce(), TransferQueue(1)
    moved = [moves.start(coming(web, tmp_path, f"http://h/{number}")) for number in range(3000)]
    assert not any(future.done() for future in moved)
    web.futures[0].set_result(None)
    assert all(future.done() for future in moved)


def test_at_the_end_what_goes_on_is_stopped_and_what_has_had_no_turn_fails_with_its_name(tmp_path: Path) -> None:
    web, moves = Web(), TransferQueue(1)
    first, second = (moves.start(coming(web, tmp_path, f"http://h/{number}")) for number in range(2))
    moves.close()
    with pytest.raises(StagingError, match="http://h/0 was not moved: it was stopped"):
        first.result(10)
    with pytest.raises(StagingError, match="http://h/1 was not moved: the run ended before its turn"):
        second.result(10)
    assert web.futures[0].cancelled()
    with pytest.raises(StagingError, match="the run ended"):
        moves.start(coming(web, tmp_path, "http://h/2")).result(10)


def task(method: Staging, path: Path, task_id: int, url: str) -> Work:
    return [(method, [Transfer(File(url), path / "x", Direction.IN, task_id, "here")])]


def test_a_host_that_is_slow_takes_no_turns_of_others(tmp_path: Path) -> None:
    web, moves = Web(), TransferQueue(2)
    for number in range(5):
        moves.start(task(web, tmp_path, number, "http://me:pw@slow/a" if number % 2 else "http://slow/a"))
    assert len(web.futures) == 2
    other = moves.start(task(web, tmp_path, 7, "http://other/a"))
    web.futures[2].set_result(None)
    assert other.result(10) is None
    assert len(web.futures) == 3


def test_the_files_of_a_cancelled_task_are_stopped_or_never_begun(tmp_path: Path) -> None:
    web, moves = Web(), TransferQueue(1)
    futures = [moves.start(task(web, tmp_path, number, "http://h/a")) for number in range(3)]
    moves.cancel(1)
    assert not futures[1].done()
    moves.cancel(0)
    assert web.futures[0].cancelled()
    with pytest.raises(StagingError, match="task 0: http://h/a was not moved: it was stopped"):
        futures[0].result(10)
    assert isinstance(futures[1].exception(10), StagingError)
    assert len(web.futures) == 2, "the second was never begun, the third was"
    web.futures[1].set_result(None)
    assert futures[2].result(10) is None
    moves.cancel(2)  # it has ended
    assert moves.all() == []


def test_a_walltime_counts_from_the_turn_and_names_what_was_not_there_yet(tmp_path: Path) -> None:
    class Far(StagingFuture):
        def progress(self) -> Sequence[Progress | None]:
            return [Progress(10, 1000, 2.0)]

    class Telling(Web):
        def stage(self, transfers: Sequence[Transfer]) -> Future[Digests] | None:
            self.futures.append(Far())
            return self.futures[-1]

    web, moves = Telling(), TransferQueue(1)
    first = moves.start(task(web, tmp_path, 0, "http://h/a"))
    late = moves.start(task(web, tmp_path, 1, "http://h/b"), 0.01, "task 1 (app)")
    with pytest.raises(concurrent.futures.TimeoutError):
        late.result(0.1)
    web.futures[0].set_result(None)
    assert first.result(10) is None
    told = r"task 1 \(app\): its files were not brought in within its walltime of 0.01 s: http://h/b \(10 of 1,000 "
    with pytest.raises(AppTimeout, match=told) as caught:
        late.result(10)
    assert caught.value.walltime_s == 0.01
    deadline = time.monotonic() + 10
    while not web.futures[1].cancelled():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert moves.all() == []


def test_what_a_walltime_has_ended_keeps_its_turn_until_it_has_let_go(tmp_path: Path) -> None:
    class Deaf(Future[Any]):
        def cancel(self) -> bool:
            return False

    class Stuck(Web):
        def stage(self, transfers: Sequence[Transfer]) -> Future[Digests] | None:
            self.futures.append(Deaf())
            return self.futures[-1]

    web, moves = Stuck(), TransferQueue(1)
    assert isinstance(moves.start(task(web, tmp_path, 0, "http://h/a"), 0.01, "task 0 (app)").exception(10), AppTimeout)
    moves.start(task(web, tmp_path, 1, "http://h/b"))
    assert len(web.futures) == 1
    web.futures[0].set_result(None)
    assert len(web.futures) == 2


@pytest.mark.parametrize("answer", [None, 3, (), [1], [None, None]])
def test_a_method_that_tells_nonsense_of_its_progress_is_not_listened_to(tmp_path: Path, answer: Any) -> None:
    class Odd(StagingFuture):
        def progress(self) -> Sequence[Progress | None]:
            return answer  # type: ignore[no-any-return]  # whatever it is

    class Telling(Web):
        def stage(self, transfers: Sequence[Transfer]) -> Future[Digests] | None:
            return Odd()

    moves = TransferQueue(1)
    moves.start(task(Telling(), tmp_path, 0, "http://h/a"))
    assert [moving.progress for moving in moves.all()] == [None]
