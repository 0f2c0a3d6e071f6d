"""The sampler of a node looks at real process trees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from flow_core.interfaces.call import TryKey
from flow_monitor.sampling.node import NodeSampler
from flow_monitor.sampling.process_tree import look

BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}])
up = "import sys; print('up', flush=True); sys.stdin.read()"
child = subprocess.Popen([sys.executable, "-c", up], stdin=subprocess.PIPE)
sys.stdin.read()
child.stdin.close(); child.wait()
"""


@pytest.fixture
def tree() -> Iterator[int]:
    """Give a process with one live child, and one that burned 0.3 s of CPU and ended."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        yield parent.pid
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait(20)


def test_a_tree_counts_live_children_and_the_cpu_of_those_that_ended(tree: int) -> None:
    use = look(tree)
    assert use is not None
    assert use.processes == 2
    assert use.user_s + use.system_s >= 0.29
    assert use.rss > 1 << 20


def test_a_process_that_is_gone_has_no_use() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(20)
    assert look(process.pid) is None


def test_a_sample_of_each_task_and_one_of_the_node(tree: int) -> None:
    sampler = NodeSampler()
    samples = sampler.sample({tree: TryKey(5), os.getpid(): TryKey(6)}, 1_000)
    sampler.close()
    assert [s.key for s in samples] == [None, 5, 6]
    assert samples[0].memory_rss > 0


def test_the_cpu_of_the_task_before_in_the_same_worker_is_not_counted(tree: int) -> None:
    sampler = NodeSampler()
    first = sampler.sample({tree: TryKey(1)}, 10**9)[1]
    again = sampler.sample({tree: TryKey(2)}, 2 * 10**9)[1]
    assert first.cpu_user_s == again.cpu_user_s == 0.0
    assert again.cpu_percent == 0.0
