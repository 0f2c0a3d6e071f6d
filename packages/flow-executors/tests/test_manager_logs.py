"""Logs of workers: cut in their middle where they are too long; what has no room is no failure of who prints."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings, strategies as st

from flow_executors.manager.log_cap import LogCap
from flow_executors.worker.prints import opened

MOST = 16 << 10


def write(path: Path, first: int, count: int) -> None:
    """Add numbered lines as a worker does: the file is open for appending all the while."""
    with open(path, "a") as file:
        file.writelines(f"line {number}\n" for number in range(first, first + count))


def test_a_log_that_is_too_long_keeps_its_begin_and_its_end(tmp_path: Path) -> None:
    path = tmp_path / "worker_0.log"
    write(path, 0, 10_000)
    size = path.stat().st_size
    LogCap([str(path)], MOST).look()
    lines = path.read_text().splitlines()
    assert path.stat().st_size <= MOST
    assert (lines[0], lines[-1]) == ("line 0", "line 9999")
    (notice,) = [line for line in lines if line.startswith("...")]
    kept = sum(len(line) + 1 for line in lines if line.startswith("line"))
    assert notice == f"... {size - kept} bytes were cut here (max_worker_log_bytes={MOST}) ..."


def test_a_log_is_cut_again_and_the_line_between_tells_of_all_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "worker_0.log"
    cap, fd = LogCap([str(path)], MOST), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for turn in range(5):
        for number in range(2000):
            os.write(fd, b"line %d\n" % (2000 * turn + number))
        cap.look()
    os.write(fd, b"the last\n")
    os.close(fd)
    lines = path.read_text().splitlines()
    assert (lines[0], lines[-2], lines[-1]) == ("line 0", "line 9999", "the last")
    assert sum(line.startswith("...") for line in lines) == 1


@settings(max_examples=30)
@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=5), st.booleans())
def test_no_log_stays_above_the_cap(tmp_path_factory, sizes: list[int], with_lines: bool) -> None:
    path = tmp_path_factory.mktemp("logs") / "worker_0.log"
    path.touch()
    cap = LogCap([str(path)], MOST)
    for size in sizes:
        with open(path, "ab") as file:
            file.write((b"x\n" if with_lines else b"xx") * (size // 2))
        cap.look()
        assert path.stat().st_size <= MOST


def test_a_log_that_is_not_there_is_none_to_cut(tmp_path: Path) -> None:
    LogCap([str(tmp_path / "none")], MOST).look()


def test_prints_that_find_no_room_do_no_harm() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    stream = opened(fd)
    for _ in range(3):
        print("x" * 100, file=stream)
    os.close(fd)


def test_what_found_no_room_is_counted_where_there_is_some_again(tmp_path: Path) -> None:
    full, path = os.open("/dev/full", os.O_WRONLY), tmp_path / "log"
    fd = os.dup(full)
    stream = opened(fd)
    print("lost", file=stream)
    there = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.dup2(there, fd)
    print("kept", file=stream)
    assert path.read_text() == "... 5 bytes could not be written here (No space left on device) ...\nkept\n"
    for one in (full, fd, there):
        os.close(one)
