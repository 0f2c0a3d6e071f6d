"""The way within the machine: managers come by it without encryption, and nobody else does."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from flow_executors.common import unix_socket_server
from flow_executors.common.unix_socket_server import UnixSocketServer
from flow_executors.manager.interchange_link import InterchangeConnection
from flow_executors.manager.interchange_liveness import ConnectionState
from flow_executors.manager.interchange_transports import DirectResultChannel, UnixTransport
from flow_executors.wire.auth import BlockSecret, make_pair
from flow_executors.wire.messages import PeerInfo, pack_hello
from flow_executors.wire.transport import PREFIX, address_of, connect_locally, is_own, listen_locally

HELLO = pack_hello(PeerInfo("manager", "run"))
LARGE = os.urandom(5 << 20)


class House:
    """A door, the key of one block, and the ways to it."""

    def __init__(self) -> None:
        self.listener = listen_locally()
        self.secret = BlockSecret("b0", make_pair().public, make_pair())
        self.admitted = {_raw(self.secret.pair.public): "b0"}
        self.sockets = UnixSocketServer(os.dup(self.listener.fileno()), self.admitted)
        self.address = address_of(self.listener)
        self.heard: list[tuple[bytes, str, bytes]] = []

    def way(self, secret: BlockSecret | None = None) -> UnixTransport:
        return UnixTransport(self.address, secret or self.secret, HELLO)

    def listen(self) -> int:
        self.heard += [(peer, block, bytes(message)) for peer, block, message in self.sockets.receive()]
        return len(self.heard)

    def close(self) -> None:
        self.sockets.close()
        self.listener.close()


def _raw(key: bytes) -> bytes:
    from zmq.utils import z85

    raw: bytes = z85.decode(key)
    return raw


def _connect_at_once(address: str) -> socket.socket | None:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    try:
        made.connect("\0" + address.removeprefix(PREFIX))
    except BlockingIOError:
        made.close()
        return None
    return made


def until(condition: Callable[[], object], *descriptors: int) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        select.select(descriptors, (), (), 0.05)


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def test_a_guest_with_an_admitted_key_is_heard_with_its_block_and_answered(house: House) -> None:
    way = house.way()
    until(house.listen, house.sockets.fileno())
    ((peer, block, message),) = house.heard
    assert (block, message) == ("b0", HELLO)
    assert house.sockets.send(peer, b"welcome")
    got: list[bytes] = []
    until(lambda: got.extend(map(bytes, way.receive())) or got, *way.descriptors())
    assert got == [b"welcome"]
    way.close()


def test_what_does_not_fit_at_once_goes_later_both_ways(house: House) -> None:
    way = house.way()
    until(house.listen, house.sockets.fileno())
    peer = house.heard[0][0]
    way.send(LARGE)
    way.send(b"after")
    answers: list[bytes] = []

    def turn() -> bool:
        answers.extend(map(bytes, way.receive()))
        return house.listen() == 3

    until(turn, house.sockets.fileno(), *way.descriptors())
    assert [message for _, _, message in house.heard[1:]] == [LARGE, b"after"]
    house.sockets.send(peer, LARGE)
    house.sockets.send(peer, b"after")

    def back() -> bool:
        house.listen()
        answers.extend(map(bytes, way.receive()))
        return len(answers) == 2

    until(back, house.sockets.fileno(), *way.descriptors())
    assert answers == [LARGE, b"after"]
    way.close()


@pytest.mark.parametrize("first", [make_pair().public, b"", b"no key", b"\xff" * 40])
def test_without_an_admitted_key_nobody_is_heard_or_answered(house: House, first: bytes) -> None:
    stranger = connect_locally(house.address)
    stranger.setblocking(True)
    stranger.settimeout(10)
    for message in (first, HELLO):
        stranger.sendall(len(message).to_bytes(4, "little") + message)
    until(lambda: house.listen() or _ended(stranger), house.sockets.fileno())
    assert house.heard == []
    assert house.sockets.disconnected() == []
    stranger.close()


def _ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_guests_whose_key_is_not_known_yet_take_little_room(house: House) -> None:
    tracemalloc.start()
    try:
        guests = []
        for _ in range(200):
            guests.append(connect_locally(house.address))
            house.listen()
        assert len(house.sockets._by_descriptor) == 200
        assert tracemalloc.get_traced_memory()[0] < 200 * 10_000
    finally:
        tracemalloc.stop()
    for guest in guests:
        guest.close()


def test_noise_ends_the_connection_it_came_by_and_no_other(house: House) -> None:
    way, noisy = house.way(), connect_locally(house.address)
    noisy.setblocking(True)
    noisy.sendall(b"\xff" * 1000)
    until(lambda: house.listen() and _ended(noisy), house.sockets.fileno())
    way.send(b"still here")
    until(lambda: house.listen() == 2, house.sockets.fileno())
    way.close()
    noisy.close()


def test_what_was_said_before_the_end_is_heard_and_then_the_end(house: House) -> None:
    way = house.way()
    way.send(b"last words")
    way.close(1000)
    gone: list[bytes] = []
    until(lambda: house.listen() and (gone.extend(house.sockets.disconnected()) or gone), house.sockets.fileno())
    assert [message for _, _, message in house.heard] == [HELLO, b"last words"]
    assert gone == [house.heard[0][0]]
    assert not house.sockets.send(gone[0], b"anybody?")


def test_the_end_of_the_other_side_is_found_after_its_last_words(house: House) -> None:
    line = InterchangeConnection((house.address, "127.0.0.1"), 1, house.secret)
    line.seek(HELLO)
    until(house.listen, house.sockets.fileno())
    house.sockets.send(house.heard[0][0], b"bye")
    house.sockets.close()
    got: list[bytes] = []
    until(lambda: got.extend(map(bytes, line.receive())) or got, *line.descriptors())
    assert got == [b"bye"]
    assert line.home == house.address
    until(lambda: line.waiting or line.receive() or line.broken, *line.descriptors())
    assert line.receive() == []
    assert line.broken
    line.close()


def test_the_hosts_are_called_only_where_the_machines_own_way_leads_nowhere(house: House) -> None:
    line = InterchangeConnection(("127.0.0.1", house.address), 1, house.secret)
    line.seek(HELLO)
    assert line.state() == {house.address: ConnectionState.OPEN}
    line.seek(HELLO)
    house.close()
    until(lambda: line.receive() or len(line.state()) == 2, *line.descriptors())
    line.seek(HELLO)
    assert line.state()[house.address] is ConnectionState.REFUSED
    assert "127.0.0.1" in line.state()
    line.close()


def test_other_users_are_nothing_to_each_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = connect_locally(house.address)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert not is_own(stranger)
    with pytest.raises(PermissionError, match="another user"):
        connect_locally(house.address)
    until(lambda: house.listen() or _ended(stranger), house.sockets.fileno())
    assert house.heard == []
    stranger.close()


def test_who_finds_no_descriptor_free_waits_until_somebody_leaves(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = house.way()
    until(house.listen, house.sockets.fileno())
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "accept", lambda _: (_ for _ in ()).throw(OSError(24, "Too many open files")))
        second = house.way()
        until(lambda: house.listen() or not select.select([house.sockets.fileno()], [], [], 0)[0])
    assert house.listen() == 1
    assert not select.select([house.sockets.fileno()], [], [], 0)[0]
    first.close()
    until(lambda: house.listen() == 2, house.sockets.fileno())
    second.close()


def test_without_a_listening_socket_nobody_comes() -> None:
    sockets = UnixSocketServer(-1, {})
    assert sockets.receive() == []
    sockets.close()


def test_the_short_way_is_heard_as_long_as_somebody_reads(house: House) -> None:
    way = DirectResultChannel(house.address, house.secret)
    assert way.tell(b"a result")
    until(house.listen, house.sockets.fileno())
    assert [message for _, _, message in house.heard] == [b"a result"]
    told = 0
    while way.tell(LARGE[: 100 << 10]):  # nobody reads
        told += 1
        assert told < 1000
    assert not way.tell(b"no more")
    way.close()


def test_the_short_way_ends_with_its_other_end(house: House) -> None:
    way = DirectResultChannel(house.address, house.secret)
    house.listen()  # it is let in
    house.sockets.close()
    assert not way.tell(b"a result")
    way.close()


def test_where_nobody_listens_there_is_no_short_way(house: House) -> None:
    house.listener.close()
    house.sockets.close()
    with pytest.raises(OSError, match="refused"):
        DirectResultChannel(house.address, house.secret)


def test_no_more_are_let_in_than_there_is_room_for() -> None:
    listener, secret = listen_locally(), BlockSecret("b0", make_pair().public, make_pair())
    sockets = UnixSocketServer(os.dup(listener.fileno()), {_raw(secret.pair.public): "b0"}, most=1)
    first = DirectResultChannel(address_of(listener), secret)
    sockets.receive()
    second = DirectResultChannel(address_of(listener), secret)
    sockets.receive()
    assert first.tell(b"heard")
    assert not second.tell(b"not heard")
    assert [bytes(message) for _, _, message in sockets.receive()] == [b"heard"]
    for one in (first, second, sockets):
        one.close()
    listener.close()


def test_strangers_without_end_are_refused_a_few_at_a_time_and_the_users_own_gets_in(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_socket_server, "is_own", lambda connection: False)
    strangers = [connect_locally(house.address) for _ in range(100)]
    house.sockets.receive()
    assert house.sockets.paused
    assert select.select([house.sockets], (), (), 0)[0] == []  # the loop has its other work
    refused = sum(map(_ended, strangers))
    assert 0 < refused < 10
    monkeypatch.setattr(unix_socket_server, "is_own", is_own)
    way = house.way()
    until(house.listen)
    assert house.heard[0][1:] == ("b0", HELLO)
    assert not house.sockets.paused
    way.close()
    for stranger in strangers:
        stranger.close()


def test_who_finds_the_queue_full_waits_for_a_place(house: House) -> None:
    waiting: list[socket.socket] = []
    filled = [_connect_at_once(house.address)]
    while filled[-1] is not None:
        filled.append(_connect_at_once(house.address))
    thread = threading.Thread(target=lambda: waiting.append(connect_locally(house.address)))
    thread.start()
    until(lambda: house.listen() or not thread.is_alive())
    thread.join(10)
    assert len(waiting) == 1
    for one in (*filled, *waiting):
        if one is not None:
            one.close()
