"""The clock of one kind of process, or of all, steps by an hour or a year, in C as in Python (libfaketime).

The monotonic one goes on.
"""

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
elif "flow_providers.jobs.reaper" in _line:
    _be("reaper")
elif "--role projector" in _line:
    _be("projection")
elif "matrix_run.py" in _line:
    _be("script")
"""
ROLES = ("script", "interchange", "manager", "worker", "reaper", "projection")
ALL = "all"
"""All processes of a run, with those that have no role here."""
_HOUR_S = 3600
_YEAR_S = 365 * 24 * _HOUR_S


class Clocks:
    """Clocks of processes by role."""

    def __init__(self, library: Path, directory: Path) -> None:
        self._directory = directory
        self.library = library
        self.step(ALL, 0)
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
        for one in (*ROLES, "others") if role == ALL else (role,):
            made = self._directory / "new"
            made.write_text(f"{seconds:+d}\n")
            made.rename(self._directory / one)

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


_STEPS = [
    *((kind, role, sign * _HOUR_S) for kind, role, sign in product(("htex", "llex"), (*ROLES, ALL), (1, -1))),
    *product(("htex", "llex"), (ALL,), (_YEAR_S, -_YEAR_S)),
]


@pytest.mark.parametrize(
    ("kind", "role", "seconds"),
    rows(
        [step for step in _STEPS if step[:2] != ("llex", "interchange")],
        chaos=[("htex", ALL, -_HOUR_S), ("llex", ALL, _YEAR_S)],
    ),
)
def test_a_clock_that_steps_changes_nothing(start: Start, clocks: Clocks, kind: str, role: str, seconds: int) -> None:
    run = start(kind, setup={"tasks": 200}, **clocks.environment)
    roles = [one for one in ROLES if (kind, one) != ("llex", "interchange")] if role == ALL else [role]
    for pid in [pid for one in roles for pid in run.pids(one)]:
        assert str(clocks.library) in Path(f"/proc/{pid}/maps").read_text()
    clocks.step(role, seconds)
    run.check()
    for one in roles:
        assert abs(clocks.wrong_by_s(one) - seconds) < 60
