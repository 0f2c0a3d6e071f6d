"""What all tests of all packages share."""

from __future__ import annotations

import itertools
import signal

import pytest

_numbers = itertools.count()


def pytest_configure() -> None:
    """Take Ctrl-C as ever, also where a shell runs the tests in its background, and has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests from the user's own cache, and from those of each other: servers of theirs have the same names."""
    monkeypatch.delenv("FLOW_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / f"cache-{next(_numbers)}"))
