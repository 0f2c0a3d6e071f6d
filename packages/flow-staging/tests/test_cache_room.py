"""The bounds of a cache hold, and looking what is there takes little of the time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_staging.transfer import cache_room
from flow_staging.transfer.cache_room import Kept, Room, contents


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The looks at directories."""
    seen: list[Path] = []

    def noted(root: Path) -> Iterator[Kept]:
        seen.append(root)
        return contents(root)

    monkeypatch.setattr(cache_room, "contents", noted)
    return seen


def test_a_cache_with_much_room_is_seldom_looked_at(tmp_path: Path, looks: list[Path]) -> None:
    room = Room(tmp_path, max_bytes=64 << 30, max_files=64_000)
    for number in range(5_000):
        room.added(4096, but=f"{number:032x}")
    assert len(looks) <= 2


def test_a_cache_that_is_nearly_full_is_looked_at_more_often(tmp_path: Path, looks: list[Path]) -> None:
    for number in range(640):
        (tmp_path / f"{number:032x}.data").touch()
    room = Room(tmp_path, max_bytes=1 << 30, max_files=640)
    for _ in range(100):
        room.added(1, but="0")
        assert sum(1 for _ in contents(tmp_path)) <= 640
    assert len(looks) >= 2


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_process_adds_unseen_no_more_than_a_share(most: int, there: int) -> None:
    unseen = cache_room._unseen(most, there)
    assert most // 64 <= unseen <= max(most // 64, most // 16)
    assert there > most or there + unseen <= most + most // 64
