"""How far files are that move for long: kernel.transfers(), why(), events, the page of the task, the progress bar."""

from __future__ import annotations

import io
import multiprocessing
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from rich.console import Console
from staging_servers import QUICK, Page, drip, incoming

import flow_core as flow
from flow.progress import ProgressBar
from flow_core.events import Event, EventKind, FileMoving
from flow_core.executors.futures import FuturesExecutor
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import Directory, File
from flow_core.interfaces.sinks import RunInfo
from flow_core.kernel import progress
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor
from flow_monitor import MonitoringHub
from flow_monitor.queries import tasks
from flow_monitor.queries.database import open_database
from flow_providers import LocalProvider
from flow_staging import HTTPInTaskStaging, HTTPSeparateTaskStaging, S3Staging
from flow_staging.transfer import handle
from flow_viz.app import create_app

pytestmark = pytest.mark.timeout(120)


@flow.python_app
def size_of(inputs: Any = ()) -> int:
    return len(Path(inputs[0]).read_bytes())


class Sink:
    wants = EventKind.FILE

    def __init__(self) -> None:
        self.events: list[Event] = []

    def start(self, run: object) -> None: ...

    def emit(self, events: Sequence[Event]) -> None:
        self.events.extend(events)

    def close(self, timeout_s: float) -> int:
        return 0

    def moving(self) -> list[FileMoving]:
        return [event for event in self.events if isinstance(event, FileMoving)]


