"""Executors on Work Queue and TaskVine as tests-integration/services/cctools.sh installs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from provider_services import missing

from flow_executors import TaskVineExecutor, WorkQueueExecutor
from flow_providers import LocalProvider

BIN = Path(os.environ.get("CCTOOLS_TEST_BIN", "/opt/flow-cctools/bin"))
KINDS: dict[str, type[WorkQueueExecutor] | type[TaskVineExecutor]] = {
    "work_queue": WorkQueueExecutor,
    "vine": TaskVineExecutor,
}


def need_cctools() -> None:
    """Leave a test out where the tools are not installed."""
    if not (BIN / "vine_worker").exists():
        missing(f"no Work Queue in {BIN}; get it by tests-integration/services/cctools.sh install (root)")


def make(kind: str, **options: Any) -> WorkQueueExecutor | TaskVineExecutor:
    """Return an executor with one block of one worker, which runs two tasks at once."""
    given: dict[str, Any] = {
        "label": kind,
        "provider": LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
        "max_workers": 2,
        "manager_python": str(BIN / "python3"),
        "worker_program": str(BIN / f"{kind}_worker"),
    }
    return KINDS[kind](**{**given, **options})
