"""A pinned worker gives its task of ranks all CPUs of its manager, and has its own again afterwards."""

from __future__ import annotations

import os

import pytest

from flow_executors.mpi.on_worker import _on_all_cpus


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_ranks_of_a_pinned_worker_may_use_all_cpus_of_the_manager() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            one = min(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {one})
            during = _on_all_cpus(lambda: os.sched_getaffinity(0))
            well = during == os.sched_getaffinity(os.getppid()) and os.sched_getaffinity(0) == {one}
            os.write(write, b"well" if well else b"not")
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        assert said.read() == b"well"
    assert os.waitpid(pid, 0)[1] == 0
