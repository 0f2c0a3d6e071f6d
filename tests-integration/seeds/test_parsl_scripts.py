"""Scripts of the documents of Parsl 0.9, run word for word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flow.compat import parsl

DOCUMENTS = Path(__file__).resolve().parents[2] / "packages" / "flow" / "tests" / "parsl" / "documents"


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


@pytest.mark.slow
def test_checkpoints_of_0_9_are_written_and_found_again(tmp_path: Path) -> None:
    assert run(tmp_path, "checkpoint_0_9.txt").strip() == str(tmp_path / "runinfo" / "000" / "checkpoint")
    assert run(tmp_path, "resume_0_9.txt") == "[0, 2, 4, 6, 8] 5\n"


def test_apps_and_retries_of_0_6_run(tmp_path: Path) -> None:
    assert run(tmp_path, "retries_0_6.txt") == "3\n0 hi\n"


SRUN = """#!/bin/bash
# Runs the command once, as one node would: options, and the value of -c, come before it.
while [ "$1" != bash ]; do shift; done
exec "$@"
"""


@pytest.mark.slow
def test_the_script_of_the_guide_of_nersc_for_a_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin" / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    said = run(tmp_path, "nersc_headless.txt").splitlines()
    assert len(said) == 4
    assert all(line.startswith("Got result:  uname_result(system='Linux'") for line in said)


@pytest.mark.parametrize(("name", "words"), [("nersc_throughput.txt", "-c 128"), ("nersc_mpi.txt", "")])
def test_the_configurations_of_the_guide_of_nersc_are_taken(name: str, words: str) -> None:
    parsl.install(quiet=True)
    try:
        bound: dict[str, Any] = {}
        exec((DOCUMENTS / name).read_text(), bound)
    finally:
        parsl.uninstall()
    provider = bound["config"].executors[0].provider
    assert (provider.partition, provider.nodes_per_block) == ("debug", 2)
    assert provider.scheduler_options == "#SBATCH -C cpu"
    assert words in provider.launcher("true", 1, 2)
