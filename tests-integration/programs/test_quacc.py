"""Workflows of quacc by its Parsl job runner, unchanged, on Flow's executors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(170)]
pytest.importorskip("quacc", reason="quacc is not installed: tox env `programs` has it")

PROGRAM = Path(__file__).with_name("quacc_program.py")


@pytest.mark.parametrize("kind", ["threads", "htex"])
def test_workflows_of_quacc_run_by_its_parsl_runner(kind: str, tmp_path: Path) -> None:
    environment = {**os.environ, "QUACC_WORKFLOW_ENGINE": "parsl"}
    done = subprocess.run(
        [sys.executable, "-m", "flow.compat.parsl", str(PROGRAM), kind],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-4000:]
    assert said == ["parsl is flow.compat.parsl", "energy -0.00568", "slabs 2"]
