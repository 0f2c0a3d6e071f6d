"""A monitoring database opened for reading: never written, never made.

Nothing but SQLite may open the file. Locks of POSIX belong to the process, and closing any descriptor of a file drops
all that the process has on it: also those of SQLite's other connections. The last writer then believes that nobody
reads, deletes the write-ahead log, and the readers go on with the deleted file for good. So the file is only asked for
its status here, and SQLite says whether it is a database.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
        self._stamp: _Stamp | None = None
        self._immutable = False
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
            self._follow(self._path)
        try:
            with self._engine.connect() as connection:
                check_readable(connection)
                yield connection
        except (DBAPIError, sqlite3.Error) as error:
            raise self._meant(error) from error

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._engine.dispose()

    def _follow(self, path: Path) -> None:
        """Give up connections to a file that is no longer the one of that name, or that they take for unchanging."""
        stamp = None
        try:
            stamp = _look_at(path)
        finally:
            before = self._stamp
            self._stamp = stamp
            if before is not None and (stamp is None or stamp.changed(before, contents=self._immutable)):
                self._immutable = False
                self._engine.dispose()

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection, immutable = _connect_read_only(path)
        self._immutable = self._immutable or immutable
        return connection

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
            "sqlite://", creator=lambda: self._connect(path), poolclass=QueuePool, pool_size=6, max_overflow=-1
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


@dataclass(frozen=True, slots=True)
class _Stamp:
    """Which file it is, and of which contents, as far as its status tells."""

    file: tuple[int, int]
    contents: tuple[int, int, int]

    def changed(self, before: _Stamp, *, contents: bool) -> bool:
        """Tell whether it is another file than before, or (``contents``) the same with something else in it."""
        return self.file != before.file or (contents and self.contents != before.contents)


def _look_at(path: Path) -> _Stamp:
    """Return what the file is by its status alone: it must not be opened here, see above.

    Raises:
        DatabaseMissing: there is no such file.
        NotOurDatabase: nobody has written to it.
        DatabaseError: it cannot be looked at.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DatabaseMissing(
            f"there is no file {path}: run a workflow with Config(monitoring=MonitoringHub()) first, or name another"
        ) from error
    except OSError as error:
        raise DatabaseError(f"{path} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise NotOurDatabase(f"{path} is not a SQLite database: it is no plain file")
    if not status.st_size:
        raise NotOurDatabase(f"{path} is empty: no run has written to it yet")
    if not os.access(path, os.R_OK):
        raise DatabaseError(f"{path} cannot be opened: {os.strerror(errno.EACCES)}")
    return _Stamp((status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns, _size(_wal_of(path))))


def _wal_of(path: Path) -> Path:
    return Path(f"{path}-wal")


def _size(path: Path) -> int:
    """Return the size of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _connect_read_only(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Open a file so that it cannot be changed; say whether it is taken for one that nobody else changes either.

    A closed file in a directory that is not ours needs ``immutable``: its side files cannot be made.
    """
    quoted = quote(os.path.abspath(path))
    try:
        return _open(f"file:{quoted}?mode=ro"), False
    except sqlite3.OperationalError as error:
        # Only where a WAL database cannot have its side files made: a lock is somebody writing, and
        # ``immutable`` would read through it.
        if error.sqlite_errorcode & 0xFF not in _SIDE_FILES_REFUSED or _size(_wal_of(path)):
            raise
    return _open(f"file:{quoted}?mode=ro&immutable=1"), True


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
