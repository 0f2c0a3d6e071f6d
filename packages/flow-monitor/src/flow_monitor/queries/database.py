"""A monitoring database opened for reading: never written, never made.

Nothing but SQLite may open the file. Locks of POSIX belong to the process, and closing any descriptor of a file drops
all that the process has on it: also those of SQLite's other connections. The last writer then finds no reader,
deletes the write-ahead log, and the readers go on with the deleted file for good. So the file is only asked for
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

from flow_core.own_files import NotOwnFile
from flow_monitor.errors import (
    BadEndpoint,
    DatabaseBusy,
    DatabaseError,
    DatabaseMissing,
    NotOurDatabase,
)
from flow_monitor.schema.bounded_text import bound_texts
from flow_monitor.schema.companions import check_companions
from flow_monitor.schema.engine import parse_endpoint, sqlite_path
from flow_monitor.schema.server_rights import PREPARED, hold_tables, settle, settle_reader
from flow_monitor.schema.version import check_readable

_LOCK_WAIT_S = 2.0  # seconds a page waits for a writer's lock; batches take less than half a second
_LONGEST_TEXT = 16 << 20
"""Bytes of one value at most: an error with its traceback is far shorter."""
_LONGEST_STATEMENT_MS = 20_000  # on a server: a page fails rather than holding its thread
_STEPS = 1_000_000  # steps between two calls of the handler: seldom enough that they cost nothing
MOST_STEPS = 2_000_000_000
"""Steps of SQLite's machine that one statement may take, about a minute: some 50 for each row of the largest tables."""
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
            UnsafeDatabase: others have put code into its tables on a server.
        """
        if self._path is not None:
            self._follow(self._path)
        try:
            with self._engine.connect() as connection:
                if self._path is None:
                    _hold_tables(connection)
                # In the same transaction as the queries: a writer may bring the schema up in between.
                check_readable(connection)
                yield connection
        except (DBAPIError, sqlite3.Error) as error:
            raise self._meant(error) from error

    def close(self) -> None:
        """Close all pooled connections. Idempotent; a later ``connect`` opens new ones."""
        self._engine.dispose()

    def _follow(self, path: Path) -> None:
        """Close connections to a file that was replaced, or that has changed though it was opened as immutable."""
        stamp = None
        try:
            stamp = _look_at(path)
        finally:
            # Also where the look fails: a file that comes back later is another one.
            before = self._stamp
            self._stamp = stamp
            if before is not None and (stamp is None or stamp.changed(before, contents=self._immutable)):
                self._immutable = False
                self._engine.dispose()

    def _connect(self, path: Path) -> sqlite3.Connection:
        try:
            check_companions(path)
        except NotOwnFile as error:
            raise DatabaseError(str(error)) from error
        connection, immutable = _connect_read_only(path)
        # One such connection is enough: what it shows never changes, so the file's contents are compared from now on.
        self._immutable = self._immutable or immutable
        return connection

    def _meant(self, error: DBAPIError | sqlite3.Error) -> DatabaseError:
        """Return the error of ours for one of the driver."""
        text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        if "locked" in text or "busy" in text:
            return DatabaseBusy(f"{self.name} is locked by a writer just now: try again")
        if "interrupted" in text or "too big" in text:
            return DatabaseError(
                f"{self.name} has what no run writes, views without end or texts beyond all bounds ({text}): somebody "
                "else has made it so, or its tables are too large for one file"
            )
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

        @event.listens_for(engine, "before_cursor_execute")
        def _begins(_: Connection, cursor: sqlite3.Cursor, *__: object) -> None:
            begun = cursor.connection
            assert isinstance(begun, _Bounded)
            # The bound is for one statement; a page has many.
            begun.budget.spent = 0

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
        engine = create_engine(
            url,
            # A server may have closed a connection that a page of yesterday has left in the pool.
            pool_pre_ping=True,
            # As BEGIN for SQLite: all queries of a page see one state of the run.
            isolation_level="REPEATABLE READ",
            connect_args={"connect_timeout": 5},
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise BadEndpoint("no driver for postgresql: install flow-monitor[postgresql]") from error

    bound_texts(engine)
    # By statements: the options of a connection are the user's, in the URI.
    settle(engine, lambda cursor: settle_reader(cursor, _LONGEST_STATEMENT_MS))
    return engine


def _hold_tables(connection: Connection) -> None:
    """Have statements name the schema of a server in which the tables are, and see that nobody's code is in them."""
    place = hold_tables(connection, connection.info[PREPARED])
    if place is not None:
        connection.execution_options(schema_translate_map={None: place})


@dataclass(frozen=True, slots=True)
class _Stamp:
    """Identity and contents of a file, as far as its status shows them."""

    file: tuple[int, int]
    contents: tuple[int, int, int]

    def changed(self, before: _Stamp, *, contents: bool) -> bool:
        """Return whether it is another file than before, or (``contents``) the same with something else in it."""
        return self.file != before.file or (contents and self.contents != before.contents)


def _look_at(path: Path) -> _Stamp:
    """Return the stamp of a file from its status alone: it must not be opened here, see above.

    Raises:
        DatabaseMissing: there is no such file.
        NotOurDatabase: it is empty or no plain file.
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
    # Asked, not tried: the file must not be opened here.
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
    """Open a file read-only; return the connection, and whether it was opened as immutable (changed by no process).

    A closed file in a directory that is not ours needs ``immutable``: its side files cannot be made.
    """
    # Quoted: a "?" or "#" in the path would begin the parameters of the URI.
    quoted = quote(os.path.abspath(path))
    try:
        return _open(f"file:{quoted}?mode=ro"), False
    except sqlite3.OperationalError as error:
        # Only where a WAL database cannot have its side files made: a lock is somebody writing, and
        # ``immutable`` would read through it.
        if error.sqlite_errorcode & 0xFF not in _SIDE_FILES_REFUSED or _size(_wal_of(path)):
            raise
    return _open(f"file:{quoted}?mode=ro&immutable=1"), True


class _Budget:
    """Count of the steps of SQLite's machine that the running statement has taken."""

    def __init__(self) -> None:
        self.spent = 0

    def take(self) -> bool:
        """Add the steps of one call of the progress handler; True makes SQLite interrupt the statement."""
        self.spent += _STEPS
        return self.spent > MOST_STEPS


class _Bounded(sqlite3.Connection):
    """A connection to a file that may be a stranger's: tables may be views without end, and values of any length."""

    budget: _Budget


def _open(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=_LOCK_WAIT_S, check_same_thread=False, isolation_level=None, factory=_Bounded
    )
    try:
        connection.budget = _Budget()
        connection.set_progress_handler(connection.budget.take, _STEPS)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_TEXT)
        connection.execute("PRAGMA query_only=ON")
        # KiB for each connection of the pool.
        connection.execute("PRAGMA cache_size=-16384")
        connection.execute("PRAGMA mmap_size=0")  # read: not in memory, a page of a map costs two faults or more
        # SQLite opens the file only now: refused side files and files that are no database are seen here.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
