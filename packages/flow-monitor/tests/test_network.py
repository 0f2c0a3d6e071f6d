"""Network traffic of tasks: what the kernel answers is parsed, and summed by who holds the connections."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from flow_core.interfaces.call import TryKey
from flow_monitor.sampling import network as module
from flow_monitor.sampling.network import Network
from flow_monitor.sampling.node import NodeSampler
from flow_monitor.sampling.process_tree import sockets
from flow_monitor.sampling.sock_diag import DumpRefused, SockDiag, Tcp, parse, request
from flow_monitor.sampling.traffic import Traffic
from flow_monitor.testing.traffic import kernel_tells_traffic

needs_kernel = pytest.mark.skipif(not kernel_tells_traffic(), reason="the kernel refuses sock_diag here")
A, B = TryKey(1), TryKey(2)


def anything(_cookie: int, _inode: int) -> bool:
    """Want every connection."""
    return True


def answer(cookie: int, inode: int, info: bytes) -> bytes:
    """Return one message of a dump, with an attribute before the one that counts."""
    body = bytearray(72)
    struct.pack_into("=Q", body, 44, cookie)
    struct.pack_into("=I", body, 68, inode)
    body += struct.pack("=HH", 5, 8) + b"\x01\0\0\0" + struct.pack("=HH", len(info) + 4, 2) + info
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + bytes(body)


def counters(sent: int, received: int) -> bytes:
    """Return a struct tcp_info."""
    return bytes(120) + struct.pack("=QQ", sent, received) + bytes(40)


DONE = struct.pack("=IHHIII", 20, 3, 2, 1, 0, 0)
REFUSAL = struct.pack("=IHHIii", 20 + 16, 2, 0, 1, 0, -1) + bytes(16)


def test_an_answer_is_parsed_and_its_end_is_known() -> None:
    data = answer(7, 70, counters(1, 2)) + answer(8, 80, counters(1 << 40, 4))
    assert parse(data, anything) == ([Tcp(7, 70, 1, 2), Tcp(8, 80, 1 << 40, 4)], False)
    assert parse(data + DONE, lambda cookie, _: cookie == 8) == ([Tcp(8, 80, 1 << 40, 4)], True)


def test_a_kernel_that_counts_no_bytes_names_no_connections() -> None:
    assert parse(answer(7, 70, bytes(104)), anything) == ([], False)


@pytest.mark.parametrize("data", [REFUSAL, answer(1, 2, b"")[:-1], struct.pack("=IHHII", 16, 20, 2, 1, 0)])
def test_an_error_or_half_an_answer_is_a_refusal(data: bytes) -> None:
    with pytest.raises(DumpRefused):
        parse(data, anything)


@given(st.binary(max_size=300))
def test_no_answer_is_worse_than_a_refusal(data: bytes) -> None:
    whole = answer(7, 70, counters(1, 2))
    for told in (data, whole[:20] + data, whole + data):
        try:
            parse(told, anything)
        except DumpRefused:
            pass


def test_a_request_names_family_protocol_and_states() -> None:
    asked = request(socket.AF_INET6)
    assert len(asked) == struct.unpack_from("=I", asked)[0] == 72
    assert asked[16:18] == bytes((socket.AF_INET6, socket.IPPROTO_TCP))
    assert not struct.unpack_from("=I", asked, 20)[0] & (1 << 10 | 1 << 6), "no listening ones, none that time out"


def test_bytes_of_closed_connections_stay_counted() -> None:
    traffic = Traffic()
    traffic.update([Tcp(1, 10, 100, 5), Tcp(2, 20, 7, 7)], {10: A, 20: B})
    traffic.update([Tcp(2, 20, 9, 7)], {20: B})
    traffic.update([Tcp(3, 30, 50, 0)], {30: A})
    assert (traffic.of(A), traffic.of(B)) == ((150, 5), (9, 7))


def test_what_a_connection_carries_after_its_process_let_go_of_it_is_still_its_tasks() -> None:
    traffic = Traffic()
    traffic.update([Tcp(1, 10, 100, 0)], {10: A})
    traffic.update([Tcp(1, 0, 180, 0)], {})
    assert traffic.of(A) == (180, 0)


def test_a_connection_kept_by_a_worker_is_counted_to_each_task_in_turn() -> None:
    traffic = Traffic()
    traffic.update([Tcp(1, 10, 100, 0)], {10: A})
    traffic.forget(A)
    traffic.update([Tcp(1, 10, 130, 0)], {})
    traffic.update([Tcp(1, 10, 175, 0)], {10: B})
    assert (traffic.of(A), traffic.of(B)) == ((0, 0), (45, 0))


@given(
    st.lists(
        st.dictionaries(st.integers(1, 4), st.tuples(st.integers(0, 50), st.integers(0, 50), st.sampled_from([A, B]))),
        max_size=12,
    )
)
def test_sums_only_grow_and_are_all_that_was_carried(steps: list[dict[int, tuple[int, int, TryKey]]]) -> None:
    traffic, total = Traffic(), {1: [0, 0], 2: [0, 0], 3: [0, 0], 4: [0, 0]}
    carried, before = [0, 0], {A: (0, 0), B: (0, 0)}
    for step in steps:
        for cookie in total.keys() - step.keys():
            total[cookie] = [0, 0]  # closed; a later one is another connection
        for cookie, (sent, received, _) in step.items():
            total[cookie][0] += sent
            total[cookie][1] += received
            carried[0] += sent
            carried[1] += received
        traffic.update(
            [Tcp(cookie, cookie, *total[cookie]) for cookie in step], {c: owner for c, (_, _, owner) in step.items()}
        )
        for key in (A, B):
            assert traffic.of(key) >= before[key]
            before[key] = traffic.of(key)
        assert [sum(column) for column in zip(traffic.of(A), traffic.of(B), strict=True)] == carried


TALKER = """
import socket, sys
kept = socket.create_connection(("::1" if sys.argv[2] == "6" else "127.0.0.1", int(sys.argv[1])))
for line in sys.stdin:
    kept.sendall(b"x" * int(line)); print("sent", flush=True)
