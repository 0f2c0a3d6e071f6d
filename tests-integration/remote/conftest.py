"""Machines that share nothing with the script: made by ``services/second_machine.sh``, for each test its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for machines
sys.path.insert(0, str(Path(__file__).parents[1] / "providers"))  # for provider_services

from machines import Machines  # needs the lines above
from provider_services import missing


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """A laptop, and as many nodes as the test starts; all of them end with the test."""
    pytest.importorskip("paramiko")
    if os.geteuid() != 0:
        missing("machines of their own need root: tests-integration/services/second_machine.sh")
    made = Machines(tmp_path / "machines")
    try:
        yield made
    finally:
        made.stop()
