"""A monitoring database opened for reading: never written, never made."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection as Connection, Engine
from sqlalchemy.exc import DatabaseError as SqlDatabaseError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from flow_monitor.errors import (
    BadEndpoint,
    DatabaseBusy,
    DatabaseError,
    DatabaseMissing,
    NotOurDatabase,
)
from flow_monitor.schema.engine import parse_endpoint, sqlite_path
from flow_monitor.schema.version import check_readable

_LOCK_WAIT_S = 2.0
_SQLITE_HEAD = b"SQLite format 3\x00"
_SIDE_FILES_REFUSED = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


class Database:
    """A monitoring database. Any thread; connections are pooled. Context manager.

    Attributes:
        name: What to call it on pages: its path, or its URI without a password.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._path = sqlite_path(url)
        self.name = str(self._path) if self._path is not None else url.render_as_string(hide_password=True)
        self._engine = self._sqlite_engine(self._path) if self._path is not None else _server_engine(url)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Give a connection in one read transaction, after a look at the schema.

        Raises:
            DatabaseMissing: there is no such file.
            DatabaseBusy: it is locked, or the server does not answer.
            NotOurDatabase: it is no database of ours.
            SchemaMismatch: it is too old or too new.
        """
        if self._path is not None:
            _check_file(self._path)
        try:
            with self._engine.connect() as connection:
                check_readable(connection)
                yield connection
        except (DBAPIError, sqlite3.Error) as error:
            raise self._meant(error) from error

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._engine.dispose()

    def _meant(self, error: DBAPIError | sqlite3.Error) -> DatabaseError:
        """Return the error of ours for one of the driver."""
        text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        if "locked" in text or "busy" in text:
            return DatabaseBusy(f"{self.name} is locked by a writer just now: try again")
        if "not a database" in text or "malformed" in text:
            return NotOurDatabase(f"{self.name} is not a database that can be read: {text}")
        if self._path is None and isinstance(error, DBAPIError):
            return DatabaseBusy(f"{self.name} does not answer: {text}")
        if isinstance(error, SqlDatabaseError | sqlite3.DatabaseError):
            return DatabaseError(f"{self.name} cannot be read: {text}")
        return DatabaseError(f"{self.name}: {text}")

    def _sqlite_engine(self, path: Path) -> Engine:
        # no bound above: a query that holds one may ask in parts, which need more
        engine = create_engine(
            "sqlite://", creator=lambda: _connect_read_only(path), poolclass=QueuePool, pool_size=6, max_overflow=-1
        )

        @event.listens_for(engine, "begin")
        def _begun(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")  # one picture of the run for all queries of a page

        return engine

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_database(endpoint: str) -> Database:
    """Open a database for reading; it need not be there yet.

    Args:
        endpoint: ``sqlite:///path``, ``postgresql://user@host/name``, or the plain path of a SQLite file.

    Raises:
        BadEndpoint: it is neither.
    """
    if "://" not in endpoint:
        endpoint = f"sqlite:///{endpoint}"
    return Database(parse_endpoint(endpoint))


def _server_engine(url: URL) -> Engine:
    try:
        return create_engine(
            url,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            connect_args={
                "connect_timeout": 5,
                "options": "-c default_transaction_read_only=on -c statement_timeout=20000",
            },
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise BadEndpoint("no driver for postgresql: install flow-monitor[postgresql]") from error


def _check_file(path: Path) -> None:
    try:
        with open(path, "rb") as stream:
            head = stream.read(len(_SQLITE_HEAD))
    except FileNotFoundError as error:
        raise DatabaseMissing(
            f"there is no file {path}: run a workflow with Config(monitoring=MonitoringHub()) first, or name another"
        ) from error
    except OSError as error:
        raise DatabaseError(f"{path} cannot be opened: {error.strerror}") from error
    if not head:
        raise NotOurDatabase(f"{path} is empty: no run has written to it yet")
    if head != _SQLITE_HEAD:
        raise NotOurDatabase(f"{path} is not a SQLite database")


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a file so that it cannot be changed. A closed file in a directory that is not ours needs ``immutable``."""
    quoted = quote(os.path.abspath(path))
    try:
        return _open(f"file:{quoted}?mode=ro")
    except sqlite3.OperationalError as error:
        # Only where a WAL database cannot have its side files made: a lock is somebody writing, and
        # ``immutable`` would read through it.
        if error.sqlite_errorcode & 0xFF not in _SIDE_FILES_REFUSED:
            raise
        wal = Path(f"{path}-wal")
        if wal.exists() and wal.stat().st_size:
            raise
    return _open(f"file:{quoted}?mode=ro&immutable=1")


def _open(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=_LOCK_WAIT_S, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA cache_size=-16384")
        connection.execute("PRAGMA mmap_size=0")  # read: not in memory, a page of a map costs two faults or more
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
