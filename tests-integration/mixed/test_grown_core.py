"""A core whose events have more fields, and one kind more, costs no row of the database and no task."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import flow_core
from flow_core.interfaces.events import Event

WORKLOAD = Path(__file__).with_name("workload.py")
EXPECTED = runpy.run_path(str(WORKLOAD), run_name="workload")["EXPECTED"]
NEW_KIND = '''
@dataclass(frozen=True, slots=True)
class CoreGrown:
    """An event that earlier monitoring has never heard of."""

    kind: ClassVar[EventKind] = EventKind.TASK
    time_ns: int
    task_id: int
    note: str = ""


Event = (
    CoreGrown
    | RunStarted'''


def grown(text: str, only: str = r"\w+") -> tuple[str, int]:
    """Add a field with a default to the end of the dataclasses in a module; return its text and how many they were."""
    made = 0

    def add(match: re.Match[str]) -> str:
        nonlocal made
        made += 1
        return match[0].rstrip("\n") + '\n    added_field: str = "added"\n\n\n'

    pattern = rf"^@dataclass\(frozen=True, slots=True\)\nclass (?:{only or chr(92) + 'w+'})[:(].*?\n(?:\n\n|\Z)"
    return re.sub(pattern, add, text, flags=re.M | re.S), made


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    return text.replace(old, new)


@pytest.fixture
def later_core(tmp_path: Path) -> Path:
    """Make a copy of the core with one more field in events, places, usages and samples."""
    copy = tmp_path / "later" / "flow_core"
    shutil.copytree(Path(flow_core.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    events, kinds = grown((copy / "interfaces" / "events.py").read_text())
    assert kinds == len(get_args(Event))
    (copy / "interfaces" / "events.py").write_text(replaced(events, "\nEvent = (\n    RunStarted", NEW_KIND))
    for name, only in (("interfaces/outcome.py", "Usage"), ("loss.py", "Place"), ("interfaces/sampler.py", "Sample")):
        text, kinds = grown((copy / name).read_text(), only)
        assert kinds == 1, name
        (copy / name).write_text(text)
    telling = (copy / "kernel" / "task_events.py").read_text()
    telling = replaced(telling, "self._append = pump.append", "self._pump = pump")
    telling += """

def _append(self, record):
    from flow_core.interfaces.events import CoreGrown

    self._pump.append(record)
    self._pump.append((CoreGrown, record[1], record[2], "grown"))


TaskEventEmitter._append = _append
"""
    (copy / "kernel" / "task_events.py").write_text(telling)
    return copy.parent


def test_no_task_and_no_row_is_lost_by_a_core_with_more_fields_and_one_more_kind_of_event(
    tmp_path: Path, later_core: Path
) -> None:
    (tmp_path / "run").mkdir()
    done = subprocess.run(
        [sys.executable, WORKLOAD, tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": str(later_core)},
        cwd=tmp_path, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == EXPECTED
    log = (tmp_path / "run" / "runinfo" / "000" / "monitoring" / "events.log").read_bytes()
    assert log.count(b'"added"') > 29 * 4, "the copy was not what ran"
    assert b"CoreGrown" in log
