"""Colmena's own tests of its task server, unchanged, with Flow's HighThroughputExecutor under it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(170)]
pytest.importorskip("colmena", reason="Colmena is not installed: tox env `programs` has it")

TESTS = ("colmena.task_server.tests.test_parsl", "colmena.task_server.tests.test_retry")


@pytest.mark.parametrize("tests", TESTS)
def test_the_task_server_of_colmena_passes_its_own_tests(tests: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flow.compat.parsl", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "no:timeout"]  # theirs are for a machine that does nothing else
    done = subprocess.run(
        [*command, "--pyargs", tests],
        cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is flow.compat.parsl; Parsl" in done.stderr  # Colmena brings a Parsl, which is not used
    assert " passed" in done.stdout
