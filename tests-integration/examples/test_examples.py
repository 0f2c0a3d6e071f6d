"""The examples are run as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(directory: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=directory, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(220)
def test_the_quickstart_finds_its_findings_and_remembers_them(tmp_path: Path) -> None:
    quickstart = str(EXAMPLES / "quickstart" / "quickstart.py")
    first = run(tmp_path, quickstart, "--modules", "60")
    assert "60 modules" in first
    assert "The longest function of each of the largest modules" in first
    assert "flow-visualize sqlite:///" in first
    assert (tmp_path / "runinfo" / "monitoring.db").exists()
    assert "self" in (tmp_path / "runinfo" / "quickstart" / "words").read_text()
    second = run(tmp_path, quickstart, "--modules", "60")
    assert "from the checkpoints of earlier runs" in second
    report = "\n".join(first.splitlines()[1:12])
    assert report in second


@pytest.mark.timeout(120)
@pytest.mark.parametrize("executor", ["threads", "htex"])
def test_real_traces_are_replayed_in_their_order(tmp_path: Path, executor: str) -> None:
    said = run(tmp_path, str(EXAMPLES / "wfformat" / "replay.py"), "--executor", executor, "--scale", "0.0005")
    assert said.count("order respected") == 2
    assert "1000genome" in said
    assert "montage" in said
