"""Transfers end with what they are for: cancelled tasks, walltimes, the end of the run; and slow hosts hold up none."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from staging_servers import Page, WebServer, drip, hang_at, visible

import flow_core as flow
from flow_core import File
from flow_core.errors import AppTimeout, StagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.kernel.live import why
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider
from flow_staging.ftp import FTPSeparateTaskStaging
from flow_staging.http import HTTPInTaskStaging, HTTPSeparateTaskStaging
from flow_staging.transfer.retry import RetryPolicy

SOON_S = 20.0
"""Long before any timeout of a transfer (60 s), however loaded the machine is."""


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def size(inputs=()):
    return Path(inputs[0].filepath).stat().st_size


def kernel_with(method, tmp_path, **options) -> flow.DataFlowKernel:
    executor = ThreadPoolExecutor(max_threads=4, working_dir=str(tmp_path / "wd"), storage_access=[method])
    return flow.DataFlowKernel(flow.Config(executors=[executor], initialize_logging=False, **options))


@pytest.fixture
def kernel(tmp_path):
    with kernel_with(HTTPSeparateTaskStaging(), tmp_path) as made:
        yield made


def fetching(kernel, *urls):
    return kernel.submit(size, inputs=[File(url) for url in urls])


def parts(tmp_path):
    """What is half made: beside files, and in the cache."""
    made = [path.name for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*.part")]
    return [*made, *(name for name in visible(tmp_path / "wd") if ".part" in name)]


@pytest.mark.parametrize("act", [drip(0.2), hang_at(100)], ids=["drips", "silent"])
def test_a_cancelled_task_ends_its_connection_and_leaves_nothing(web: WebServer, kernel, tmp_path, act):
    web.pages["/slow"] = Page(bytes(100_000))
    web.pages["/slow"].plan.append(act)
    future = fetching(kernel, web.url("/slow"))
    assert web.hanging.acquire(timeout=SOON_S)
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result(SOON_S)
    until(lambda: not kernel.staging.moves.all())
    assert parts(tmp_path) == []


def test_a_task_may_be_cancelled_at_any_moment(web: WebServer, kernel, tmp_path):
    for number in range(60):
        web.pages[f"/{number}"] = Page(bytes(100_000))
        web.pages[f"/{number}"].plan.append(hang_at(100))
    for number in range(60):
        future = fetching(kernel, web.url(f"/{number}"))
        time.sleep(number * 0.0002)
        assert future.cancel()
    until(lambda: kernel.transfers() == [])
    assert parts(tmp_path) == []


def test_the_server_sees_the_connection_end(web: WebServer, kernel):
    web.pages["/slow"] = Page(bytes(100_000))
    web.pages["/slow"].plan.append(drip(0.2))
    future = fetching(kernel, web.url("/slow"))
    assert web.hanging.acquire(timeout=SOON_S)
    future.cancel()
    assert web.left.acquire(timeout=SOON_S)


def test_a_server_that_accepts_and_says_nothing_is_left_too(kernel):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        future = fetching(kernel, f"http://127.0.0.1:{listener.getsockname()[1]}/never")
        listener.settimeout(SOON_S)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(SOON_S)
            asked = connection.recv(65536)
            assert asked.startswith(b"GET /never")
            assert future.cancel()
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(65536) == b""


def test_what_another_task_waits_for_goes_on_until_the_last_has_gone(web: WebServer, kernel, tmp_path):
    web.pages["/shared"] = Page(bytes(200_000))
    go = threading.Event()

    def wait_in_the_middle(handler, start, status):
        handler.head(web.pages["/shared"], start, status)
        handler.pour(web.pages["/shared"], start, 100_000)
        handler.wfile.flush()
        web.hanging.release()
        go.wait(SOON_S)
        handler.pour(web.pages["/shared"], 100_000, 200_000)
        return True

    web.pages["/shared"].plan.append(wait_in_the_middle)
    first = fetching(kernel, web.url("/shared"))
    assert web.hanging.acquire(timeout=SOON_S)
    second = fetching(kernel, web.url("/shared"))
    until(lambda: len(kernel.staging.moves.all()) == 2)
    assert first.cancel()
    go.set()
    assert second.result(SOON_S) == 200_000
    assert [headers.get("Range") for _, headers in web.seen] == [None] * len(web.seen)
    assert sum("If-None-Match" not in headers for _, headers in web.seen) == 1, "it was fetched once"


def test_what_nobody_waits_for_any_more_is_stopped(web: WebServer, kernel):
    web.pages["/shared"] = Page(bytes(200_000))
    web.pages["/shared"].plan.append(drip(0.2))
    futures = [fetching(kernel, web.url("/shared")) for _ in range(3)]
    assert web.hanging.acquire(timeout=SOON_S)
    until(lambda: len(kernel.staging.moves.all()) == 3)
    for future in futures:
        assert future.cancel()
    assert web.left.acquire(timeout=SOON_S)


def test_files_are_brought_in_within_the_walltime(web: WebServer, kernel):
    web.pages["/slow"] = Page(bytes(100_000))
    web.pages["/slow"].plan.append(drip(0.2))
    app = flow.python_app(size, data_flow_kernel=kernel, walltime=1)
    told = r"task 0 \(size\): its files were not brought in within its walltime of 1 s: .*/slow \(.* of 100,000 bytes, "
    with pytest.raises(AppTimeout, match=told):
        app(inputs=[File(web.url("/slow"))]).result(SOON_S)
    assert web.left.acquire(timeout=SOON_S)


def test_a_slow_host_delays_no_other(web: WebServer, kernel):
    other = WebServer()
    try:
        for number in range(30):
            web.pages[f"/{number}"] = Page(bytes(100_000))
            web.pages[f"/{number}"].plan.append(drip(0.5))
        other.pages["/quick"] = Page(b"quick")
        slow = [fetching(kernel, web.url(f"/{number}")) for number in range(30)]
        for _ in range(8):
            assert web.hanging.acquire(timeout=SOON_S)
        assert fetching(kernel, other.url("/quick")).result(SOON_S) == 5
        assert not any(future.done() for future in slow)
        for future in slow:
            future.cancel()
        for _ in range(8):
            assert web.left.acquire(timeout=SOON_S)
    finally:
        other.close()


# -- outputs


@pytest.fixture
def silent():
    pytest.importorskip("pyftpdlib")
    from staging_ftp import SilentFtpServer

    server = SilentFtpServer()
    yield server
    server.close()


def grow(size, outputs=()):
    with open(outputs[0], "wb") as stream:
        stream.truncate(size)


@pytest.fixture
def sending(tmp_path):
    with kernel_with(FTPSeparateTaskStaging(), tmp_path) as made:
        yield made


def test_an_output_on_its_way_is_stopped_with_kill_and_goes_on_without(silent, sending):
    future = flow.python_app(grow, data_flow_kernel=sending)(
        silent.SIZE, outputs=[File(f"ftp://127.0.0.1:{silent.port}/out")]
    )
    assert silent.hanging.acquire(timeout=SOON_S)
    assert future.cancel() is False, "the function has run"
    assert future.task_status() == "staging"
    assert future.cancel(kill=True)
    with pytest.raises(CancelledError):
        future.outputs[0].result(SOON_S)
    assert silent.left.acquire(timeout=SOON_S)
    until(lambda: len(silent.deleted) == 1)


def test_outputs_are_brought_out_within_the_walltime(silent, sending):
    app = flow.python_app(grow, data_flow_kernel=sending, walltime=1)
    future = app(silent.SIZE, outputs=[File(f"ftp://127.0.0.1:{silent.port}/out")])
    told = (
        r"task 0 \(grow\): its files were not brought out within its walltime of 1 s: ftp://.*/out \(.* of 100,000,000"
    )
    with pytest.raises(AppTimeout, match=told):
        future.result(SOON_S)
    assert silent.left.acquire(timeout=SOON_S)
    until(lambda: len(silent.deleted) == 1)


# -- within the task


@pytest.mark.parametrize("act", [drip(0.2), hang_at(100)], ids=["drips", "silent"])
@pytest.mark.parametrize("number", [1, 3], ids=["one file", "several"])
def test_a_killed_task_in_a_thread_leaves_its_server(web: WebServer, tmp_path, act, number):
    for one in range(number):
        web.pages[f"/{one}"] = Page(bytes(100_000))
        web.pages[f"/{one}"].plan.append(act)
    with kernel_with(HTTPInTaskStaging(), tmp_path) as kernel:
        future = fetching(kernel, *(web.url(f"/{one}") for one in range(number)))
        for _ in range(number):
            assert web.hanging.acquire(timeout=SOON_S)
        assert future.cancel(kill=True)
        with pytest.raises(CancelledError):
            future.result(SOON_S)
        until(lambda: parts(tmp_path) == [])


def test_a_walltime_ends_a_silent_transfer_in_a_thread(web: WebServer, tmp_path):
    web.pages["/a"] = Page(bytes(100_000))
    web.pages["/a"].plan.append(hang_at(100))
    with kernel_with(HTTPInTaskStaging(), tmp_path) as kernel:
        app = flow.python_app(size, data_flow_kernel=kernel, walltime=1)
        with pytest.raises(AppTimeout, match="walltime of 1 s"):
            app(inputs=[File(web.url("/a"))]).result(SOON_S)
        until(lambda: parts(tmp_path) == [])


@pytest.mark.parametrize("number", [1, 3], ids=["one file", "several"])
def test_a_worker_that_is_told_to_end_takes_away_what_is_half_made(web: WebServer, tmp_path, number):
    paths = [f"/{one}" for one in range(number)]
    for path in paths:
        web.pages[path] = Page(bytes(100_000))
        web.pages[path].plan.append(hang_at(100))
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from flow_core.interfaces.call import NodeContext
from flow_staging import HTTPInTaskStaging
from staging_servers import incoming
files = [incoming({web.url("")!r} + path, Path("wd") / path[1:]) for path in {paths!r}]
HTTPInTaskStaging().step(files).run(lambda: None, NodeContext(executor="here", main_thread=True))
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as process:
        for _ in range(number):
            assert web.hanging.acquire(timeout=SOON_S)
        assert len(parts(tmp_path)) == number
        process.terminate()
        assert process.wait(SOON_S) == -signal.SIGTERM
    assert parts(tmp_path) == []


def test_a_killed_task_of_a_worker_process_leaves_its_server(web: WebServer, tmp_path):
    web.pages["/a"] = Page(bytes(100_000))
    web.pages["/a"].plan.append(drip(0.2))
    nodes = HighThroughputExecutor(
        label="nodes",
        max_workers=1,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
        storage_access=[HTTPInTaskStaging()],
        working_dir=str(tmp_path / "wd"),
    )
    with flow.DataFlowKernel(flow.Config(executors=[nodes], initialize_logging=False)) as kernel:
        future = fetching(kernel, web.url("/a"))
        assert web.hanging.acquire(timeout=2 * SOON_S)
        until(lambda: future.task_status() == "running")
        assert future.cancel(kill=True)
        assert web.left.acquire(timeout=SOON_S)
        with pytest.raises(CancelledError):
            future.result(SOON_S)
        until(lambda: parts(tmp_path) == [])


@pytest.fixture
def silent_ssh(tmp_path):
    """An ssh that says nothing and has started another process; and where it notes the ids of both."""
    if shutil.which("rsync") is None:
        pytest.skip("rsync is missing")
    script, pids = tmp_path / "ssh", tmp_path / "pids"
    script.write_text(f"#!/bin/sh\nsleep 1000 &\necho $$ $! > {pids}.new; mv {pids}.new {pids}; wait\n")
    script.chmod(0o755)
    return script, pids


def gone(pids: Path) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split())


@pytest.mark.parametrize("how", ["kill", "walltime", "SIGTERM"])
def test_rsync_ends_with_its_task_and_all_that_it_has_started(silent_ssh, tmp_path, how):
    script, pids = silent_ssh
    code = f"""
