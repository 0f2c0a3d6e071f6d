"""The clock of one kind of process steps by an hour, in C as in Python (libfaketime); the monotonic one goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
from rows import rows
from trial import Start

pytestmark = pytest.mark.timeout(240)

_ROLE = """
import os, sys
_folder, _depth = os.environ["FLOW_TEST_CLOCKS"], 0
def _be(role):
    os.environ["FAKETIME_TIMESTAMP_FILE"] = os.path.join(_folder, role)
def _forked():
    global _depth
    _depth += 1
    if _depth == 2:  # the manager forks what forks the workers
        _be("worker")
_line = " ".join(sys.orig_argv)
if "flow_executors.manager" in _line or "flow_executors.direct" in _line:
    _be("manager")
    os.register_at_fork(after_in_child=_forked)
elif "flow_executors.interchange" in _line:
    _be("interchange")
elif "matrix_run.py" in _line:
    _be("script")
"""
ROLES = ("script", "interchange", "manager", "worker")


class Clocks:
    """Clocks of processes by role."""

    def __init__(self, library: Path, directory: Path) -> None:
        self._directory = directory
        self.library = library
        for role in (*ROLES, "others"):
            self.step(role, 0)
        (directory / "sitecustomize.py").write_text(_ROLE)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process and all that it starts need."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_TIMESTAMP_FILE": str(self._directory / "others"),
            "FLOW_TEST_CLOCKS": str(self._directory),
            "PYTHONPATH": str(self._directory),
        }

    def step(self, role: str, seconds: int) -> None:
        """Set a clock wrong by so much."""
        made = self._directory / "new"
        made.write_text(f"{seconds:+d}\n")
        made.rename(self._directory / role)

    def wrong_by_s(self, role: str) -> float:
        """Return how wrong the clock of a process of that role is."""
        code = "import os, time; os.environ['FAKETIME_TIMESTAMP_FILE'] = '%s'; print(time.time())"
        command = [sys.executable, "-c", code % (self._directory / role)]
        environment = {**os.environ, **self.environment}
        return float(subprocess.run(command, env=environment, check=True, capture_output=True).stdout) - time.time()


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    vendored = Path(pytest.importorskip("libfaketime").__file__).parent.rglob("libfaketime.so.1")
    directory = tmp_path / "clocks"
    directory.mkdir()
    return Clocks(next(vendored), directory)


@pytest.mark.parametrize(
    ("kind", "role", "seconds"),
    rows(
        [
            (kind, role, sign * 3600)
            for kind, role, sign in product(("htex", "llex"), ROLES, (1, -1))
            if (kind, role) != ("llex", "interchange")
        ],
        chaos=[],
    ),
)
def test_a_clock_of_one_kind_of_process_that_steps_by_an_hour_changes_nothing(
    start: Start, clocks: Clocks, kind: str, role: str, seconds: int
) -> None:
    run = start(kind, setup={"tasks": 200}, **clocks.environment)
    for pid in run.pids(role):
        assert str(clocks.library) in Path(f"/proc/{pid}/maps").read_text()
    clocks.step(role, seconds)
    run.check()
    assert abs(clocks.wrong_by_s(role) - seconds) < 60
