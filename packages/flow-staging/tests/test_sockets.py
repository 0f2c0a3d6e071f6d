"""Connections end with their transfer, at whatever moment it is stopped."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import urllib3

from flow_staging.ftp_connection import FtpLogin
from flow_staging.ftp_pool import FtpSessions
from flow_staging.transfer.handle import Handle
from flow_staging.transfer.retry import RetryPolicy
from flow_staging.transfer.sockets import watching

LONG_S = 50.0


@pytest.fixture
def silent():
    """A port where everything is accepted and nothing said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def ask(port: int) -> None:
    pool = watching(urllib3.poolmanager.pool_classes_by_scheme)["http"](
        "127.0.0.1", port, timeout=LONG_S, retries=False
    )
    try:
        pool.urlopen("GET", "/")
    finally:
        pool.close()


def log_in(port: int) -> None:
    FtpSessions().take(FtpLogin("127.0.0.1", port, "me", ""), RetryPolicy(connect_timeout_s=LONG_S))


@pytest.mark.parametrize("use", [ask, log_in])
def test_what_was_stopped_before_it_had_a_socket_does_not_wait_for_the_server(silent, use):
    handle = Handle()
    handle.set()
    began = time.monotonic()
    with handle, pytest.raises((urllib3.exceptions.HTTPError, OSError, EOFError)):
        use(silent)
    assert time.monotonic() - began < LONG_S / 2


@pytest.mark.parametrize("use", [ask, log_in])
def test_what_waits_for_the_server_is_cut(silent, use):
    handle = Handle()
    began = time.monotonic()
    threading.Timer(0.2, handle.set).start()
    with handle, pytest.raises((urllib3.exceptions.HTTPError, OSError, EOFError)):
        use(silent)
    assert time.monotonic() - began < LONG_S / 2
