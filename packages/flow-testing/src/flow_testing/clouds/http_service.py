"""A small HTTP server for fakes of services: JSON in, JSON out, one thread a connection. Standard library only."""

from __future__ import annotations

import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client: method, path, query, headers and body."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """Return the body as an object; empty where there is none."""
        document: object = json.loads(self.body) if self.body else {}
        return document if isinstance(document, dict) else {}


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer of a service: a JSON document, or bytes of another type."""

    code: int = 200
    document: object = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The bytes of the answer's body; a document becomes JSON."""
        if self.document is None:
            return b""
        return self.document if isinstance(self.document, bytes) else json.dumps(self.document).encode()


class HttpService:
    """Serves ``answer`` on a free port of the loopback. Use it as a context manager.

    Args:
        answer: Called in a thread of the connection, also several at once.
        certificate: File with a key and a certificate, to speak https; None: http.
    """

    def __init__(self, answer: Callable[[Request], HttpAnswer], certificate: str | None = None) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answer))
        # A client that keeps its connection open must not keep the test from ending.
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), name="fake-service", daemon=True)
        self.port: int = self._server.server_port
        self.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{self.port}"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class ServedFake(ABC):
    """Base of the fakes that listen on the loopback; a context manager.

    Args:
        certificate: File with a key and a certificate, to speak https; None: http.
    """

    def __init__(self, certificate: str | None = None) -> None:
        self._http = HttpService(self._answer, certificate)
        self.url = self._http.url

    def __enter__(self) -> Self:
        self._http.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # First no more requests, then the end of what runs: nothing can be started in between.
        self._http.__exit__(kind, error, trace)
        self._end()

    @abstractmethod
    def _answer(self, request: Request) -> HttpAnswer:
        """Answer a request, in a thread of its connection."""

    @abstractmethod
    def _end(self) -> None:
        """End all machines or processes of the fake; called once, after the server has stopped."""


def _handler(answer: Callable[[Request], HttpAnswer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else every call on a kept connection takes 44 ms
        # Seconds that a connection may be silent; only the magnitude matters.
        timeout = 60

        def log_message(self, format: str, *args: object) -> None:  # the base's name
            return None

        def _serve(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = answer(Request(self.command, url.path, query, dict(self.headers.items()), body))
            content = said.body  # once: what it is made of may be changing
            self.send_response(said.code)
            self.send_header("Content-Type", said.content_type)
            self.send_header("Content-Length", str(len(content)))
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815  # the base's names

    return Handler