"""


class Talker:
    """A process that sends what it is told to, and a server that reads it."""

    def __init__(self, family: socket.AddressFamily) -> None:
        six = family == socket.AF_INET6
        self.server = socket.create_server(("::1" if six else "127.0.0.1", 0), family=family)
        arguments = [str(self.server.getsockname()[1]), "6" if six else "4"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", TALKER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.server.settimeout(30)
        self.connection, _ = self.server.accept()
        self.connection.settimeout(30)

    def say(self, count: int) -> None:
        """Have it send so many bytes; return when they are acknowledged."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "sent\n"
        got = 0
        while got < count:
            got += len(self.connection.recv(1 << 16))

    def close(self) -> None:
        """End both."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.connection.close()
        self.server.close()


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def talker(request: pytest.FixtureRequest) -> Iterator[Talker]:
    """Give a process with one connection."""
    try:
        made = Talker(request.param)
    except OSError:
        pytest.skip("there is no such address on this machine")
    with made.process:
        yield made
        made.close()


@needs_kernel
def test_a_node_sampler_counts_what_a_process_tree_sent_to_its_last_sample(talker: Talker) -> None:
    sampler = NodeSampler()
    assert len(sockets(os.getpid())) >= 2
    talker.say(1000)
    first = sampler.sample({talker.process.pid: B}, 10**9)[1]
    assert first.net_sent is not None
    assert 1000 <= first.net_sent <= 1001, "the kernel counts the SYN, too"
    talker.say(500)
    (last,) = sampler.ended({talker.process.pid: B}, 2 * 10**9)
    assert last.net_sent == first.net_sent + 500
    assert last.net_received == 0
    assert sampler.ended({talker.process.pid: B}, 3 * 10**9) == []
    running = {os.getpid(): A}  # its child sends
    assert sampler.sample(running, 4 * 10**9)[1].net_received == 0, "what it held before there was a task is not one's"
    talker.say(700)
    tree = sampler.sample(running, 5 * 10**9)[1]
    assert (tree.net_sent, tree.net_received) == (700, 700)
    sampler.close()


def test_the_kernel_is_not_asked_while_no_task_holds_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sockets", lambda pid: {7} if pid == 99 else set())

    def refuse() -> SockDiag:
        raise DumpRefused("asked")

    monkeypatch.setattr(module, "SockDiag", refuse)
    network = Network()
    network.look({})
    network.look({A: [1, 2]})
    assert network.of(A) == (0, 0)
    network.look({A: [1, 99]})
    assert network.of(A) == (None, None), "unknown where the kernel refuses, not none"


def test_sockets_of_a_process_that_is_gone_are_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(20)
    assert sockets(process.pid) == set()
