"""Servers that the tests start on loopback and that fail on demand."""

from __future__ import annotations

import hashlib
import re
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from flow_core.files import File
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging.transfer.retry import RetryPolicy

QUICK = RetryPolicy(
    tries=4, first_delay_s=0.01, max_delay_s=0.05, connect_timeout_s=10, stall_timeout_s=10, timeout_s=40
)
DATE = "Mon, 02 Jan 2023 03:04:05 GMT"


@dataclass
class Page:
    """What a path holds and how its next answers misbehave, one entry of ``plan`` an answer."""

    body: bytes | Path
    etag: str | None = '"v1"'
    last_modified: str | None = None
    ranges: bool = True
    announce: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    plan: deque[Callable[[Handler, int, int], bool]] = field(default_factory=deque)

    @property
    def size(self) -> int:
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append((path, dict(self.headers)))
        page = self.server.pages.get(path)
        if page is None:
            self.send_error(404)
            return
        start, status = 0, 200
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        current = page.etag or page.last_modified
        if wanted and page.ranges and self.headers.get("If-Range") in (None, current):
            start, status = int(wanted[1]), 206
        if page.plan and page.plan.popleft()(self, start, status):
            return
        if page.etag and self.headers.get("If-None-Match") == page.etag:
            status = 304
        if page.last_modified and self.headers.get("If-Modified-Since") == page.last_modified:
            status = 304
        self.head(page, start, status)
        if status != 304:
            self.pour(page, start, page.size)

    def do_HEAD(self) -> None:
        page = self.server.pages.get(self.path)
        if page is None:
            self.send_error(404)
        else:
            self.head(page, 0, 200)

    def do_PUT(self) -> None:
        """Store what is sent, whole; the next answers misbehave as ``puts`` says."""
        server = self.server
        server.seen.append((self.path, dict(self.headers)))
        if server.puts and server.puts.popleft()(self, 0, 0):
            return
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        if len(body) < size:
            self.close_connection = True
            return
        new = self.path not in server.pages
        server.pages[self.path] = Page(body, etag=f'"{hashlib.md5(body).hexdigest()}"')
        self.send_response(201 if new else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def head(self, page: Page, start: int, status: int) -> None:
        self.send_response(status)
        if page.etag:
            self.send_header("ETag", page.etag)
        if page.last_modified:
            self.send_header("Last-Modified", page.last_modified)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{page.size - 1}/{page.size}")
        if page.announce and status != 304:
            self.send_header("Content-Length", str(page.size - start))
        elif status != 304:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

    def pour(self, page: Page, start: int, end: int) -> None:
        if isinstance(page.body, bytes):
            self.wfile.write(page.body[start:end])
            return
        with page.body.open("rb") as stream:
            stream.seek(start)
            while start < end and (chunk := stream.read(min(1 << 20, end - start))):
                self.wfile.write(chunk)
                start += len(chunk)

    def drop(self) -> None:
        self.wfile.flush()
        self.close_connection = True


def cut_at(byte: int) -> Callable[[Handler, int, int], bool]:
    """The connection breaks when the file's byte ``byte`` is reached."""

    def act(handler: Handler, start: int, status: int) -> bool:
        page = handler.server.pages[handler.path.partition("?")[0]]
        handler.head(page, start, status)
        handler.pour(page, start, max(start, byte))
        handler.drop()
        return True

    return act


def part(version: str, body: bytes, end: int | None = None) -> Callable[[Handler, int, int], bool]:
    """The server sends what was asked for, up to ``end``, as a part of that version, whatever version was meant."""

    def act(handler: Handler, start: int, _status: int) -> bool:
        wanted = re.match(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        stop = len(body) if end is None else min(end, len(body))
        handler.send_response(206)
        handler.send_header("ETag", version)
        handler.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
        handler.send_header("Content-Length", str(stop - start))
        handler.end_headers()
        handler.wfile.write(body[start:stop])
        return True

    return act


def hang_at(byte: int) -> Callable[[Handler, int, int], bool]:
    """The server falls silent at a byte, until it is closed."""

    def act(handler: Handler, start: int, status: int) -> bool:
        page = handler.server.pages[handler.path.partition("?")[0]]
        handler.head(page, start, status)
        handler.pour(page, start, max(start, byte))
        handler.wfile.flush()
        handler.server.hanging.release()
        handler.server.closing.wait(30)
        handler.close_connection = True
        return True

    return act


def drip(interval_s: float = 1.0, start: int = 0) -> Callable[[Handler, int, int], bool]:
    """The server sends ``start`` bytes and then one each interval, until the other side leaves or it is closed.

    ``server.hanging`` is released when it begins, ``server.left`` when the other side has gone.
    """

    def act(handler: Handler, begin: int, status: int) -> bool:
        server, page = handler.server, handler.server.pages[handler.path.partition("?")[0]]
        handler.head(page, begin, status)
        place = max(begin, start)
        handler.pour(page, begin, place)
        server.hanging.release()
        handler.close_connection = True
        while place < page.size and not server.closing.is_set():
            readable, _, _ = select.select([handler.connection], [], [], interval_s)
            if readable and not _peeked(handler.connection):
                server.left.release()
                return True
            try:
                handler.pour(page, place, place + 1)
            except OSError:
                server.left.release()
                return True
            place += 1
        return True

    return act


def _peeked(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1)
    except OSError:
        return b""


def answer(status: int, **headers: str) -> Callable[[Handler, int, int], bool]:
    """The server answers with a status and no body."""

    def act(handler: Handler, start: int, _status: int) -> bool:
        left = int(handler.headers.get("Content-Length", "0"))
        while left and (chunk := handler.rfile.read(min(left, 1 << 20))):
            left -= len(chunk)
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return act


def do(action: Callable[[], object]) -> Callable[[Handler, int, int], bool]:
    """Something happens on the server just before the answer."""

    def act(_handler: Handler, _start: int, _status: int) -> bool:
        action()
        return False

    return act


class WebServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), Handler)
        self.pages: dict[str, Page] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.puts: deque[Callable[[Handler, int, int], bool]] = deque()
        self.closing = threading.Event()
        self.hanging = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        self.scheme = "http" if context is None else "https"
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self.server_address[0]}:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # broken pipes are what these tests are about

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        self._thread.join(5)


def incoming(url: str, path: Path, task_id: int = 7) -> Transfer:
    return Transfer(File(url), path, Direction.IN, task_id, "here")


def outgoing(path: Path, url: str, task_id: int = 7) -> Transfer:
    return Transfer(File(url), path, Direction.OUT, task_id, "here")


def same(a: Path, b: Path) -> bool:
    def digest(path: Path) -> bytes:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()

    return digest(a) == digest(b)


def visible(directory: Path) -> list[str]:
    """Every name below a directory but those of the cache."""
    return sorted(p.name for p in directory.rglob("*") if ".flow-cache" not in p.parts)