def until(ready: Any, bound_s: float = 60.0) -> Any:
    ends = time.monotonic() + bound_s
    while not (found := ready()):
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.02)
    return found


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take short transfers for long ones."""
    monkeypatch.setattr(handle, "_TELL_S", 0.2)
    monkeypatch.setattr(handle, "_MARK_S", 0.1)
    monkeypatch.setattr(progress.ProgressTicker.__init__, "__defaults__", (0.2,))


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("kind", [HTTPSeparateTaskStaging, HTTPInTaskStaging])
def test_a_slow_file_is_told_of_wherever_it_is_moved(web, tmp_path, kind):
    web.pages["/slow"] = Page(b"x" * 100, plan=deque([drip(0.05)]))
    sink, url = Sink(), web.url("/slow")
    executor = ThreadPoolExecutor(
        storage_access=[NoOpFileStaging(), kind(retry=QUICK)], working_dir=str(tmp_path / "wd")
    )
    config = flow.Config(executors=[executor], sinks=[sink], run_dir=str(tmp_path / "runinfo"))
    with flow.load(config) as kernel:
        future = size_of(inputs=[File(url)])
        one = until(lambda: [each for each in kernel.transfers() if each.progress and each.progress.moved > 2])[0]
        assert one.transfer.file.url == url
        assert one.progress.total == 100
        assert f"{url} is being brought in by" in str(future.why())
        assert "1 file is being moved" in str(kernel.why_waiting())
        told = until(lambda: len(sink.moving()) >= 2 and sink.moving())
        future.cancel(kill=True)
        until(lambda: not kernel.transfers())
    assert {(event.task_id, event.url, event.direction, event.total) for event in told} == {(0, url, "in", 100)}
    assert told[1].moved > told[0].moved > 0
    assert told[1].speed > 0


def test_a_file_that_moves_for_a_moment_only_is_not_told_of(web, tmp_path):
    web.pages["/fast"] = Page(b"x" * 100)
    sink = Sink()
    executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), HTTPInTaskStaging(retry=QUICK)])
    with flow.load(flow.Config(executors=[executor], sinks=[sink], run_dir=str(tmp_path / "runinfo"))):
        assert size_of(inputs=[File(web.url("/fast"))]).result(60) == 100
    assert sink.moving() == []


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("sampled", [False, True])
def test_a_pool_of_processes_tells(web, tmp_path, sampled):
    web.pages["/slow"] = Page(b"x" * 100, plan=deque([drip(0.05)]))
    web.pages["/fast"] = Page(b"x" * 100)
    sink, url = Sink(), web.url("/slow")
    # Forked, so that its workers take short transfers for long ones, too.
    executor = FuturesExecutor("pool", partial(ProcessPoolExecutor, 2, multiprocessing.get_context("fork")))
    executor.storage_access = [NoOpFileStaging(), HTTPInTaskStaging(retry=QUICK)]
    executor.working_dir = str(tmp_path / "wd")
    monitoring = MonitoringHub(resource_monitoring_interval=0.2) if sampled else None
    config = flow.Config(executors=[executor], sinks=[sink], monitoring=monitoring, run_dir=str(tmp_path / "runinfo"))
    with flow.load(config) as kernel:
        future = size_of(inputs=[File(url)])
        assert size_of(inputs=[File(web.url("/fast"))]).result(60) == 100
        one = until(lambda: [each for each in kernel.transfers() if each.progress and each.progress.moved > 2])[0]
        assert (one.transfer.file.url, one.progress.total) == (url, 100)
        assert f"{url} is being brought in by" in str(future.why())
        of_slow = lambda: [event for event in sink.moving() if event.url == url]  # noqa: E731
        told = until(lambda: len(of_slow()) >= 2 and of_slow())
        assert future.result(60) == 100
        until(lambda: not kernel.transfers())
    assert {(event.task_id, event.url, event.direction, event.total) for event in told} == {(0, url, "in", 100)}
    assert list((tmp_path / "runinfo").rglob("*.reports")) == []


def test_tasks_of_pools_without_staged_files_leave_no_files(tmp_path):
    (tmp_path / "here").write_bytes(b"x")
    with flow.load(
        flow.Config(executors=[FuturesExecutor("pool", partial(ProcessPoolExecutor, 1))], run_dir=str(tmp_path / "run"))
    ):
        assert size_of(inputs=[File(str(tmp_path / "here"))]).result(60) == 1
        assert list((tmp_path / "run").rglob("reports")) == []


def test_a_node_tells_and_the_page_of_the_task_shows_it(web, tmp_path):
    web.pages["/slow"] = Page(b"x" * 1000, plan=deque([drip(0.1)]))
    url = web.url("/slow")
    htex = HighThroughputExecutor(
        label="htex",
        provider=LocalProvider(init_blocks=1, max_blocks=1),
        max_workers_per_node=1,
        storage_access=[NoOpFileStaging(), HTTPInTaskStaging(retry=QUICK)],
        working_dir=str(tmp_path / "node"),
    )
    config = flow.Config(executors=[htex], monitoring=MonitoringHub(), run_dir=str(tmp_path / "runinfo"))
    database = str(tmp_path / "runinfo" / "monitoring.db")
    with flow.load(config) as kernel:
        future = size_of(inputs=[File(url)])
        one = until(kernel.transfers)[0]
        assert (one.transfer.file.url, one.method) == (url, None)
        assert one.progress.moved > 10
        assert one.progress.total == 1000
        assert f"{url} is being brought in by its node" in str(future.why())

        def shown() -> Any:
            with open_database(database) as opened, opened.connect() as connection:
                return tasks.one(connection, kernel.run_id, 0).moving

        (move,) = until(lambda: Path(database).exists() and shown())
        assert (move.url, move.direction, move.total) == (url, "in", 1000)
        page = create_app(open_database(database)).test_client().get(f"/workflow/{kernel.run_id}/task/0")
        assert "Files being moved" in page.text
        assert future.cancel(kill=True)
        until(lambda: not kernel.transfers())


def test_the_progress_bar_draws_files_that_move(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bar = ProgressBar(console)
    bar.start(RunInfo("run", 0, tmp_path / "000", "test", 0))
    bar.emit([FileMoving(1, 0, "http://h/a", "in", 3_000_000, 10_000_000, 2e6)])
    bar.emit([FileMoving(1, 1, "http://h/b", "in", 1_000_000, -1, 1e6)])
    row = bar._bars.progress.tasks[bar._bars._files_row]
    assert (row.description, row.completed, row.total) == ("MB of 2 files, 3.0 MB/s", 4, None)
    bar.close(1.0)
    assert "MB of 2 files" in console.file.getvalue()


@pytest.mark.usefixtures("soon")
@pytest.mark.services
def test_a_directory_counts_the_bytes_of_all_its_files(moto, s3_login, tmp_path):
    endpoint = f"http://127.0.0.1:{moto}"
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="progress")
    for name in "abc":
        client.put_object(Bucket="progress", Key=f"d/{name}", Body=b"x" * 1000)
    method = S3Staging(endpoint_url=endpoint, retry=QUICK)
    transfer = replace(incoming("s3://progress/d", tmp_path / "d"), file=Directory("s3://progress/d"))
    future = method.stage([transfer])
    future.result(60)
    (far,) = future.progress()
    assert far.moved == 3000
    method.close()
