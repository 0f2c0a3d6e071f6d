"""Fault points: what FLOW_FAULT may say, and that it does it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flow_core.remote import faults

_PROGRAM = """
from flow_core.remote.faults import point
for number in range(5):
    print(number, flush=True)
    point("loop")
"""


def _run(fault: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLOW_FAULT": fault}
    command = [sys.executable, "-c", _PROGRAM]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)


def test_an_unset_point_does_nothing() -> None:
    faults.unarmed("anything")


@pytest.mark.parametrize(
    ("action", "status"),
    [("kill", -signal.SIGKILL), ("segv", -signal.SIGSEGV), ("exit", 70), ("exit=3", 3), ("raise", 1), ("mark", 0)],
)
def test_an_action_ends_the_process_as_it_says(action: str, status: int) -> None:
    assert _run(f"loop:3:{action}").returncode == status


def test_it_fires_on_the_pass_it_names() -> None:
    assert _run("loop:3:kill").stdout.split() == ["0", "1", "2"]


def test_a_process_that_does_not_pass_the_point_lives() -> None:
    assert _run("elsewhere:1:kill").returncode == 0


def test_a_mark_is_made_when_it_fires_and_lets_it_fire_once_in_all(tmp_path: Path) -> None:
    mark = tmp_path / "mark:with:colons"
    assert _run(f"loop:2:kill:file={mark}").returncode == -signal.SIGKILL
    assert mark.exists()
    assert _run(f"loop:2:kill:file={mark}").returncode == 0


def test_a_plus_fires_again_and_again() -> None:
    point = faults.armed("here:2+:raise")
    point("here")
    for _ in range(2):
        with pytest.raises(faults.FaultInjected, match="here"):
            point("here")


def test_several_faults_may_be_armed(tmp_path: Path) -> None:
    point = faults.armed(f"one:1:mark:file={tmp_path}/one, two:1:mark:file={tmp_path}/two")
    point("one")
    point("two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("loop", "not name:count:action"),
        ("loop:0:kill", "count '0'"),
        ("loop:x:kill", "count 'x'"),
        ("loop:1:explode", "unknown action 'explode'"),
        ("loop:1:kill=3", "unknown action 'kill=3'"),
        ("loop:1:kill:path", "not file=PATH"),
    ],
)
def test_a_wrong_fault_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        faults.parse(text)
