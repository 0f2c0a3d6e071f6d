"""A block error handler that waits for so many failed blocks in a row."""

from __future__ import annotations

from collections.abc import Mapping

from flow_core.errors import ConfigurationError, ExecutorBroken
from flow_executors.scaling.failures import how
from flow_executors.scaling.scaling_core import REMEMBERED
from flow_providers.interfaces.job_status import JobStatus


class WindowedErrorHandler:
    """Ends the tasks of an executor when its last ``threshold`` blocks have all failed; for ``block_error_handler=``.

    A block that has had workers begins a new window. Until then failed blocks are replaced.

    Attributes:
        threshold: Number of blocks.
    """

    def __init__(self, threshold: int = 3) -> None:
        """Take the number of blocks: at least 1, at most 20.

        Raises:
            ConfigurationError: it is something else.
        """
        if isinstance(threshold, bool) or not isinstance(threshold, int) or not 1 <= threshold <= REMEMBERED:
            raise ConfigurationError(
                f"WindowedErrorHandler: threshold must be a whole number from 1 to {REMEMBERED}, not {threshold!r}"
            )
        self.threshold = threshold

    def __call__(self, executor: object, failed: Mapping[str, JobStatus]) -> ExecutorBroken | None:
        """Return the error of the tasks, or None to go on."""
        last = list(failed.items())[-self.threshold :]
        if len(last) < self.threshold:
            return None
        told = "; ".join(f"block {block}: {how(status)}" for block, status in last)
        label = getattr(executor, "label", executor)
        return ExecutorBroken(
            f"the last {self.threshold} blocks of executor {label!r} failed, so none of its tasks can run: {told}"
            if self.threshold > 1
            else f"the last block of executor {label!r} failed, so none of its tasks can run: {told}"
        )

    def __repr__(self) -> str:
        return f"WindowedErrorHandler(threshold={self.threshold})"
