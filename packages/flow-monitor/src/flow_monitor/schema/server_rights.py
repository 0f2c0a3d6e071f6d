"""Whose code a statement to PostgreSQL can run: with several users in one database it need not be the sender's own.

PostgreSQL looks for functions and operators in all schemas of the search path, and takes the one whose types fit best:
``public.=(text, varchar)`` of another user comes before its own ``=(text, text)``. It runs with the rights of whoever
sends the statement. So do triggers, views and policies, and functions in indexes and constraints of others' tables.

Readers trust nobody: they look for nothing but tables in the schema, and take only tables in which there is no code.
Writers change the tables, so they ask who could put code there, and refuse where that is anybody but themselves,
administrators, and those who own the tables together with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text

from flow_monitor.errors import UnsafeDatabase
from flow_monitor.schema.bounded_text import is_text
from flow_monitor.schema.tables import metadata
from flow_monitor.schema.version import VERSION_TABLE

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

PREPARED = "flow_monitor"
# pg_temp is named last: unnamed, it would be the first place where tables are looked for.
_NO_SCHEMA = "pg_catalog, pg_temp"

_PLACE = """
SELECT n.nspname FROM unnest(%s::text[]) WITH ORDINALITY AS path(name, at)
JOIN pg_namespace n ON n.nspname = path.name
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = %s
ORDER BY c.oid IS NULL, path.at LIMIT 1
"""

_DANGERS = """
WITH RECURSIVE mine(oid) AS (
  SELECT oid FROM pg_roles WHERE rolname = current_user
  UNION SELECT m.roleid FROM pg_auth_members m JOIN mine ON m.member = mine.oid
), place AS (
  SELECT oid, nspname, nspowner AS owner, nspacl AS acl FROM pg_namespace WHERE nspname = %s
), ours AS (
  SELECT c.oid, c.relname, c.relowner AS owner, c.relacl AS acl FROM pg_class c JOIN place ON place.oid = c.relnamespace
  WHERE c.relname = ANY(%s::text[])
), owners(oid) AS (
  SELECT owner FROM place UNION SELECT owner FROM ours
), administrators(oid) AS (
  SELECT oid FROM pg_roles WHERE rolname = current_user OR rolsuper OR rolname = 'pg_database_owner'
  UNION SELECT datdba FROM pg_database WHERE datname = current_database()
  UNION SELECT oid FROM mine WHERE oid IN (SELECT oid FROM owners)
), together(oid) AS (
  SELECT oid FROM owners WHERE oid IN (SELECT oid FROM administrators)
  UNION SELECT m.member FROM pg_auth_members m JOIN together ON m.roleid = together.oid
), trusted(oid) AS (
  SELECT oid FROM administrators UNION SELECT oid FROM together
), others(oid) AS (
  SELECT oid FROM pg_roles WHERE rolcanlogin AND oid NOT IN (SELECT oid FROM trusted)
  AND has_database_privilege(oid, current_database(), 'CONNECT')
), granted AS (
  SELECT 2 AS at, place.nspname AS of, 'CREATE' AS what, a.grantee FROM place, aclexplode(place.acl) a
  WHERE a.privilege_type = 'CREATE'
  UNION SELECT 5, ours.relname, 'TRIGGER', a.grantee FROM ours, aclexplode(ours.acl) a
  WHERE a.privilege_type = 'TRIGGER'
), found(at, kind, of, who) AS (
  SELECT 1, 'schema', nspname, owner FROM place WHERE owner NOT IN (SELECT oid FROM trusted)
  UNION SELECT at, what, of, grantee FROM granted
  WHERE EXISTS (SELECT FROM others o WHERE grantee = 0 OR pg_has_role(o.oid, grantee, 'MEMBER'))
  UNION SELECT 3, 'table', relname, owner FROM ours WHERE owner NOT IN (SELECT oid FROM trusted)
  UNION SELECT 4, 'trigger', ours.relname, p.proowner FROM ours JOIN pg_trigger t ON t.tgrelid = ours.oid
  JOIN pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal AND p.proowner NOT IN (SELECT oid FROM trusted)
  UNION SELECT 4, 'function', p.proname, p.proowner FROM pg_proc p JOIN place ON place.oid = p.pronamespace
  WHERE p.proowner NOT IN (SELECT oid FROM trusted)
  AND EXISTS (SELECT FROM pg_proc b WHERE b.proname = p.proname AND b.pronamespace = 'pg_catalog'::regnamespace)
  UNION SELECT 4, 'operator', o.oprname, o.oprowner FROM pg_operator o JOIN place ON place.oid = o.oprnamespace
  WHERE o.oprowner NOT IN (SELECT oid FROM trusted)
)
SELECT kind, of, CASE WHEN who = 0 THEN NULL ELSE pg_get_userbyid(who) END FROM found ORDER BY at, of LIMIT 1
"""

_READABLE = text("""
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY(:schemas) AND c.relname = ANY(:names) AND has_table_privilege(c.oid, 'SELECT') ORDER BY c.relname
""")

# What is of the server itself is in no row of pg_depend.
_WITH_CODE = text("""
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = ANY(:names) AND (
  c.relkind <> 'r' OR c.relrowsecurity OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid)
  OR EXISTS (
    SELECT FROM pg_depend d
    JOIN (
      SELECT 'pg_class'::regclass AS kind, c.oid AS part
      UNION SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index i WHERE i.indrelid = c.oid
      UNION SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k WHERE k.conrelid = c.oid
      UNION SELECT 'pg_attrdef'::regclass, a.oid FROM pg_attrdef a WHERE a.adrelid = c.oid
      UNION SELECT 'pg_statistic_ext'::regclass, s.oid FROM pg_statistic_ext s WHERE s.stxrelid = c.oid
    ) parts ON d.classid = parts.kind AND d.objid = parts.part
    WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_opclass'::regclass,
      'pg_opfamily'::regclass)
  )
  OR EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attlen < 0 AND NOT a.attisdropped
    AND c.relname || '.' || a.attname = ANY(:short)
    AND NOT (a.atttypid = 'pg_catalog.varchar'::regtype AND a.atttypmod BETWEEN 0 AND 260)
  )
) ORDER BY c.relname LIMIT 1
""")


def settle(engine: Engine, prepare: Callable[[Any], object]) -> None:
    """Have each new connection of an engine prepared; what ``prepare`` returns is in its ``info[PREPARED]``."""

    @event.listens_for(engine, "connect")
    def _connected(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        try:
            with closing(connection.cursor()) as cursor:
                record.info[PREPARED] = prepare(cursor)
            connection.commit()
        except BaseException:
            connection.close()
            raise


def settle_writer(cursor: Any, lock_wait_s: float) -> None:  # a cursor of the driver, which may not be installed
    """Prepare a new connection that will write: its schema is fixed, and nobody else's code is in it or can come there.

    Raises:
        UnsafeDatabase: somebody else could have code of theirs run with the rights of this user.
    """
    schemas = _leave_schemas(cursor)
    cursor.execute("SELECT set_config('lock_timeout', %s, false)", (str(int(lock_wait_s * 1000)),))
    place = _place(cursor, schemas)
    if place is None:  # PostgreSQL says itself that there is nowhere to make tables
        return
    cursor.execute(_DANGERS, (place, _names()))
    danger = cursor.fetchone()
    if danger is not None:
        raise UnsafeDatabase(_description(place, *danger))
    cursor.execute("SELECT set_config('search_path', quote_ident(%s) || ', pg_temp', false)", (place,))


def settle_reader(cursor: Any, longest_ms: int) -> Sequence[str]:
    """Prepare a new connection that will read: no schema is searched; return those that were, in order."""
    schemas = _leave_schemas(cursor)
    cursor.execute("SELECT set_config('default_transaction_read_only', 'on', false)")
    cursor.execute("SELECT set_config('statement_timeout', %s, false)", (str(longest_ms),))
    return schemas


def hold_tables(connection: Connection, schemas: Sequence[str]) -> str | None:
    """Keep the tables as they are until the transaction ends, and see that there is no code in them.

    Returns:
        The first of the schemas that has the tables; None if none has.

    Raises:
        UnsafeDatabase: there is code: a look at such a table would run what its owner has put there.
    """
    found = connection.execute(_READABLE, {"schemas": list(schemas), "names": _names()}).all()
    having = {schema for schema, name in found if name == VERSION_TABLE}
    place = next((schema for schema in schemas if schema in having), None)
    if place is None:
        return None
    names = [name for schema, name in found if schema == place]
    quote = connection.dialect.identifier_preparer.quote_identifier
    held = ", ".join(f"{quote(place)}.{quote(name)}" for name in names)
    # Whoever owns a table can put a view in its place: not while it is held.
    connection.exec_driver_sql(f"LOCK TABLE {held} IN ACCESS SHARE MODE")
    coded = connection.execute(_WITH_CODE, {"schema": place, "names": names, "short": _short_columns()}).scalar()
    if coded is not None:
        raise UnsafeDatabase(
            f"{coded!r} in the schema {place!r} is no plain table: it is a view, or there are policies, functions or "
            "types in it that no version of Flow makes, and looking at it would run them with your rights"
        )
    return place


def _names() -> list[str]:
    return [*metadata.tables, VERSION_TABLE]


def _short_columns() -> list[str]:
    """Return the columns whose values are short in any table of Flow's; in those of others they may be of any type."""
    columns = [each for one in metadata.tables.values() for each in one.columns if not is_text(each)]
    return [f"{VERSION_TABLE}.version_num", *(f"{each.table.name}.{each.name}" for each in columns)]


