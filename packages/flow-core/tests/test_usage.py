"""Usage tracking: silent unless asked for, two datagrams a run without names, never in the way."""

from __future__ import annotations

import getpass
import json
import logging
import platform
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_core.observe.usage import UsageTracker


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        link.settimeout(30)
        yield link


def address(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def received(server: socket.socket) -> dict[str, object]:
    message: dict[str, object] = json.loads(server.recv(65536))
    return message


def test_it_sends_the_start_and_the_end(server: socket.socket) -> None:
    tracker = UsageTracker(True, address(server), version="0.1.0", script="/home/me/run.py", environ={})
    tracker.start(executors=2)
    start = received(server)
    tracker.end(executors=2, tasks=10, failures=1, exit_code=3)
    end = received(server)
    assert (start["event"], start["executors"], start["flow"], start["os"]) == ("start", 2, "0.1.0", platform.system())
    assert (end["event"], end["tasks"], end["failures"], end["exit_code"]) == ("end", 10, 1, 3)
    assert [start[name] for name in ("user", "host", "script")] == [end[name] for name in ("user", "host", "script")]


def test_it_names_nobody(server: socket.socket) -> None:
    tracker = UsageTracker(True, address(server), script="/home/me/secret_project.py", environ={})
    tracker.start(executors=1)
    message = received(server)
    tracker.end(executors=1, tasks=0, failures=0)
    sent = [message[name] for name in ("user", "host", "script")]
    for name in (getpass.getuser(), platform.node(), "/home/me/secret_project.py"):
        assert name not in sent


@pytest.mark.parametrize(
    ("enabled", "environ", "active"),
    [
        (False, {}, False),
        (True, {}, True),
        (False, {"FLOW_TRACKING": "true"}, True),
        (False, {"FLOW_TRACKING": "false"}, False),
    ],
)
def test_it_is_off_unless_asked_for(
    enabled: bool, environ: dict[str, str], active: bool, server: socket.socket
) -> None:
    before = threading.active_count()
    tracker = UsageTracker(enabled, address(server), environ=environ)
    assert tracker.active is active
    if not active:
        tracker.start(executors=1)
        tracker.end(executors=1, tasks=0, failures=0)
        assert threading.active_count() == before


def test_the_address_may_come_from_the_environment(server: socket.socket) -> None:
    environ = {"FLOW_TRACKING": "true", "FLOW_TRACKING_ADDRESS": address(server)}
    tracker = UsageTracker(environ=environ)
    tracker.start(executors=1)
    assert received(server)["event"] == "start"
    tracker.end(executors=1, tasks=0, failures=0)


@pytest.mark.parametrize("wrong", [None, "nonsense", "host:", "host:port", ":1", "host:99999"])
def test_without_an_address_nothing_is_sent_and_one_line_says_so(
    wrong: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "flow.usage"):
        tracker = UsageTracker(True, wrong, environ={})
    assert not tracker.active
    assert len(caplog.records) == 1


@pytest.mark.parametrize("asked", [(socket, "getaddrinfo"), (getpass, "getuser")])
def test_a_resolver_that_hangs_delays_nothing(asked: tuple[object, str], monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_args: object, **_kwargs: object) -> list[object]:
        released.wait(30)
        return []

    monkeypatch.setattr(*asked, hang)
    tracker = UsageTracker(True, "nowhere.invalid:1", environ={})
    tracker.start(executors=1)
    tracker.end(executors=1, tasks=0, failures=0)
    assert not released.is_set()
    released.set()


@pytest.mark.parametrize("what", ["thread", "directory"])
def test_what_the_process_lacks_is_no_error(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("can't start new thread")

    if what == "thread":
        monkeypatch.setattr(threading.Thread, "start", fail)
    else:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
    tracker = UsageTracker(True, "127.0.0.1:9", script="run.py", environ={})
    tracker.start(executors=1)
    tracker.end(executors=1, tasks=0, failures=0)


def test_no_network_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> list[object]:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    tracker = UsageTracker(True, "nowhere.invalid:1", environ={})
    tracker.start(executors=1)
    tracker.end(executors=1, tasks=0, failures=0)
