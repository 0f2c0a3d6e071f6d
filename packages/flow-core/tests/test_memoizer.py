"""The memoizer keeps its contract in every checkpoint mode."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from flow_core.interfaces.memoizer import Memoizer
from flow_core.memo.memoizer import BasicMemoizer
from flow_core.testing.contracts import MemoizerContract


class _Contract(MemoizerContract):
    mode: ClassVar[str | None] = None

    def make_memoizer(self, directory: Path) -> Memoizer:
        return BasicMemoizer(checkpoint_mode=self.mode, checkpoint_dir=directory / "checkpoint")


class TestWithoutMode(_Contract):
    mode = None


class TestTaskExit(_Contract):
    mode = "task_exit"


class TestPeriodic(_Contract):
    mode = "periodic"


class TestDfkExit(_Contract):
    mode = "dfk_exit"
