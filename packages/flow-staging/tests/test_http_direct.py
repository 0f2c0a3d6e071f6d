"""Connections without TLS and proxies: kept when an answer was read to its end, and not when anything is odd."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st
from urllib3.util import parse_url

from flow_staging.http_cookies import Cookies
from flow_staging.http_direct import DirectPool
from flow_staging.http_headers import HostHeaders
from flow_staging.http_session import HttpSessions, Request, parsed
from flow_staging.transfer.failures import PermanentTransferError, TransientTransferError

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
NONE_YET = b""
LIMIT_S = 20.0


class Server:
    """Answers each request of each connection by the next of its answers; None closes the connection.

    ``NONE_YET`` takes a request, and closes the connection without an answer.
    """

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.connections = 0
        self.asked: list[bytes] = []
        self.closed = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(LIMIT_S)
            come = b""
            while self.answers:
                while b"\r\n\r\n" not in come:
                    data = client.recv(65536)
                    if not data:
                        return
                    come += data
                head, _, come = come.partition(b"\r\n\r\n")
                self.asked.append(head)
                answer = self.answers.pop(0)
                if answer is None or answer == NONE_YET:
                    break
                # Before the answer goes out: the client may come again, on another connection, as soon as it has it.
                ends = bool(self.answers) and self.answers[0] is None
                if ends:
                    self.answers.pop(0)
                client.sendall(answer)
                if ends:
                    break
        self.closed.release()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def pool(server: Server) -> Iterator[DirectPool]:
    made = DirectPool("127.0.0.1", server.port, 4)
    yield made
    made.close()


def read(pool: DirectPool, *, method: str = "GET") -> bytes:
    answer = pool.ask(method, "/a?b=1", {"X-Key": "k"}, LIMIT_S, LIMIT_S)
    try:
        come = b""
        while data := answer.read1(1 << 16):
            come += data
        return come
    finally:
        answer.close()


def test_what_is_asked_names_host_and_headers(server, pool):
    server.answers = [WHOLE]
    read(pool)
    first, *rest = server.asked[0].decode().split("\r\n")
    assert first == "GET /a?b=1 HTTP/1.1"
    assert rest[:2] == [f"Host: 127.0.0.1:{server.port}", "X-Key: k"]
    assert rest[2].startswith("User-Agent: ")


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbody",
    ],
)
def test_a_connection_serves_one_file_after_the_other(server, pool, answer):
    server.answers = [answer] * 3
    assert [read(pool) for _ in range(3)] == [b"body"] * 3
    assert server.connections == 1


def test_answers_without_bodies_leave_the_connection_as_it_was(server, pool):
    server.answers = [
        b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    ]
    assert read(pool) == b""
    assert read(pool, method="HEAD") == b""
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    ],
)
def test_a_connection_that_the_server_ends_is_not_used_again(server, pool, answer):
    server.answers = [answer, None, answer, None]
    assert [read(pool), read(pool)] == [b"body"] * 2
    assert server.connections == 2


def test_a_connection_whose_answer_nobody_read_is_closed(server, pool):
    server.answers = [WHOLE, WHOLE]
    pool.ask("GET", "/", {}, LIMIT_S, LIMIT_S).close()
    assert read(pool) == b"body"
    assert server.connections == 2


def test_a_connection_that_was_closed_meanwhile_is_not_used(server, pool):
    server.answers = [WHOLE, None, WHOLE]
    assert read(pool) == b"body"
    assert server.closed.acquire(timeout=LIMIT_S)
    assert read(pool) == b"body"
    assert server.connections == 2


def asked_twice(server: Server) -> bytes:
    sessions = HttpSessions(None)
    request = Request(f"http://127.0.0.1:{server.port}/a", HostHeaders(), {}, LIMIT_S, LIMIT_S)
    come = b""
    try:
        for _ in range(2):
            answer, _ = sessions.get(request, Cookies())
            come += answer.read1(1 << 16)
            answer.close()
    finally:
        sessions.close()
    return come


def test_a_kept_connection_that_ends_before_the_answer_is_replaced_once(server):
    server.answers = [WHOLE, NONE_YET, WHOLE]
    assert asked_twice(server) == b"bodybody"
    assert server.connections == 2
    assert len(server.asked) == 3


def test_a_new_connection_that_ends_before_the_answer_is_a_failed_try(server):
    server.answers = [WHOLE, NONE_YET, NONE_YET, WHOLE]
    with pytest.raises(TransientTransferError, match="no answer"):
        asked_twice(server)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
    ],
)
def test_an_answer_that_is_cut_is_no_answer(server, pool, answer):
    server.answers = [answer, None]
    with pytest.raises(http.client.IncompleteRead):
        read(pool)


def test_a_closed_pool_keeps_nothing(server, pool):
    server.answers = [WHOLE, WHOLE]
    answer = pool.ask("GET", "/", {}, LIMIT_S, LIMIT_S)
    pool.close()
    answer.drain_conn()
    answer.close()
    assert read(pool) == b"body"
    assert server.connections == 2


@pytest.mark.parametrize(("name", "value"), [("X-Key", "a\r\nX-Other: b"), ("X Key", "a"), ("X-Key", "\u20ac")])
def test_headers_that_cannot_be_sent_are_refused(pool, name, value):
    with pytest.raises(ValueError, match=r"header|latin-1"):
        pool.ask("GET", "/", {name: value}, LIMIT_S, LIMIT_S)


def test_targets_that_would_break_the_line_are_refused(pool):
    with pytest.raises(PermanentTransferError, match="cannot be asked for"):
        pool.ask("GET", "/a b", {}, LIMIT_S, LIMIT_S)


@given(st.text("htp:/.aAZ0159%?-_@#[]", max_size=20))
def test_ordinary_urls_are_taken_apart_as_by_urllib3(rest: str) -> None:
    url = f"http://{rest}"
    try:
        ours = parsed(url)
    except PermanentTransferError:
        return
    assert ours == parse_url(url)
