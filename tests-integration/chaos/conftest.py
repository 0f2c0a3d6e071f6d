"""The kill tests import their tools from beside themselves."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from trial import Run, Start  # needs the line above


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a run and waits until its tasks run; at the end all of it is killed."""
    runs: list[Run] = []

    def begin(
        kind: str,
        directory: Path = tmp_path,
        setup: dict[str, object] | None = None,
        before: tuple[str, ...] = (),
        **environment: str,
    ) -> Run:
        run = Run(kind, directory, environment, setup or {}, before)
        runs.append(run)
        run.begin()
        return run

    yield begin
    for run in runs:
        run.close()
