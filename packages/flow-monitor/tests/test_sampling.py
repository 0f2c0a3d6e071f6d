"""The sampler of a node looks at real process trees."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from flow_core.interfaces.call import TryKey
from flow_monitor.sampling.node import NodeSampler
from flow_monitor.sampling.process_tree import look
from flow_monitor.sampling.threads import ThreadSampler

ROUNDED_S = 1e-6
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
    sampler.close()


@pytest.mark.skipif(sys.platform != "linux", reason="nobody counts by thread elsewhere")
def test_threads_are_told_apart_by_their_cpu_and_the_processes_they_started() -> None:
    begin, ready, go = threading.Event(), threading.Barrier(3), threading.Event()
    idents: dict[str, int] = {}

    def busy() -> None:
        idents["busy"] = threading.get_native_id()
        begin.wait(30)
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass
        ready.wait(30)
        go.wait(30)

    def waits() -> None:
        idents["waits"] = threading.get_native_id()
        begin.wait(30)
        with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            ready.wait(30)
            go.wait(30)

    sampler = ThreadSampler()
    threads = [threading.Thread(target=one, daemon=True) for one in (busy, waits)]
    for thread in threads:
        thread.start()
    time_ns = 10**9
    while len(idents) < 2:
        pass
    running = {idents["busy"]: TryKey(1), idents["waits"]: TryKey(2)}
    sampler.sample(running, time_ns)  # what it finds is taken off what comes after
    begin.set()
    ready.wait(30)
    _, one, other = sampler.sample(running, 2 * time_ns)
    assert (one.key, other.key) == (1, 2)
    assert (one.processes, other.processes) == (0, 2), "those it started, and those that these did"
    assert other.cpu_user_s + other.cpu_system_s >= 0.29
    assert one.cpu_user_s + one.cpu_system_s < 0.29
    own = look(os.getpid(), below=False)
    assert own is not None
    assert one.memory_rss == pytest.approx(own.rss / 2, rel=0.2)
    assert other.memory_rss > one.memory_rss
    assert one.net_sent is None, "connections are those of the whole process"
    assert len(sampler.ended({idents["busy"]: TryKey(1)}, 3 * time_ns)) == 1
    sampler.close()
    go.set()


@pytest.mark.skipif(sys.platform != "linux", reason="nobody counts by thread elsewhere")
def test_what_a_threads_processes_used_stays_counted_when_they_have_ended() -> None:
    me = {threading.get_native_id(): TryKey(1)}
    sampler = ThreadSampler()
    already = sampler.sample(me, 10**9)[1].processes
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        before = sampler.sample(me, 2 * 10**9)[1]
        assert before.processes == already + 2
    after = sampler.sample(me, 3 * 10**9)[1]
    assert after.processes == already
    assert before.cpu_user_s + before.cpu_system_s >= 0.29
    # Sums of differences: they are rounded, each in its own way.
    assert after.cpu_user_s >= before.cpu_user_s - ROUNDED_S
    assert after.cpu_system_s >= before.cpu_system_s - ROUNDED_S
    sampler.close()


def test_a_thread_that_has_ended_is_not_sampled() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(threading.get_native_id()))
    thread.start()
    thread.join()
    while os.path.exists(f"/proc/self/task/{found[0]}"):  # Linux takes a moment longer
        time.sleep(0.001)
    sampler = ThreadSampler()
    assert len(sampler.sample({found[0]: TryKey(1)}, 1)) == 1
    sampler.close()
