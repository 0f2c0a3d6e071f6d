"""Direct HTTP connections, without TLS and proxies, kept from file to file: a fifth of urllib3's CPU time a request.

What is asked for is one piece of bytes, made once for all files that are asked for alike; answers are those of the
standard library. All else (TLS, proxies, bodies that are sent) is urllib3's.
"""

from __future__ import annotations

import http.client
import io
import re
import select
import socket
import struct
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flow_staging.transfer.answer_head import Head, QuickAnswer, first_of
from flow_staging.transfer.failures import PermanentTransferError
from flow_staging.transfer.sockets import Watched

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BREAKS = re.compile(r"[\r\n\0]")
_FIRST = 64 << 10  # bytes asked for at first: a head, and all of a small file behind it
_NO_BODY = (204, 304)
_KEEP = "keep-alive"
_NOT_OF_A_TARGET = re.compile(r"[^\x21-\x7e]")


class DirectPool:
    """Pool of idle connections with one server. Any thread.

    Args:
        host: Its name or address, one of IPv6 in brackets.
        port: Its port.
        kept: How many are kept.
    """

    def __init__(self, host: str, port: int, kept: int) -> None:
        self._address = host.strip("[]"), port
        self._named = host if port == http.client.HTTP_PORT else f"{host}:{port}"
        self._kept = kept
        self._idle: list[Line] = []
        self._lock = threading.Lock()
        self._closed = False

    def ask(
        self, method: str, target: str, headers: Mapping[str, str], connect_s: float, read_s: float
    ) -> DirectAnswer | PlainAnswer:
        """Ask for something; give the answer with its body unread.

        Args:
            method: One that sends no body.
            target: Path and query.
            headers: What goes along beside Host and User-Agent.
            connect_s: Longest wait for a connection.
            read_s: Longest silence.

        Raises:
            OSError: no answer came.
            http.client.HTTPException: what came is none.
            ValueError: a header cannot be sent.
            PermanentTransferError: the target cannot.
        """
        if _NOT_OF_A_TARGET.search(target):
            raise PermanentTransferError(
                f"not a URL that can be fetched: {target!r} has characters that cannot be asked for"
            )
        asked = f"{method} {target} HTTP/1.1\r\n".encode() + _lines(self._named, tuple(headers.items()))
        line = self._free()
        if line is None:
            line = Line(self, self._address)
        try:
            line.request(method, asked, connect_s, read_s)
            answer: DirectAnswer | PlainAnswer = line.getresponse()
        except BaseException:
            line.close()
            raise
        return answer

    def give_back(self, line: Line) -> None:
        """Take a connection whose answer has been read."""
        with self._lock:
            keep = not self._closed and len(self._idle) < self._kept
            if keep:
                self._idle.append(line)
        if not keep:
            line.close()

    def close(self) -> None:
        """Close the idle connections now, the others when their answers have been read."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for line in idle:
            line.close()

    def _free(self) -> Line | None:
        """Return an idle connection that is still open: one with something to read was closed by the other side."""
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                return None
            if line.is_quiet():
                return line
            line.close()


@lru_cache(maxsize=128)
def _lines(host: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return the head of what is asked for, after its first line."""
    names = {name.lower() for name, _ in headers}
    lines = [] if "host" in names else [("Host", host)]
    lines += headers
    if "user-agent" not in names:
        lines.append(("User-Agent", _own_name()))
    for name, value in lines:
        if not _NAME.fullmatch(name) or _BREAKS.search(value):
            raise ValueError(f"Invalid header {name!r}")
    return "".join(f"{name}: {value}\r\n" for name, value in lines).encode("latin-1") + b"\r\n"


def _own_name() -> str:
    """Return the name by which urllib3 calls itself: servers see one client, whatever way is taken."""
    from importlib.metadata import version

    return f"python-urllib3/{version('urllib3')}"


