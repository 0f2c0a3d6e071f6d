"""Processes that a control group has frozen, as schedulers and container engines suspend jobs: no signal wakes them.

Those of version 1 cannot even be killed before they are let go. Needs root, and a freezer that is mounted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from rows import rows
from trial import Run, Start

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")]

FOR_A_WHILE_S = 7.0
"""Longer than the heartbeat threshold of the run."""
ROOTS = {"v1": ["/sys/fs/cgroup/freezer"], "v2": ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]}
SWITCH = {"v1": ("freezer.state", "FROZEN", "THAWED"), "v2": ("cgroup.freeze", "1", "0")}


class Freezer:
    """A control group that can be frozen."""

    def __init__(self, version: str) -> None:
        name, self._freeze, self._thaw = SWITCH[version]
        for root in ROOTS[version]:
            self._group = Path(root, f"flow-{uuid.uuid4().hex[:8]}")
            with contextlib.suppress(OSError):
                self._group.mkdir()
                if (self._group / name).exists():
                    self._switch = self._group / name
                    return
                self._group.rmdir()
        pytest.skip(f"no control group of {version} can be frozen here")

    def freeze(self, run: Run, *roles: str) -> None:
        """Freeze all processes of some roles."""
        for role in roles:
            for pid in run.pids(role):
                (self._group / "cgroup.procs").write_text(str(pid))
        self._switch.write_text(self._freeze)

    def thaw(self) -> None:
        """Let them go on."""
        self._switch.write_text(self._thaw)

    def close(self) -> None:
        """End what is in it, and remove it."""
        self.thaw()
        deadline = time.monotonic() + 20
        while self._group.exists():
            assert time.monotonic() < deadline, "the control group cannot be removed"
            for pid in (self._group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                self._group.rmdir()
            time.sleep(0.1)


@pytest.fixture
def freezer(version: str) -> Iterator[Freezer]:
    made = Freezer(version)
    yield made
    made.close()


BLOCK = ("manager", "fork server", "worker")
ROLES = [BLOCK, ("manager",), ("worker",)]
BOTH = ("htex", "llex")


@pytest.mark.parametrize(
    ("kind", "version", "roles"), rows(product(BOTH, SWITCH, ROLES), chaos=[("htex", "v2", BLOCK)])
)
def test_processes_that_are_frozen_for_a_while_cost_no_task(
    start: Start, freezer: Freezer, kind: str, version: str, roles: tuple[str, ...]
) -> None:
    run = start(kind)
    freezer.freeze(run, *roles)
    time.sleep(FOR_A_WHILE_S)
    freezer.thaw()
    run.check()


@pytest.mark.parametrize(("kind", "version"), rows(product(BOTH, SWITCH), chaos=[]))
def test_a_block_that_is_frozen_for_good_is_replaced(start: Start, freezer: Freezer, kind: str, version: str) -> None:
    run = start(kind)
    freezer.freeze(run, *BLOCK)
    run.check_right()
    freezer.thaw()
    run.check_gone()
