"""What ``Config(memoizer=)`` takes: the options of the memoizer that is built in, or one of the user's own."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import flow_core


class Memoizer(metaclass=ABCMeta):
    """Base of memoizers of the user's own: asked for each task of an app with ``cache=True``, told how it ended."""

    @abstractmethod
    def start(self, *, run_dir: str, config_run_dir: str) -> None:
        """Begin with a run."""

    @abstractmethod
    def check_memo(self, task: Any) -> Future[Any] | None:
        """Return a future with the remembered result of a task, or None."""

    @abstractmethod
    def update_memo_result(self, task: Any, r: Any) -> None:
        """Remember the result of a task."""

    @abstractmethod
    def update_memo_exception(self, task: Any, e: BaseException) -> None:
        """Remember that a task failed."""

    @abstractmethod
    def close(self) -> None:
        """End with the run."""


class BasicMemoizer:
    """The memoizer that is built in, with its options: Flow has them in its Config."""

    def __init__(
        self,
        *,
        checkpoint_files: Sequence[str] | None = None,
        checkpoint_period: str | None = None,
        checkpoint_mode: str | None = None,
        memoize: bool = True,
    ) -> None:
        self.checkpoint_files, self.checkpoint_period = checkpoint_files, checkpoint_period
        self.checkpoint_mode, self.memoize = checkpoint_mode, memoize

    def checkpoint(self) -> None:
        """Write what is not in the checkpoint of the loaded kernel yet."""
        flow_core.dfk().checkpoint()

    def in_flow(self) -> dict[str, object]:
        """Return Flow's options."""
        options = {
            "app_cache": self.memoize,
            "checkpoint_files": self.checkpoint_files,
            "checkpoint_mode": self.checkpoint_mode,
            "checkpoint_period": self.checkpoint_period,
        }
        return {name: value for name, value in options.items() if value is not None}
