"""Engines of SQLAlchemy that write: transactions that really are ones, waiting for locks, WAL where it is safe."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from flow_monitor.errors import BadEndpoint
from flow_monitor.schema.filesystem import is_local

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

LOCK_WAIT_S = 5.0
"""How long one statement waits for another writer before it gives up (and is tried again)."""


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


def sqlite_path(url: URL) -> Path | None:
    """Return the file of a SQLite database, None for servers."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def writing_engine(endpoint: str) -> Engine:
    """Return an engine that writes, with one connection; makes the directory of a SQLite file.

    Raises:
        BadEndpoint: see ``parse_endpoint``; or the driver is not installed.
        OSError: the directory cannot be made.
    """
    url = parse_endpoint(endpoint)
    path = sqlite_path(url)
    try:
        if path is None:
            return create_engine(url, pool_pre_ping=True, pool_size=1, connect_args={"connect_timeout": 10})
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_S})
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise BadEndpoint(f"no driver for {url.get_backend_name()}: install flow-monitor[postgresql]") from error
    wal = is_local(path)

    @event.listens_for(engine, "connect")
    def _connected(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        assert isinstance(connection, sqlite3.Connection)
        connection.isolation_level = None  # SQLAlchemy begins transactions, not the driver
        connection.execute("PRAGMA page_size=8192")  # of a new file: half as many reads when nothing is cached
        connection.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}").fetchone()
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-32768")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _hidden(endpoint: str) -> str:
    """Return a URI without what may be a password."""
    head, at, tail = endpoint.rpartition("@")
    return f"{head.split('://')[0]}://...@{tail}" if at else endpoint
