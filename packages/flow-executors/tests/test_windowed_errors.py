"""The block error handler that waits for so many failed blocks in a row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flow_core.errors import ConfigurationError, ExecutorBroken
from flow_executors import WindowedErrorHandler
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

HOST = SimpleNamespace(label="htex")


def failed(number: int) -> dict[str, JobStatus]:
    return {str(block): JobStatus(JobState.FAILED, exit_code=block) for block in range(number)}


def test_fewer_failed_blocks_than_the_threshold_are_replaced() -> None:
    assert WindowedErrorHandler(3)(HOST, failed(2)) is None


def test_so_many_failed_blocks_in_a_row_end_the_tasks_and_the_last_are_named() -> None:
    error = WindowedErrorHandler(3)(HOST, failed(4))
    assert isinstance(error, ExecutorBroken)
    assert str(error) == (
        "the last 3 blocks of executor 'htex' failed, so none of its tasks can run: block 1: FAILED, exit code 1; "
        "block 2: FAILED, exit code 2; block 3: FAILED, exit code 3"
    )


@pytest.mark.parametrize("threshold", [0, 21, True, 2.5, "3"])
def test_a_threshold_that_can_never_be_reached_is_refused(threshold: Any) -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        WindowedErrorHandler(threshold)


def test_its_repr_makes_an_equal_one() -> None:
    assert eval(repr(WindowedErrorHandler(4))).threshold == 4