class _Line:
    """One connection. Used by one thread at a time."""

    def __init__(self, pool: DirectPool, address: tuple[str, int]) -> None:
        self.sock: socket.socket | None = None
        self._pool = pool
        self._address = address
        self._method = ""
        self._connect_s = self._read_s = 0.0
        self._waits_in_kernel = False
        self._quiet = select.poll()

    def is_quiet(self) -> bool:
        """Return whether nothing can be read: an idle one has something only when the server has closed it."""
        return not self._quiet.poll(0)

    def connect(self) -> None:
        """Connect within the seconds that the request allows; raises OSError."""
        self.sock = socket.create_connection(self._address, self._connect_s)
        # A request is one piece: Nagle's algorithm would only hold it back.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._quiet.register(self.sock, select.POLLIN)

    def request(self, method: str, asked: bytes, connect_s: float, read_s: float) -> None:
        """Send a request that is one piece of bytes; connects first where there is no connection. Raises OSError."""
        self._method = method
        if self.sock is None:
            self._connect_s = connect_s
            self.connect()
        assert self.sock is not None
        # Only when the value changes, since these are calls of the system. The kernel itself keeps the time: sockets
        # with a timeout of Python's ask it by poll before each send and receive, and let go of the interpreter twice.
        if not self._waits_in_kernel or self._read_s != read_s:
            self.sock.settimeout(None)
            limit = struct.pack("@ll", int(read_s), max(1, int(read_s % 1 * 1e6)))  # 0 would be for ever
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._read_s, self._waits_in_kernel = read_s, True
        try:
            self.sock.sendall(asked)
        except BlockingIOError as error:
            raise TimeoutError("timed out") from error

    def getresponse(self) -> DirectAnswer | PlainAnswer:
        """Return the answer with its head read and its body unread; raises OSError or HTTPException."""
        assert self.sock is not None
        come = received(self.sock, _FIRST)
        if self._method == "GET":
            first = first_of(come)
            if first is not None and (length := _plain_length(*first[:2], first[3])) is not None:
                assert isinstance(self, Line)
                return PlainAnswer(self, self._pool, first[1], first[2], first[3], length, come[first[4] :])
        # Whatever is out of the ordinary is left to the standard library, which reads what has come once more.
        self._waits_in_kernel = False
        self.sock.settimeout(self._read_s)
        answer = DirectAnswer(_Begun(self.sock, come), method=self._method)  # type: ignore[arg-type]  # asks for a file
        try:
            answer.begin()
        except BaseException:
            answer.close()
            raise
        answer.of(self, self._pool)
        return answer

    def close(self) -> None:
        """Close the connection, if there is one. Idempotent."""
        if self.sock is not None:
            self.sock.close()


class Line(Watched, _Line):
    """One connection, which is cut when the transfer that it serves is to stop."""


def received(sock: socket.socket, size: int) -> bytes:
    """Return the next bytes, at most so many; raises OSError, TimeoutError after a silence."""
    try:
        return sock.recv(size)
    except BlockingIOError as error:
        raise TimeoutError("timed out") from error


def _plain_length(version: int, status: int, head: Head) -> int | None:
    """Return how long the body of an answer is that leaves its connection open; None if it is not that simple."""
    values = head.merged()
    if version != 11 or "transfer-encoding" in values or values.get("connection", _KEEP).lower() != _KEEP:
        return None
    if status in _NO_BODY:
        return 0
    length = values.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None