import time
import flow_core as flow
from flow_core.executors.threads import ThreadPoolExecutor
from flow_staging import RSyncStaging
executor = ThreadPoolExecutor(working_dir="wd", storage_access=[RSyncStaging("me@nowhere", ssh={str(script)!r})])
kernel = flow.load(flow.Config(executors=[executor], initialize_logging=False))
app = flow.python_app(len, data_flow_kernel=kernel, walltime=1 if {how!r} == "walltime" else None)
(kernel.run_dir / "input").write_text("")
future = app([flow.File(str(kernel.run_dir / "input"))])
try:
    input()
    if {how!r} == "kill":
        print(future.cancel(kill=True))
    print(future.exception(30) if {how!r} == "walltime" else "", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    pass
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, text=True) as process:
        try:
            until(pids.exists)
            assert not gone(pids)
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            if how == "SIGTERM":
                process.terminate()
            until(lambda: gone(pids))
        finally:
            process.kill()


# -- the end of the run


@pytest.mark.parametrize("how", ["cleanup", "end", "SIGINT", "SIGTERM"])
@pytest.mark.parametrize("method", ["HTTPSeparateTaskStaging", "HTTPInTaskStaging"])
def test_the_end_of_the_run_ends_its_transfers(web: WebServer, tmp_path, how, method):
    web.pages["/a"] = Page(bytes(100_000))
    web.pages["/a"].plan.append(drip(0.2))
    code = f"""
import sys, time
import flow_core as flow
from flow_core.executors.threads import ThreadPoolExecutor
from flow_staging import {method}
executor = ThreadPoolExecutor(working_dir="wd", storage_access=[{method}()])
kernel = flow.load(flow.Config(executors=[executor], initialize_logging=False))
future = kernel.submit(len, [flow.File({web.url("/a")!r})])
sys.stdin.readline()
if {how!r} == "cleanup":
    kernel.cleanup()
    print("cleaned", flush=True)
    time.sleep(60)
if {how!r} != "end":
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, text=True) as process:
        try:
            assert web.hanging.acquire(timeout=SOON_S)
            assert process.stdin is not None
            if not how.startswith("SIG"):
                process.stdin.write("\n")
                process.stdin.flush()
            else:
                process.send_signal(getattr(signal, how))
            assert web.left.acquire(timeout=SOON_S)
            assert how == "cleanup" or process.wait(SOON_S) is not None
            until(lambda: parts(tmp_path) == [])
        finally:
            process.kill()


# -- speed


def test_a_server_that_is_too_slow_is_given_up_with_its_speed_and_the_option(web: WebServer, tmp_path):
    web.pages["/a"] = Page(bytes(100_000))
    web.pages["/a"].plan.extend([drip(0.05)] * 2)
    policy = RetryPolicy(tries=2, first_delay_s=0.01, least_speed=1e6, least_speed_window_s=0.5)
    with kernel_with(HTTPSeparateTaskStaging(retry=policy), tmp_path) as kernel:
        told = r"/a .*too slow: .* bytes/s over \d+ s, where least_speed=1e\+06, .*tried 2 times"
        with pytest.raises(StagingError, match=told):
            fetching(kernel, web.url("/a")).result(SOON_S)
    for _ in range(2):
        assert web.left.acquire(timeout=SOON_S)
    assert "bytes=" in web.seen[1][1]["Range"], "the second connection went on where the first was"


# -- progress


def test_how_far_a_transfer_is_can_be_asked(web: WebServer, kernel):
    web.pages["/a"] = Page(bytes(100_000))
    web.pages["/a"].plan.append(drip(0.02, start=50_000))
    future = fetching(kernel, web.url("/a"))
    assert web.hanging.acquire(timeout=SOON_S)
    until(lambda: [one.progress.moved >= 50_000 for one in kernel.transfers()] == [True])
    (moving,) = kernel.transfers()
    assert moving.progress is not None
    assert (moving.transfer.task_id, moving.progress.total) == (future.tid, 100_000)
    assert re.fullmatch(r".*/a \(50,\d\d\d of 100,000 bytes, [\d,]+ bytes/s\)", str(moving))
    assert re.search(
        r"/a is being brought in by .* since .*: 50,\d\d\d of 100,000 bytes, [\d,]+ bytes/s", future.why().line
    )
    told = r"- 1 file is being moved: 50,\d\d\d bytes so far, [\d,]+ bytes/s"
    assert re.search(told, why(kernel.run_dir))
    future.cancel()
    until(lambda: kernel.transfers() == [])


def until(true, timeout_s: float = SOON_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
