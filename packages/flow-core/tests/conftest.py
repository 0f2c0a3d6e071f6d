"""What tests of the kernel have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flow_core as flow
from flow_core.kernel.kernel import DataFlowKernel

sys.path.insert(0, str(Path(__file__).parent))  # for kernel_apps


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., DataFlowKernel]]:
    """Give a function that loads a Config with its run directory under tmp_path; clear at the end."""

    def loaded(*executors: Any, **options: Any) -> DataFlowKernel:
        options.setdefault("run_dir", tmp_path / "runinfo")
        return flow.load(flow.Config(executors=list(executors) or None, **options))

    yield loaded
    flow.clear()
