"""Names that some file systems take for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_core.files import File
from flow_core.remote.same_names import are_one, first_pair, folded
from flow_core.staging.places import StagedPaths


@pytest.mark.parametrize(
    ("name", "other"),
    [("data.txt", "DATA.txt"), ("\u00e9", "e\u0301"), ("\u00c9", "e\u0301"), ("stra\u00dfe", "STRASSE")],
)
def test_names_that_differ_in_capitals_or_in_how_accents_are_written_fold_to_one(name: str, other: str) -> None:
    assert folded(name) == folded(other)
    assert first_pair(["a", name, "b", other]) == (name, other)


@given(st.text())
def test_what_is_folded_stays_as_it_is(name: str) -> None:
    assert folded(folded(name)) == folded(name)
    assert first_pair([name, name]) is None


def test_a_file_system_that_tells_capitals_apart_is_asked_and_nothing_is_left_there(tmp_path: Path) -> None:
    assert not are_one(str(tmp_path / "not" / "made"), "x/Name", "x/NAME")
    assert are_one(str(tmp_path), "x/Name", "x/Name")
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_made_names_count_as_two(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not are_one(str(tmp_path), "a\0b", "A\0b")
    assert not are_one("", "/proc/self/name/of/none", "/proc/self/NAME/of/none")


def test_files_of_a_try_get_places_that_no_file_system_takes_for_one(tmp_path: Path) -> None:
    places = StagedPaths(tmp_path)
    mine = places.begin(1)
    names = ("data.txt", "DATA.txt", "Data.TXT", "\u00e9", "e\u0301")
    found = [mine.path("/d", File(f"http://h/{number}/{name}")) for number, name in enumerate(names)]
    assert len({folded(path) for path in found}) == len(names)
    assert [os.path.basename(path) for path in found] == list(names)
    assert sorted(mine.known()) == sorted(found)
    places.close()
