"""Engines of SQLAlchemy for writing: real transactions, waits for locks, write-ahead log where it is safe."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from flow_core.folders import make_directory
from flow_core.own_files import NotOwnFile, check_own_to_write, open_own_to_write
from flow_monitor.errors import BadEndpoint
from flow_monitor.schema.companions import check_companions
from flow_monitor.schema.filesystem import is_local
from flow_monitor.schema.server_rights import settle, settle_writer

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

LOCK_WAIT_S = 1.0
"""Seconds for which one statement waits for another writer; then it fails, and the projector tries it again.

The end of a run waits for the statement that is under way, and no longer where another process holds the lock."""


def parse_endpoint(endpoint: str) -> URL:
    """Return the parts of a database's URI; the driver of PostgreSQL is chosen here.

    Raises:
        BadEndpoint: it is no URI, or of a database that is not supported.
    """
    try:
        url = make_url(endpoint)
    except ArgumentError as error:
        raise BadEndpoint(
            f"{_hidden(endpoint)!r} is no database URI: use sqlite:///relative/monitoring.db, "
            "sqlite:////absolute/monitoring.db or postgresql://user@host/name"
        ) from error
    backend = url.get_backend_name()
    if backend == "sqlite":
        if not url.database or url.database == ":memory:":
            raise BadEndpoint("monitoring needs a database file: use sqlite:///path/to/monitoring.db")
        return url.set(drivername="sqlite")
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise BadEndpoint(f"databases of kind {backend!r} are not supported: use sqlite:/// or postgresql://")


def without_password(endpoint: str) -> str:
    """Return a database URI as it may be shown. Raises BadEndpoint."""
    return parse_endpoint(endpoint).render_as_string(hide_password=True)


def sqlite_path(url: URL) -> Path | None:
    """Return the file of a SQLite database, None for servers."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def writing_engine(endpoint: str) -> Engine:
    """Return an engine that writes, with one connection; makes the directory of a SQLite file.

    Raises:
        BadEndpoint: see ``parse_endpoint``; or the driver is not installed.
        NotOwnFile: the file of the database is another user's, or a link that another user has made; others may write
            to it; it has another name elsewhere; or one beside it is another user's. A server is asked when it is
            connected to (``settle_writer``).
        OSError: the directory cannot be made.
    """
    url = parse_endpoint(endpoint)
    path = sqlite_path(url)
    try:
        if path is None:
            return _server_engine(url)
        make_directory(path.parent)
        # Before the engine: opening the database would take what lies beside it for its own pages.
        check_companions(path)
        _make_private(path)
        engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_S})
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise BadEndpoint(f"no driver for {url.get_backend_name()}: install flow-monitor[postgresql]") from error
    wal = is_local(path)

    @event.listens_for(engine, "connect")
    def _connected(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        assert isinstance(connection, sqlite3.Connection)
        try:
            _check(path)  # one that was put in its place meanwhile is seen before anything is written
        except OSError:
            connection.close()
            raise
        connection.isolation_level = None  # SQLAlchemy begins transactions, not the driver
        connection.execute("PRAGMA page_size=8192")  # of a new file: half as many reads when nothing is cached
        connection.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}").fetchone()
        # A power failure may cost the last batches, never the database; the log has them.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        # KiB.
        connection.execute("PRAGMA cache_size=-32768")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # The write lock at once: a transaction that reads first and then writes fails where another has written.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _server_engine(url: URL) -> Engine:
    engine = create_engine(url, pool_pre_ping=True, pool_size=1, connect_args={"connect_timeout": 10})
    settle(engine, lambda cursor: settle_writer(cursor, LOCK_WAIT_S))
    return engine


def _make_private(path: Path) -> None:
    """Make the file of a database, no more open than its directory; check that an existing one is the user's own.

    SQLite makes its other files like this one. Only one that was not there is opened here: closing a descriptor of a
    database's file would drop SQLite's locks on it.
    """
    try:
        _check(path)
    except FileNotFoundError:  # of it, or of where a link of the user's own leads
        folder = path.parent.stat().st_mode
        # As open as the directory is, and never writable by others: its group may see the pages, not change them.
        mode = 0o600 | (folder & 0o040 if folder & 0o010 else 0) | (folder & 0o004 if folder & 0o001 else 0)
        with suppress(FileExistsError):
            os.close(open_own_to_write(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))


def _check(path: Path) -> None:
    """See that a file is the user's own by its status alone. Links of the user's own, and root's, are followed.

    Raises:
        NotOwnFile: it is not.
        OSError: it is not there.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        if status.st_uid not in (0, os.geteuid()):
            raise NotOwnFile(path, "it is a symbolic link that another user has made: remove it")
        status = path.stat()
    try:
        check_own_to_write(path, status)
    except NotOwnFile as error:
        remedy = "make it yours alone, or " if stat.S_ISREG(status.st_mode) else ""
        raise NotOwnFile(path, f"{error.reason}: {remedy}name another one in logging_endpoint") from None


def _hidden(endpoint: str) -> str:
    """Return a URI without what may be a password."""
    head, at, tail = endpoint.rpartition("@")
    return f"{head.split('://')[0]}://...@{tail}" if at else endpoint
