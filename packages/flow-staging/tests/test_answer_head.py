"""Heads of answers mean what they mean to the parser of the standard library."""

import http.client
import io

import pytest
from hypothesis import given, strategies as st

from flow_staging.transfer.answer_head import QuickAnswer, read_head

names = st.sampled_from(["ETag", "etag", "Content-Length", "X-a", "Set-Cookie", "Connection", "Bad name", "", "é"])
values = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=12)
parts = st.tuples(names, st.sampled_from([":", ": ", ":\t ", "", " : "]), values, st.sampled_from(["\r\n", "\n"]))
lines = st.one_of(parts.map("".join), st.sampled_from([" folded\r\n", "\tfolded\r\n", "x: a\rb\r\n", ":\r\n"]))


class _Stream(io.RawIOBase):
    """Bytes that come in pieces of so many."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._left = data
        self._piece = piece

    def readable(self) -> bool:
        return True

    def readinto(self, room: bytearray) -> int:
        piece = self._left[: min(len(room), self._piece)]
        self._left = self._left[len(piece) :]
        room[: len(piece)] = piece
        return len(piece)


class _Socket:
    def __init__(self, data: bytes, piece: int) -> None:
        self._data = data
        self._piece = piece

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Stream(self._data, self._piece))  # type: ignore[type-var,arg-type]


def _said(kind: type[http.client.HTTPResponse], data: bytes, piece: int = 1 << 16) -> object:
    answer = kind(_Socket(data, piece), method="GET")  # type: ignore[arg-type]
    try:
        answer.begin()
    except http.client.HTTPException as error:
        return type(error)
    head = answer.headers
    found = [(name, head.get(name), head.get_all(name)) for name in ("etag", "SET-COOKIE", "x-A", "none")]
    state = (answer.status, answer.reason, answer.version, answer.length, answer.chunked, answer.will_close)
    return list(head.items()), found, "etag" in head, head.defects == [], state, answer.read()


@given(st.lists(lines, max_size=8))
def test_heads_mean_the_same_as_to_the_standard_library(head: list[str]) -> None:
    data = "".join(head).encode("latin-1") + b"\r\nrest"
    ours, theirs = read_head(io.BytesIO(data)), http.client.parse_headers(io.BytesIO(data))
    assert list(ours.items()) == list(theirs.items())
    assert [ours.get_all(name) for name in ("etag", "x-A", "none")] == [
        theirs.get_all(name) for name in ("etag", "x-A", "none")
    ]
    assert [ours.get(name) for name in ("etag", "x-A", "none")] == [
        theirs.get(name) for name in ("etag", "x-A", "none")
    ]


@given(st.lists(lines, max_size=8), st.sampled_from(["200 OK", "206  Partial ", "404", "304 Not \xe4", "1000 x"]))
def test_whole_answers_mean_the_same_as_to_the_standard_library(head: list[str], status: str) -> None:
    data = f"HTTP/1.1 {status}\r\n{''.join(head)}\r\nrest".encode("latin-1")
    assert _said(QuickAnswer, data) == _said(http.client.HTTPResponse, data)


@pytest.mark.parametrize("piece", [1, 1 << 16])
@pytest.mark.parametrize(
    "data",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: "a"\r\n\r\nbody',
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nbody",
        b"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\nContent-Length: 9\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\nbody",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 4\r\n\r\nbody",
        b'HTTP/1.1 100 Continue\r\nx: 1\r\n\r\nHTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n',
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nx-a: b\r\n folded: 1\r\nETag: "a"\r\n\r\nbody',
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: 1\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"1" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: cut",
    ],
)
def test_answers_are_taken_as_by_the_standard_library(data: bytes, piece: int) -> None:
    assert _said(QuickAnswer, data, piece) == _said(http.client.HTTPResponse, data)
