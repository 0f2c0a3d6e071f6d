"""The door for managers from the network: what a stranger may announce is bounded, what a manager says is not."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest
import zmq

from flow_executors.common.interchange_settings import ProcessSettings
from flow_executors.direct.sockets import DirectSockets
from flow_executors.interchange.sockets import InterchangeSockets
from flow_executors.manager.interchange_transports import NetworkTransport
from flow_executors.wire.auth import BlockSecret, make_pair
from flow_executors.wire.messages import PeerInfo, pack_hello
from flow_executors.wire.transport import PART_BYTES, split

HELLO = pack_hello(PeerInfo("manager", "run"))
SERVER, BLOCK = make_pair(), make_pair()


@contextmanager
def opened(kind: type[InterchangeSockets]) -> Iterator[tuple[InterchangeSockets, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    sockets = kind(
        ProcessSettings(
            "run", "htex", "3.11", 0, f"tcp://127.0.0.1:{port}", listener.detach(), -1, -1, SERVER.public.decode(),
            SERVER.secret.decode(), ((BLOCK.public.decode(), "b0"),),
        )
    )  # fmt: skip
    try:
        yield sockets, port
    finally:
        sockets.close(0)


def heard(sockets: InterchangeSockets, count: int) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    deadline = time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < deadline
        sockets.authenticate()
        found += [(block, bytes(message)) for _, block, message in sockets.receive(10)]
        select.select((), (), (), 0.002)
    return found


@pytest.mark.parametrize("kind", [InterchangeSockets, DirectSockets])
def test_long_messages_of_a_manager_arrive_whole_and_in_order(kind: type[InterchangeSockets]) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sizes = (1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES, 5_000_001)
    messages = [b"?" + os.urandom(size) for size in sizes]
    with opened(kind) as (sockets, port):
        way = NetworkTransport(
            context, "127.0.0.1", f"tcp://127.0.0.1:{port}", BlockSecret("b0", SERVER.public, BLOCK), HELLO
        )
        for message in messages:
            way.send(message)
        assert heard(sockets, 1 + len(messages)) == [("b0", HELLO), *(("", message) for message in messages)]
        way.close()
    context.term()


def test_a_hundred_strangers_that_announce_much_hold_little() -> None:
    """A Curve greeting, then a command of 1.5 GiB that never ends."""
    me = psutil.Process()
    with opened(InterchangeSockets) as (_, port), ExitStack() as stack:
        before = me.memory_info().rss
        strangers = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(100)]
        for stranger in strangers:
            stranger.sendall(b"\xff" + b"\0" * 8 + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + b"\0" * 32)
            assert stranger.recv(64)
        sent = 0
        for stranger in strangers:
            try:
                stranger.sendall(b"\x06" + struct.pack(">Q", 1536 << 20))
                for _ in range(64):
                    sent += stranger.send(b"A" * (1 << 16))
            except OSError:  # closed by the other side, as it should be
                continue
        assert all(map(_closed, strangers)), f"open after {sent} bytes"
        assert me.memory_info().rss - before < 20e6


def _closed(end: socket.socket) -> bool:
    end.settimeout(20)
    try:
        while end.recv(4096):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_where_no_manager_comes_by_the_network_nothing_listens() -> None:
    before = _listening()
    sockets = InterchangeSockets(
        ProcessSettings("run", "htex", "3.11", 0, "", -1, -1, -1, SERVER.public.decode(), SERVER.secret.decode())
    )
    assert _listening() == before
    assert list(sockets.receive(10)) == []
    sockets.close(0)


def _listening() -> set[object]:
    me = psutil.Process()
    ask = getattr(me, "net_connections", None) or me.connections  # before psutil 6
    return {one.laddr for one in ask("tcp") if one.status == "LISTEN"}


def test_parts_are_views_of_the_message() -> None:
    message = bytes(3 * PART_BYTES + 5)
    parts = split(message)
    assert [len(part) for part in parts] == [PART_BYTES] * 3 + [5]
    assert all(isinstance(part, memoryview) and part.obj is message for part in parts)
