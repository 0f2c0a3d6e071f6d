"""The options of the memoizer that is built in, as an object: Flow has them in its Config."""

from __future__ import annotations

from collections.abc import Sequence

import flow_core


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
