"""Ends of logs that a manager tells a script that does not see them."""

from __future__ import annotations

import os
from pathlib import Path

from flow_executors.manager.log_ends import LogEnds, copied_ends


def test_the_end_of_a_log_is_told_once_until_it_grows(tmp_path: Path) -> None:
    ends = LogEnds()
    (tmp_path / "manager.log").write_text("one\n")
    (tmp_path / "notes.txt").write_text("no log")
    assert ends.grown(str(tmp_path), 10.0) == {"manager.log": "one\n"}
    assert ends.grown(str(tmp_path), 20.0) == {}
    with open(tmp_path / "manager.log", "a") as log:
        log.write("two\n")
    assert ends.grown(str(tmp_path), 30.0) == {"manager.log": "one\ntwo\n"}


def test_a_script_that_knows_nothing_is_told_all_again(tmp_path: Path) -> None:
    ends = LogEnds()
    (tmp_path / "manager.log").write_text("one\n")
    assert ends.grown(str(tmp_path), 10.0)
    ends.forget()
    assert ends.grown(str(tmp_path), 20.0) == {"manager.log": "one\n"}


def test_logs_are_looked_at_now_and_then(tmp_path: Path) -> None:
    ends = LogEnds()
    assert ends.grown(str(tmp_path), 10.0) == {}
    (tmp_path / "manager.log").write_text("one\n")
    assert ends.grown(str(tmp_path), 10.1) == {}
    assert ends.grown(str(tmp_path), ends.due) == {"manager.log": "one\n"}


def test_a_directory_of_logs_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    assert LogEnds().grown(str(tmp_path / "none"), 10.0) == {}


def test_a_copy_of_a_long_log_says_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "long.log").write_bytes(b"x" * (3 << 20))
    (tmp_path / "short.log").write_bytes(b"all")
    copies = dict(copied_ends(str(tmp_path), str(tmp_path / "to")))
    assert sorted(copies) == ["long.log", "short.log"]
    assert Path(copies["short.log"]).read_bytes() == b"all"
    assert b"were left on the node" in Path(copies["long.log"]).read_bytes()[:100]
    assert os.path.getsize(copies["long.log"]) < 2 << 20
