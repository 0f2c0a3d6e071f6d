"""``flow-visualize``: serves the pages on a monitoring database."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from flow_monitor.access import TOKEN_VARIABLE, choose_token, is_loopback
from flow_monitor.errors import DatabaseError, DatabaseMissing, MonitorError
from flow_monitor.queries.database import Database, open_database
from flow_viz.app import create_app
from flow_viz.serve import check_certificate, listen, serve

# Where MonitoringHub writes by default, then the same name without a run_dir.
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
        "then open http://127.0.0.1:50000 with the token that is printed. To choose the token, set the environment "
        f"variable {TOKEN_VARIABLE}; else one is made up at each start.",
    )
    parser.add_argument(
        "uri",
        nargs="?",
        help="the database: sqlite:///path/to/monitoring.db, postgresql://user@host/name or the path of a file; "
        "default runinfo/monitoring.db, then monitoring.db, in the current directory",
    )
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="address (default %(default)s)")
    parser.add_argument("--port", default=8080, type=_port, help="port, 0 for any free one (default %(default)s)")
    parser.add_argument(
        "--no-token",
        action="store_true",
        help="let everybody on this machine look: for a laptop that nobody else can log in to",
    )
    parser.add_argument("--certfile", type=Path, metavar="PEM", help="certificate, with its chain: serve https")
    parser.add_argument("--keyfile", type=Path, metavar="PEM", help="its key, where the certificate's file has none")
    parser.add_argument("-d", "--debug", action="store_true", help="log every request")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to 65535")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return the exit code: 0 stopped, 1 cannot be served (reason on standard error)."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.debug else logging.WARNING)
    try:
        # All that can be wrong is checked before anything listens.
        token = choose_token(options.listen, options.no_token)
        check_certificate(options.certfile, options.keyfile)
        database = open_database(options.uri or default_endpoint())
    except MonitorError as error:
        return _fail(str(error))
    try:
        listening = listen(options.listen, options.port)
    # The port is taken, or not ours: said before the address is printed.
    except OSError as error:
        database.close()
        return _fail(f"cannot listen on {options.listen} port {options.port}: {error}; choose another with --port")
    scheme = "http" if options.certfile is None else "https"
    _announce(database.name, scheme, options.listen, int(listening.getsockname()[1]), token)
    # Not an error: pages may be opened before the run has begun, and show it once it is there.
    _tell_if_unreadable(database, named=options.uri is not None)
    try:
        serve(create_app(database, token), listening, options.certfile, options.keyfile, debug=options.debug)
    finally:
        database.close()
    return 0


def _announce(database: str, scheme: str, listen: str, port: int, token: str | None) -> None:
    # The wildcard is no address that a browser can open.
    host = socket.gethostname() if listen in ("0.0.0.0", "::", "") else listen
    host = f"[{host}]" if ":" in host else host
    print(f"Database: {database}")
    if not is_loopback(listen):
        print("Others can reach this address: check that your site's policy allows it. The token is needed to look.")
        if scheme == "http":
            print(
                "Token and pages go over the network in clear: give --certfile and --keyfile, or listen on 127.0.0.1 "
                "and look through ssh -L."
            )
    print(f"Open {scheme}://{host}:{port}/{'' if token is None else f'?token={token}'}  (Ctrl-C ends)", flush=True)


def _tell_if_unreadable(database: Database, named: bool) -> None:
    """Print on standard error why there is nothing to see yet, and what to do; the pages look again by themselves."""
    try:
        with database.connect():
            return
    except DatabaseMissing as error:
        where = f" Looked for from {os.getcwd()}" if not os.path.isabs(database.name) else ""
        if not named:
            where += ": start this where the script runs, or name the database in its run_dir"
        text = f"{error}.{where}"
    except DatabaseError as error:
        text = str(error)
    print(
        f"flow-visualize: {text.rstrip('.')}. The pages show it as soon as it can be read", file=sys.stderr, flush=True
    )


def _fail(text: str) -> int:
    print(f"flow-visualize: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
