"""Managers of one run on one node take large files from each other, and nothing from other runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pytest

from flow_executors.manager.file_cache import FileCache

VERSION, MODE = "1.2.3.4.5", 0o640
CONTENT = b"content of a file"


def cache_of(folder: Path, manager: str, run: str = "run", most: int = 1 << 20) -> FileCache:
    (folder / manager).mkdir()
    return FileCache(str(folder / manager / "cache"), most, run)


def keep(cache: FileCache, content: bytes = CONTENT, version: str = VERSION) -> str:
    part = cache.part()
    Path(part).write_bytes(content)
    return cache.keep(part, blake2b(content, digest_size=16).digest(), MODE, version)


def adopt(cache: FileCache, content: bytes = CONTENT, version: str = VERSION, mode: int = MODE) -> bytes | None:
    found = cache.adopt(version, mode, len(content))
    return None if found is None else Path(found).read_bytes()


def test_what_one_manager_has_another_takes_without_a_copy(tmp_path: Path) -> None:
    mine, other = cache_of(tmp_path, "node-1"), cache_of(tmp_path, "node-2")
    kept = keep(mine)
    found = other.adopt(VERSION, MODE, len(CONTENT))
    assert found is not None
    assert os.path.samefile(found, kept)
    assert other.find(VERSION, MODE) == found


def test_a_third_takes_it_from_the_second_when_the_first_is_gone(tmp_path: Path) -> None:
    first, second, third = (cache_of(tmp_path, f"node-{number}") for number in range(3))
    keep(first)
    assert adopt(second) == CONTENT
    for path in (tmp_path / "node-0" / "cache").iterdir():
        path.unlink()
    assert adopt(third) == CONTENT


@pytest.mark.parametrize("run", ["another", ""])
def test_nothing_is_taken_from_another_run(tmp_path: Path, run: str) -> None:
    keep(cache_of(tmp_path, "node-1"))
    assert adopt(cache_of(tmp_path, "node-2", run)) is None


def test_other_versions_modes_and_sizes_are_not_taken(tmp_path: Path) -> None:
    mine, other = cache_of(tmp_path, "node-1"), cache_of(tmp_path, "node-2")
    keep(mine)
    assert adopt(other, version="1.2.3.4.6") is None
    assert adopt(other, version="") is None
    assert adopt(other, mode=0o600) is None
    assert adopt(other, content=b"short") is None


def test_what_a_task_has_written_into_is_not_taken(tmp_path: Path) -> None:
    mine, other = cache_of(tmp_path, "node-1"), cache_of(tmp_path, "node-2")
    kept = keep(mine)
    changed = os.stat(kept).st_mtime_ns
    os.chmod(kept, 0o600)
    Path(kept).write_bytes(CONTENT[::-1])
    os.utime(kept, ns=(changed + 1, changed + 1))
    assert adopt(other) is None
    assert [path.name for path in (tmp_path / "node-2" / "cache").iterdir()] == []


def test_what_is_taken_counts_for_the_bound(tmp_path: Path) -> None:
    mine, other = cache_of(tmp_path, "node-1"), cache_of(tmp_path, "node-2", most=2 * len(CONTENT))
    contents = {f"1.{number}": bytes([number]) * len(CONTENT) for number in range(3)}
    for version, content in contents.items():
        keep(mine, content, version)
        assert adopt(other, content, version) == content
    assert other.find("1.0", MODE) is None
    assert other.find("1.2", MODE) is not None
    assert mine.find("1.0", MODE) is not None


@pytest.mark.parametrize("told", ["../../secret/17/1", "x", "a" * 32 + "-640", "a" * 32 + "-640/17/1"])
def test_a_record_that_names_no_file_of_a_cache_is_passed_over(tmp_path: Path, told: str) -> None:
    mine, other = cache_of(tmp_path, "node-1"), cache_of(tmp_path, "node-2")
    keep(mine)
    (record,) = (tmp_path / "node-1" / "cache").glob("v-*")
    record.unlink()
    record.symlink_to(told)
    (tmp_path / "secret").write_bytes(CONTENT)
    assert adopt(other) is None


def test_of_several_managers_one_brings_a_file(tmp_path: Path) -> None:
    first, second = cache_of(tmp_path, "node-1"), cache_of(tmp_path, "node-2")
    assert first.claim(VERSION, MODE)
    assert first.claim(VERSION, MODE)
    assert not second.claim(VERSION, MODE)
    assert second.claim("another", MODE)
    keep(first)
    first.release(VERSION, MODE)
    assert second.claim(VERSION, MODE)


def test_two_that_claim_at_once_do_not_both_bring_it(tmp_path: Path) -> None:
    first, second = cache_of(tmp_path, "node-1"), cache_of(tmp_path, "node-2")
    others, both = first._others, []

    def in_between() -> Iterator[str]:
        both.append(second.claim(VERSION, MODE))  # after the first has made its claim, before it has looked
        return others()

    first._others = in_between  # type: ignore[method-assign]
    both.append(first.claim(VERSION, MODE))
    assert sum(both) <= 1


def test_the_claim_of_a_manager_that_was_killed_counts_no_more(tmp_path: Path) -> None:
    first, second = cache_of(tmp_path, "node-1"), cache_of(tmp_path, "node-2")
    assert first.claim(VERSION, MODE)
    for lock in first._claims.values():
        os.close(lock)  # as the kernel does
    assert second.claim(VERSION, MODE)


def test_claims_of_other_runs_are_of_no_matter(tmp_path: Path) -> None:
    first, second = cache_of(tmp_path, "node-1"), cache_of(tmp_path, "node-2", "another")
    assert first.claim(VERSION, MODE)
    assert second.claim(VERSION, MODE)
