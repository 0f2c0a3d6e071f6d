"""What a failed test of the integration tests shows: the logs of its runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_TAIL = 6000  # bytes at the end of a log that are shown
_MOST = 30  # logs of one test
_LOGS = (".log", ".err", ".stderr")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:  # pragma: no cover - seen where a test fails
    """Add the ends of the logs of all runs below the test's directory to the report of a failure."""
    report: pytest.TestReport = yield  # type: ignore[misc, assignment]  # what pytest sends
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and isinstance(folder, Path):
        report.sections += [(f"{path.relative_to(folder)}", _end_of(path)) for path in _logs(folder)]
    return report  # type: ignore[return-value]  # what pytest takes


def _logs(folder: Path) -> list[Path]:
    found = []
    for where, _, names in os.walk(folder, onerror=None):
        found += [Path(where, name) for name in names if name.endswith(_LOGS)]
    # The script's own first: it says what became of the others.
    return sorted(found, key=lambda path: (path.name != "flow.log", path))[:_MOST]


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError as error:
        return f"cannot be read: {error}"
