"""The web server around the application: Hypercorn, where slow and silent clients hold no thread; it speaks TLS."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from pathlib import Path

from a2wsgi import WSGIMiddleware
from flask import Flask
from hypercorn.asyncio import serve as serve_app
from hypercorn.config import Config

from flow_monitor.errors import MonitorError

_BACKLOG = 128  # connections that wait to be taken; a page asks for several files at once. Only the magnitude matters
_THREADS = 6
"""Requests that are answered at a time: each holds a connection to the database."""
_IDLE_S = 10
"""Seconds after which a connection that has not sent a whole request is closed."""
_END_S = 3
"""Seconds that answers under way have when the server ends."""


def listen(address: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError."""
    family, _, _, _, where = socket.getaddrinfo(address.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(where[:2], family=family, backlog=_BACKLOG)


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Check that a certificate and its key can be read and belong together.

    Raises:
        MonitorError: they do not, or one of them is missing; the text names files and options.
    """
    if certificate is None:
        if key is not None:
            raise MonitorError("--keyfile is the key of a certificate: give --certfile, too")
        return
    try:
        # An empty passphrase in place of a question on the terminal: a server in the background would hang.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise MonitorError(
            f"--certfile {certificate} and --keyfile {key or certificate} cannot be used: {error.strerror or error}. "
            "Both are PEM files, the key without a passphrase; the certificate's file may hold the key, too"
        ) from error


def serve(app: Flask, listening: socket.socket, certificate: Path | None, key: Path | None, *, debug: bool) -> None:
    """Answer requests until SIGINT, SIGTERM or SIGHUP. Takes the socket over; call it from the main thread."""
    config = Config()
    # The socket is made before: so the port is known, and an error about it is said, before the address is printed.
    config.bind = [f"fd://{listening.fileno()}"]
    if certificate is not None:
        config.certfile, config.keyfile = str(certificate), str(key or certificate)
    config.accesslog = logging.getLogger("flow.viz.requests") if debug else None
    config.errorlog = logging.getLogger("flow.viz")
    # Who looks for servers of a vulnerable version learns nothing here.
    config.include_server_header = False
    config.keep_alive_timeout = config.read_timeout = config.ssl_handshake_timeout = _IDLE_S
    config.graceful_timeout = _END_S
    asyncio.run(_until_signalled(app, config))
    listening.detach()  # the server has closed it


async def _until_signalled(app: Flask, config: Config) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ending.set)
    await serve_app(WSGIMiddleware(app, workers=_THREADS), config, shutdown_trigger=ending.wait, mode="asgi")
