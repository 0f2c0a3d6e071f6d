"""Each kind of process stopped for good or for a while, signals to the group, clocks that jump.

All tasks come to the right end, so do later ones, the end of the run is not held up, and nothing is left of it. One or
two rows of each kind are marked ``chaos``, the others ``soak``: see ``rows``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from itertools import product
from pathlib import Path

import pytest
from rows import rows
from trial import Start

pytestmark = pytest.mark.timeout(240)

FOR_A_WHILE_S = 7.0
"""Longer than the heartbeat threshold of the run."""

BOTH = ("htex", "llex")
ROLES = [
    *[("htex", role) for role in ("interchange", "manager", "fork server", "worker", "reaper", "projection")],
    *[("llex", role) for role in ("manager", "fork server", "worker")],
]


@pytest.mark.parametrize(
    ("kind", "role"), rows(ROLES, chaos=[("htex", "interchange"), ("llex", "manager"), ("htex", "projection")])
)
def test_a_process_that_is_stopped_for_good_holds_nothing_up(start: Start, kind: str, role: str) -> None:
    run = start(kind)
    run.stop(role)
    run.check()


@pytest.mark.parametrize("kind", rows(BOTH, chaos=["llex"]))
def test_a_fork_server_is_stopped_and_its_workers_die(start: Start, kind: str) -> None:
    run = start(kind)
    run.stop("fork server")
    for pid in run.pids("worker"):
        os.kill(pid, signal.SIGKILL)
    run.check()


ALL = ("script", "interchange", "manager", "fork server", "worker")


@pytest.mark.parametrize(
    ("kind", "roles"), rows(product(BOTH, [("script",), ALL, ("manager",)]), chaos=[("htex", ALL)])
)
def test_processes_that_are_stopped_for_a_while_go_on(start: Start, kind: str, roles: tuple[str, ...]) -> None:
    run = start(kind)
    pids = run.stop(*(role for role in roles if not (kind == "llex" and role == "interchange")))
    time.sleep(FOR_A_WHILE_S)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    run.check()


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


@pytest.mark.parametrize(("kind", "signum"), rows(product(BOTH, SIGNALS), chaos=[("htex", signal.SIGKILL)]))
def test_a_signal_to_the_whole_group_leaves_nothing(start: Start, kind: str, signum: int) -> None:
    run = start(kind)
    os.killpg(run.process.pid, signum)
    run.check_gone()


_JUMPING = """
import os, time
_flag, _time, _time_ns = os.environ["FLOW_TEST_JUMP"], time.time, time.time_ns
def _by():
    try:
        with open(_flag) as file:
            return int(file.read() or 0)
    except OSError:
        return 0
time.time = lambda: _time() + _by()
time.time_ns = lambda: _time_ns() + _by() * 1_000_000_000
"""


@pytest.mark.parametrize(("kind", "seconds"), rows(product(BOTH, [86_400, -86_400]), chaos=[("htex", 86_400)]))
def test_a_clock_that_jumps_by_a_day_changes_nothing(start: Start, tmp_path: Path, kind: str, seconds: int) -> None:
    (tmp_path / "jumping").mkdir()
    (tmp_path / "jumping" / "sitecustomize.py").write_text(_JUMPING)
    flag = tmp_path / "jump"
    run = start(kind, PYTHONPATH=str(tmp_path / "jumping"), FLOW_TEST_JUMP=str(flag))
    flag.write_text(str(seconds))
    run.check()
