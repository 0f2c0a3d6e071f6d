from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENTS = Path(__file__).parent / "documents"


def run(tmp_path: Path, *names: str) -> str:
    """Run scripts of the documents, one after another in one directory; return what the last one said."""
    said = ""
    for name in names:
        command = [sys.executable, "-m", "flow.compat.parsl", str(DOCUMENTS / name)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        said = done.stdout
    return said


@pytest.mark.slow
def test_the_tutorial_of_0_9_runs_word_for_word(tmp_path: Path) -> None:
    said = run(tmp_path, "tutorial_0_9.txt").splitlines()
    assert said[1:4] == ["Hello World!", "45", "Hello World!"]
    assert "hello 0" in said
    assert "Result: Hello World!" in said
    numbers = [int(path.read_text()) for path in tmp_path.glob("random-*.txt")]
    assert str(sum(numbers)) in said
    assert said[-1].startswith("Average: 3.1")


def test_the_example_of_a_map_and_a_reduction_runs_word_for_word(tmp_path: Path) -> None:
    assert run(tmp_path, "map_reduce_0_9.txt") == "90\n"


def test_checkpoints_of_0_9_are_written_and_found_again(tmp_path: Path) -> None:
    assert run(tmp_path, "checkpoint_0_9.txt").strip() == str(tmp_path / "runinfo" / "000" / "checkpoint")
    assert run(tmp_path, "resume_0_9.txt") == "[0, 2, 4, 6, 8] 5\n"


def test_apps_and_retries_of_0_6_run(tmp_path: Path) -> None:
    assert run(tmp_path, "retries_0_6.txt") == "3\n0 hi\n"