def _leave_schemas(cursor: Any) -> Sequence[str]:
    """Search the server's own schema alone from now on; return those that were searched, in order."""
    cursor.execute("SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]")
    (schemas,) = cursor.fetchone()
    cursor.execute("SELECT pg_catalog.set_config('search_path', %s, false)", (_NO_SCHEMA,))
    return [str(name) for name in schemas if name != "pg_catalog"]


def _place(cursor: Any, schemas: Sequence[str]) -> str | None:
    """Return the first of some schemas that has the tables, else the first, where they would be made."""
    cursor.execute(_PLACE, (list(schemas), VERSION_TABLE))
    found = cursor.fetchone()
    return None if found is None else str(found[0])


def _description(schema: str, kind: str, of: str, who: str | None) -> str:
    role = "every role" if who is None else f"the role {who!r}"
    grantee = "PUBLIC" if who is None else f'"{who}"'
    what, remedy = {
        "schema": (f"the schema {of!r} belongs to {role}", "use a schema of your own"),
        "table": (f"the table {of!r} belongs to {role}", "use a schema of your own"),
        "trigger": (f"the table {of!r} has a trigger of {role}", "drop it"),
        "function": (f"{role} has a function {of!r} in the schema {schema!r}", "drop it"),
        "operator": (f"{role} has an operator {of!r} in the schema {schema!r}", "drop it"),
        "CREATE": (
            f"{role} may make functions in the schema {of!r}",
            f'REVOKE CREATE ON SCHEMA "{of}" FROM {grantee}',
        ),
        "TRIGGER": (
            f"{role} may add triggers to the table {of!r}",
            f'REVOKE TRIGGER ON ALL TABLES IN SCHEMA "{schema}" FROM {grantee}',
        ),
    }[kind]
    return (
        f"{what}, so that what is written there could run code of others with your rights in the database: {remedy} "
        "(or own the tables by a role of which all who write are members)"
    )
