"""Each chapter runs twice: on threads, and on worker processes behind a local HighThroughputExecutor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import flow
from flow.config import Config
from flow.executors import HighThroughputExecutor
from flow.executors.threads import ThreadPoolExecutor
from flow.providers import LocalProvider


def local_htex(**options: object) -> HighThroughputExecutor:
    settings: dict[str, object] = {
        "label": "htex_local",
        "max_workers": 2,
        "provider": LocalProvider(init_blocks=1, max_blocks=1),
    }
    return HighThroughputExecutor(**{**settings, **options})


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current directory of a chapter's tests: relative paths are meant from here, by the script and by apps."""
    before = os.getcwd()
    directory = tmp_path_factory.mktemp("chapter")
    os.chdir(directory)
    yield directory
    os.chdir(before)


@pytest.fixture(scope="module", params=["threads", "htex"])
def kernel(request: pytest.FixtureRequest, workdir: Path) -> Iterator[flow.DataFlowKernel]:
    executor = ThreadPoolExecutor(label="threads", max_threads=4) if request.param == "threads" else local_htex()
    with flow.load(Config(executors=[executor], strategy=None)) as loaded:
        yield loaded


@pytest.fixture
def own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of its own for a test that loads its own Config; whatever is loaded is cleaned up at the end."""
    monkeypatch.chdir(tmp_path)
    flow.clear()
    yield tmp_path
    flow.clear()
