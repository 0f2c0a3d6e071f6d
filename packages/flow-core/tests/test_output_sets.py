"""Patterns against names, here and elsewhere; versions of several files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from flow_core.interfaces.outcome import with_found, without_found
from flow_core.interfaces.versions import names_of, only_made, version_of_files, what_changed
from flow_core.remote.output_sets import below, is_match, matching

PARTS = st.sampled_from(["a", "b", "ab", "a.txt", ".h", "x[1]", "[", "B"])
PATTERNS = st.sampled_from(["*", "**", "?", "a*", "[ab]", "*.txt", ".*", "a", "x[[]1]", "[!a]"])


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(st.lists(PARTS, min_size=1, max_size=3), min_size=1, max_size=6),
    pattern=st.lists(PATTERNS, min_size=1, max_size=3),
)
def test_names_elsewhere_match_as_files_here_do(names: list[list[str]], pattern: list[str]) -> None:
    with tempfile.TemporaryDirectory() as root:
        there = set()
        for parts in names:
            path = Path(root, *parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except OSError:  # a file where a directory is wanted, or the other way
                continue
            if path.is_file():
                there.add("/".join(parts))
        text = "/".join(pattern)
        assert below(root) == sorted(there)
        assert matching(root, text) == sorted(name for name in there if is_match(name, text))


def test_links_to_nothing_do_not_match(tmp_path: Path) -> None:
    os.symlink("nowhere", tmp_path / "a.txt")
    assert matching(str(tmp_path), "*.txt") == []


@pytest.mark.parametrize("value", [None, (1, 2, 3), ("flow", {}, 1), [1]])
def test_results_without_files_stay_themselves(value: object) -> None:
    assert without_found(value) == (value, {})
    assert without_found(with_found(value, {0: ["a"]})) == (value, {0: ["a"]})


def test_of_a_pattern_only_what_was_made_counts() -> None:
    made = only_made([version_of_files({"a": "1", "b": "1", "other": "1"}), "plain"], {0: ["a", "b"]})
    assert names_of(made[0]) == ["a", "b"]
    assert made[1] == "plain"
    now = version_of_files({"a": "1", "b": "1", "other": "2", "new": "1"})
    assert what_changed(made, [now, "plain"]) is None
    assert what_changed(made, [now, "changed"]) == 1
    for there in ({"a": "1"}, {"a": "1", "b": "2"}, {}):
        assert what_changed(made, [version_of_files(there), "plain"]) == 0
    assert what_changed(made, [None, None]) is None


def test_a_directory_is_another_one_with_each_file_more() -> None:
    one = version_of_files({"a": "1"}, whole=True)
    assert what_changed([one], [one]) is None
    assert what_changed([one], [version_of_files({"a": "1", "b": "1"}, whole=True)]) == 0
    assert what_changed([version_of_files({}, whole=True)], [version_of_files({}, whole=True)]) is None
