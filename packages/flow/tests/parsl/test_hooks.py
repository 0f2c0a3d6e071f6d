"""Hooks of Parsl programs: what they are given of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flow.compat.parsl as parsl
from flow.compat.parsl.config import Config


def test_a_retry_handler_is_given_the_record_of_the_task(tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    def handler(error: Exception, record: dict[str, Any]) -> float:
        seen.append((record["id"], record["func_name"], record["args"], record["fail_count"], record["status"].name))
        return 1

    @parsl.python_app
    def fail(x: int) -> None:
        raise ValueError(x)

    with parsl.load(Config(run_dir=str(tmp_path), retries=1, retry_handler=handler)):
        assert isinstance(fail(3).exception(timeout=30), ValueError)
    assert seen == [(0, "fail", (3,), count, "fail_retryable") for count in (0, 1)]
