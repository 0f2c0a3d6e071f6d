"""The version of the schema: brought up by writers, checked by readers."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import column, inspect, select, table, text
from sqlalchemy.engine import Connection, Engine

from flow_monitor.errors import NotOurDatabase, SchemaMismatch

HEAD = 7
"""The version this program writes. Revisions of alembic are named ``0001``, ``0002`` ..."""
VERSION_TABLE = "flow_monitor_version"
_LOCK = 0x464C4F57  # any constant: the advisory lock under which PostgreSQL's schema is changed


def upgrade(engine: Engine) -> None:
    """Bring a database to the newest version, from nothing too. Safe against others who do the same.

    Raises:
        NotOurDatabase: it has tables of our names that are not ours.
        SchemaMismatch: a newer program made it.
        sqlalchemy.exc.OperationalError: it is locked or does not answer.
    """
    with engine.begin() as connection:
        # SQLite's BEGIN IMMEDIATE is such a lock already.
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        found = version_of(connection)
        if found == HEAD:
            return
        if found is not None and found > HEAD:
            raise _too_new(found)
        # A table of that name that is somebody else's must not be migrated.
        if found is None and inspect(connection).has_table("workflow"):
            raise NotOurDatabase("the database has a table 'workflow' that is not Flow's: choose another database")
        _migrate(connection)


def check_readable(connection: Connection) -> int:
    """Return the version of a database that this program reads: the newest, and the one before.

    Raises:
        NotOurDatabase: it has no schema of ours.
        SchemaMismatch: it is too old or too new; the message says what to do.
    """
    found = version_of(connection)
    if found is None:
        raise NotOurDatabase("it has no monitoring data of Flow in it")
    if found > HEAD:
        raise _too_new(found)
    if found < HEAD - 1:
        raise SchemaMismatch(
            f"its schema has version {found}, this Flow reads {HEAD - 1} and {HEAD}: "
            "bring it up with 'flow monitor upgrade'"
        )
    return found


def has_version(connection: Connection, number: int) -> bool:
    """Return whether a database that was found readable has a version of the schema, or a later one."""
    found = version_of(connection)
    return found is not None and found >= number


def version_of(connection: Connection) -> int | None:
    """Return the version of the schema, None where there is none."""
    schema = (connection.get_execution_options().get("schema_translate_map") or {}).get(None)
    if not inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    value = connection.execute(select(table(VERSION_TABLE, column("version_num"), schema=schema))).scalar()
    try:
        return None if value is None else int(value)
    except ValueError:
        raise NotOurDatabase(f"its table {VERSION_TABLE} holds {value!r}, which is no version of ours") from None


def _too_new(found: int) -> SchemaMismatch:
    return SchemaMismatch(f"its schema has version {found}, this Flow knows up to {HEAD}: upgrade flow-monitor")


def _migrate(connection: Connection) -> None:
    # Imported here: readers, and writers of a database that is up to date, need no alembic.
    from alembic import command
    from alembic.config import Config

    config = Config()
    # Doubled per cent signs: ConfigParser would take one in the path for an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
