"""The relay of a reverse forward, run here: other machines reach by it what listens on this one only."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_providers.channels.ssh_relay import RELAY

PATIENCE_S = 20


@pytest.fixture(params=["path", "port"])
def echo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A server that sends back what it gets; its address as the relay is told it."""
    if request.param == "path":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "s"))
        where = str(tmp_path / "s")
    else:
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{server.getsockname()[1]}"
    server.listen()
    thread = threading.Thread(target=serve, args=(server,))
    thread.start()
    yield where
    server.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE_S)
    server.close()


def serve(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            while piece := connection.recv(65536):
                connection.sendall(piece)


def test_connections_are_passed_on_until_the_session_ends(echo: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RELAY, echo, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        addresses = process.stdout.readline().split()
        ports = {address.rpartition(":")[2] for address in addresses}
        assert addresses[0].startswith(socket.gethostname())
        assert len(ports) == 1
        sent = bytes(range(256)) * 4096
        with socket.create_connection(("127.0.0.1", int(ports.pop())), PATIENCE_S) as connection:
            sender = threading.Thread(target=connection.sendall, args=(sent,))
            sender.start()
            back = b""
            while len(back) < len(sent):
                back += connection.recv(1 << 20)
            sender.join(PATIENCE_S)
        assert back == sent
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0
