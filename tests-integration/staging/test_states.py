"""Staging as seen from outside: the states of a task, what monitoring keeps of it, and whose slot it takes."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from pathlib import Path

import pytest
from staging_servers import QUICK, Page, answer, hang_at

import flow_core as flow
from flow_core import File
from flow_core.errors import StagingError
from flow_core.events import EventKind
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.staging.noop import NoOpFileStaging
from flow_monitor import MonitoringHub, open_database
from flow_monitor.queries import tasks, workflows
from flow_staging import FTPSeparateTaskStaging, HTTPSeparateTaskStaging, RetryPolicy

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer


class States:
    """A sink that keeps the states of every task."""

    wants = EventKind.STATE | EventKind.TASK

    def __init__(self) -> None:
        self.of: dict[int, list[str]] = {}

    def start(self, run: object) -> None:
        pass

    def emit(self, events) -> None:
        for event in events:
            if hasattr(event, "state"):
                self.of.setdefault(event.task_id, []).append(event.state)

    def close(self, timeout_s: float) -> int:
        return 0


@flow.python_app
def upper(inputs=(), outputs=()):
    text = Path(inputs[0].filepath).read_text().upper()
    if outputs:
        Path(outputs[0].filepath).write_text(text)
    return text


@flow.python_app
def one():
    return 1


def executor(tmp_path: Path, **options: object) -> ThreadPoolExecutor:
    methods = [NoOpFileStaging(), HTTPSeparateTaskStaging(retry=QUICK), FTPSeparateTaskStaging(retry=QUICK)]
    return ThreadPoolExecutor(storage_access=methods, working_dir=str(tmp_path / "wd"), **options)


def test_a_task_whose_transfer_fails_says_with_what_and_when_it_is_tried_again(web, tmp_path):
    web.pages["/a"] = Page(b"text", plan=deque([answer(503)]))
    patient = HTTPSeparateTaskStaging(retry=RetryPolicy(tries=4, first_delay_s=100.0))
    threads = ThreadPoolExecutor(storage_access=[patient])
    with flow.load(flow.Config(executors=[threads], run_dir=str(tmp_path / "runinfo"))) as kernel:
        future = upper(inputs=[File(web.url("/a"))])
        deadline = time.monotonic() + 30
        while not any(one.progress is not None and one.progress.failed for one in kernel.transfers()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert re.search(
            r"/a is being brought in by HTTPSeparateTaskStaging .*; try 1 of 4 failed: the server answered 503 .*; "
            r"the next begins in \d+ s",
            str(future.why()),
        )
        assert future.cancel()


def test_staging_is_a_state_on_the_way_in_and_on_the_way_out(web, tmp_path):
    (tmp_path / "root").mkdir()
    ftp = FtpServer(tmp_path / "root")
    web.pages["/a"] = Page(b"text")
    sink = States()
    with flow.load(flow.Config(executors=[executor(tmp_path)], run_dir=str(tmp_path / "runinfo"), sinks=[sink])):
        both = upper(inputs=[File(web.url("/a"))], outputs=[File(ftp.url("/out"))])
        assert both.result(50) == "TEXT"
        missing = upper(inputs=[File(web.url("/missing"))])
        assert isinstance(missing.exception(50), StagingError)
        assert one().result(50) == 1
    ftp.close()
    assert [state for state in sink.of[both.tid] if state != "pending"] == ["staging", "staging", "exec_done"]
    assert [state for state in sink.of[missing.tid] if state != "pending"] == ["staging", "failed"]
    assert "staging" not in sink.of[2]


def test_a_staging_task_takes_no_slot_and_no_worker(web, tmp_path):
    web.pages["/slow"], web.pages["/a"] = Page(b"text" * 10_000), Page(b"text")
    web.pages["/slow"].plan.append(hang_at(1000))
    with flow.load(flow.Config(executors=[executor(tmp_path, max_threads=1)], run_dir=str(tmp_path / "runinfo"))):
        slow = upper(inputs=[File(web.url("/slow"))])
        assert web.hanging.acquire(timeout=30)
        assert [one().result(30) for _ in range(20)] == [1] * 20
        assert upper(inputs=[File(web.url("/a"))]).result(30) == "TEXT"
        assert not slow.done()
        web.closing.set()
        assert slow.result(30) == "TEXT" * 10_000


def test_a_task_whose_outputs_go_out_takes_no_slot(tmp_path, web):
    (tmp_path / "root").mkdir()
    ftp = FtpServer(tmp_path / "root")
    going, held = threading.Event(), threading.Event()

    def hold(passed: int) -> None:
        going.set()
        held.wait(30)

    ftp.watch = hold
    web.pages["/a"] = Page(b"text" * 100_000)
    with flow.load(flow.Config(executors=[executor(tmp_path, max_threads=1)], run_dir=str(tmp_path / "runinfo"))):
        made = upper(inputs=[File(web.url("/a"))], outputs=[File(ftp.url("/out"))])
        assert going.wait(30)
        assert one().result(30) == 1
        assert not made.done()
        assert not made.outputs[0].done()
        held.set()
        made.outputs[0].result(30)
    ftp.close()


def test_monitoring_keeps_the_staging_of_a_task(web, tmp_path):
    web.pages["/a"] = Page(b"text")
    (tmp_path / "root").mkdir()
    ftp = FtpServer(tmp_path / "root")
    config = flow.Config(executors=[executor(tmp_path)], run_dir=str(tmp_path / "runinfo"), monitoring=MonitoringHub())
    with flow.load(config):
        made = upper(inputs=[File(web.url("/a"))], outputs=[File(ftp.url("/out"))])
        made.result(50)
    ftp.close()
    with open_database(str(tmp_path / "runinfo" / "monitoring.db")) as database, database.connect() as connection:
        run = workflows.page(connection).items[0]
        found = tasks.one(connection, run.run_id, made.tid)
    states = [change.status for change in found.history]
    assert states.count("staging") == 2
    assert states[-1] == "exec_done"
    assert states.index("staging") < states.index("launched")