class PlainAnswer:
    """An answer with a stated length, taken without the layers of files of the standard library.

    Attributes:
        status: The status.
        reason: What the server says to it.
        headers: The head.
        length: Bytes of the body that are still to be read.
        closed: Whether it was closed.
    """

    __slots__ = ("_come", "_line", "_pool", "closed", "headers", "length", "reason", "status")

    def __init__(
        self, line: Line, pool: DirectPool, status: int, reason: str, headers: Head, length: int, come: bytes
    ) -> None:
        self._line, self._pool, self._come = line, pool, come
        self.status, self.reason, self.headers, self.length = status, reason, headers, length
        self.closed = False

    def info(self) -> Head:
        """Return the head, as cookie jars ask for it."""
        return self.headers

    def read1(self, n: int = -1, decode_content: bool = False) -> bytes:
        """Return the next bytes, at most so many; empty at the end. Nothing is ever unpacked.

        Raises:
            http.client.IncompleteRead: the connection ended before.
            OSError: it broke.
        """
        left = self.length
        if left == 0:
            return b""
        most = left if n < 0 else min(n, left)
        if self._come:
            data, self._come = self._come[:most], self._come[most:]
        else:
            sock = self._line.sock
            data = b"" if sock is None else received(sock, min(most, 1 << 20))
            if not data:
                raise http.client.IncompleteRead(b"", left)
        self.length = left - len(data)
        return data

    def drain_conn(self) -> None:
        """Read the rest of the answer, so that its connection can be kept."""
        while self.read1(1 << 16):
            pass

    def close(self) -> None:
        """Return the connection to the pool if the answer was read to its end; else close it. Idempotent."""
        if self.closed:
            return
        self.closed = True
        # Bytes behind the end of an answer would be taken for the begin of the next one.
        if self.length == 0 and not self._come:
            self._pool.give_back(self._line)
        else:
            self._line.close()


class _Begun:
    """A socket of which the first bytes were read already."""

    def __init__(self, sock: socket.socket, come: bytes) -> None:
        self._sock = sock
        self._come = come

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a file of all its bytes."""
        stream: Any = self._sock.makefile("rb", buffering=0)
        return io.BufferedReader(_Rest(self._come, stream))


class _Rest(io.RawIOBase):
    """The bytes that have come, and then those of a stream."""

    def __init__(self, come: bytes, stream: Any) -> None:
        self._come = come
        self._stream = stream
        self._ended = not come  # the end of the connection has been seen

    def readable(self) -> bool:
        """Return True: ``io.BufferedReader`` asks before it reads."""
        return True

    def readinto(self, room: Any) -> int | None:
        """Fill room with the next bytes; return how many, 0 at the end."""
        if self._come:
            count = min(len(room), len(self._come))
            room[:count] = self._come[:count]
            self._come = self._come[count:]
            return count
        count_or_none: int | None = 0 if self._ended else self._stream.readinto(room)
        return count_or_none

    def close(self) -> None:
        """Close the stream of the connection, too, which this one reads from."""
        self._stream.close()
        super().close()


class DirectAnswer(QuickAnswer):
    """An answer whose connection is kept when it has been read to its end, and closed otherwise."""

    _line: Any = None
    _pool: DirectPool | None = None
    length: int | None

    def of(self, line: object, pool: DirectPool) -> None:
        """Take the connection, and to whom it is given back."""
        self._line, self._pool = line, pool

    def read1(self, n: int = -1, decode_content: bool = False) -> bytes:
        """Return the next bytes, at most so many; empty at the end. Nothing is ever unpacked.

        Raises:
            http.client.IncompleteRead: the connection ended before.
            OSError: it broke.
        """
        if self.length == 0:
            return b""
        data = super().read1(n)
        if not data and self.length:
            raise http.client.IncompleteRead(b"", self.length)
        return data

    def drain_conn(self) -> None:
        """Read the rest of the answer, so that its connection can be kept."""
        while self.read1(1 << 16):
            pass

    def close(self) -> None:
        """Return the connection to the pool if the answer was read to its end; else close it."""
        answer: Any = self
        # Before close(), which forgets both.
        whole = self.length == 0 or (answer.chunked and answer.fp is None)
        super().close()
        line, self._line = self._line, None
        if line is None or self._pool is None:
            return
        if whole and not answer.will_close:
            self._pool.give_back(line)
        else:
            line.close()
