"""``flow-visualize``: serves the pages on a monitoring database."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import waitress

from flow_monitor.errors import MonitorError
from flow_monitor.queries.database import open_database
from flow_viz.app import create_app
from flow_viz.auth import is_loopback, new_token

_PLACES = (Path("runinfo/monitoring.db"), Path("monitoring.db"))


def default_endpoint() -> str:
    """Return the database looked at where none is named: of the runs in this directory."""
    found = next((path for path in _PLACES if path.exists()), _PLACES[0])
    return f"sqlite:///{found}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flow-visualize",
        description="Web pages on what your workflows do and did.",
        epilog="To look from your own machine at a server on a cluster: ssh -L 50000:127.0.0.1:8080 user@cluster, "
        "then open http://127.0.0.1:50000. The token for addresses other than loopback can be set in "
        "the environment variable FLOW_VIZ_TOKEN; else one is made up and printed.",
    )
    parser.add_argument(
        "uri",
        nargs="?",
        help="the database: sqlite:///path/to/monitoring.db, postgresql://user@host/name or the path of a file; "
        "default runinfo/monitoring.db, then monitoring.db, in the current directory",
    )
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="address (default %(default)s)")
    parser.add_argument("--port", default=8080, type=_port, help="port, 0 for any free one (default %(default)s)")
    parser.add_argument("-d", "--debug", action="store_true", help="log every request")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to 65535")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return the exit code: 0 stopped, 1 cannot be served (said on standard error)."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.debug else logging.WARNING)
    try:
        database = open_database(options.uri or default_endpoint())
    except MonitorError as error:
        return _fail(str(error))
    token = None if is_loopback(options.listen) else os.environ.get("FLOW_VIZ_TOKEN") or new_token()
    app = create_app(database, token)
    try:
        listening = _listen(options.listen, options.port)
    except OSError as error:
        database.close()
        return _fail(f"cannot listen on {options.listen} port {options.port}: {error}; choose another with --port")
    server = waitress.create_server(
        app, sockets=[listening], threads=6, ident="flow-visualize", clear_untrusted_proxy_headers=True
    )
    port = listening.getsockname()[1]
    _announce(database.name, options.listen, int(port), token)
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
        database.close()
    return 0


def _listen(address: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError."""
    family, _, _, _, where = socket.getaddrinfo(address.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(where[:2], family=family, backlog=128)


def _announce(database: str, listen: str, port: int, token: str | None) -> None:
    host = socket.gethostname() if listen in ("0.0.0.0", "::", "") else listen
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{port}/"
    print(f"Database: {database}")
    if token is not None:
        print("Others can reach this address: check that your site's policy allows it. The token is needed to look.")
        address += f"?token={token}"
    print(f"Open {address}  (Ctrl-C ends)", flush=True)


def _fail(text: str) -> int:
    print(f"flow-visualize: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
