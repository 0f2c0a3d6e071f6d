"""Children that tasks fork in the processes of a wrapped pool."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor

from flow_core.remote.parcel import pack_task, unpack_result
from flow_core.remote.parcel_run import run_parcel


def _forks() -> int:
    child = os.fork()
    return os.waitpid(child, 0)[1] if child else 0


def test_a_forked_child_that_returns_from_its_task_ends_and_is_no_worker() -> None:
    with ProcessPoolExecutor(1) as pool:
        result = pool.submit(run_parcel, pack_task(_forks)).result(timeout=60)
    assert unpack_result(result).value == 0
