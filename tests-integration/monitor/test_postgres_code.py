"""Several users in one PostgreSQL, one of whom lays code where the statements of another would run it."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flow_core.interfaces.sinks import RunInfo
from flow_monitor import MonitoringHub, open_database, rebuild
from flow_monitor.errors import NotOurDatabase, UnsafeDatabase
from flow_monitor.queries import workflows
from flow_monitor.schema import version
from flow_monitor.testing.synthetic import SyntheticRun

psycopg = pytest.importorskip("psycopg")
pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
_NUMBER = itertools.count()

# Says whose rights it has: what could read and write with them fails instead, so that it is seen.
TRAP = "BEGIN RAISE EXCEPTION 'trapped %', current_user; END"
OPERATOR = f"""
CREATE FUNCTION trap(text, varchar) RETURNS boolean LANGUAGE plpgsql AS $$ {TRAP} $$;
CREATE OPERATOR = (LEFTARG = text, RIGHTARG = varchar, FUNCTION = trap);
"""
TRIGGER = f"""
CREATE FUNCTION mine.trap() RETURNS trigger LANGUAGE plpgsql AS $$ {TRAP} $$;
CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON public.workflow FOR EACH ROW EXECUTE FUNCTION mine.trap();
"""
FUNCTION = f"CREATE FUNCTION mine.trap() RETURNS boolean LANGUAGE plpgsql AS $$ {TRAP} $$; "


class Shared:
    """A database of alice's on the server, which mallory and ben use, too."""

    def __init__(self, server: str) -> None:
        self._server, self.name = server, f"shared{next(_NUMBER)}"
        self._tell(server, f"CREATE DATABASE {self.name} OWNER alice")
        self.sql("alice", "REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC")

    def uri(self, who: str) -> str:
        head, _, tail = self._server.partition("://postgres@")
        return f"{head}://{who}@{tail.rpartition('/')[0]}/{self.name}"

    def sql(self, who: str, statements: str) -> None:
        self._tell(self.uri(who), statements)

    def remove(self) -> None:
        self._tell(self._server, f"DROP DATABASE {self.name} WITH (FORCE)")

    def run(self, who: str, directory: Path) -> Path:
        """Make a run of somebody's in the database; return its directory."""
        directory.mkdir(parents=True)
        hub = MonitoringHub(logging_endpoint=self.uri(who))
        hub.start(RunInfo(directory.parent.name, 1, directory, "x", 1))
        hub.emit(list(SyntheticRun(tasks=20, run_id=directory.parent.name, samples=2).events()))
        hub.close(60)
        return directory

    def seen(self, who: str) -> list[str]:
        """Return the runs that somebody sees."""
        with open_database(self.uri(who)) as database, database.connect() as connection:
            found = [run.run_id for run in workflows.page(connection).items]
            assert [workflows.one(connection, name).run_id for name in found] == found
            return sorted(found)

    def _tell(self, uri: str, statements: str) -> None:
        # The driver alone: SQLAlchemy would take per cent signs for parameters.
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(statements)


@pytest.fixture(scope="module")
def roles(server: str) -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        for name in ("alice", "ben", "mallory"):
            connection.execute(f"CREATE ROLE {name} LOGIN")
    return server


@pytest.fixture
def shared(roles: str) -> Iterator[Shared]:
    made = Shared(roles)
    yield made
    made.remove()


GRANTED = {  # what the administrator has granted; what mallory does with it; what the refusal says
    "an operator of its own": ("GRANT CREATE ON SCHEMA public TO mallory", OPERATOR, "CREATE ON SCHEMA"),
    "an operator of before": (
        "GRANT CREATE ON SCHEMA public TO mallory",
        OPERATOR,
        "has an operator '='",
    ),
    "as in old clusters": ("GRANT CREATE ON SCHEMA public TO PUBLIC", OPERATOR, 'ON SCHEMA "public" FROM PUBLIC'),
    "no trigger yet": (
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO mallory",
        "SELECT 1",
        "REVOKE TRIGGER ON ALL TABLES",
    ),
    "a trigger of before": (
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO mallory",
        TRIGGER,
        "has a trigger of the role 'mallory'",
    ),
}


@pytest.mark.parametrize("what", GRANTED)
def test_who_may_only_add_something_runs_no_code_as_one_who_writes(
    shared: Shared, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    grant, does, told = GRANTED[what]
    shared.run("alice", tmp_path / "first" / "000")
    shared.sql("alice", "CREATE SCHEMA mine; GRANT ALL ON SCHEMA mine TO mallory;" + grant)
    shared.sql("mallory", does)
    if "of before" in what:
        shared.sql("alice", "REVOKE CREATE ON SCHEMA public FROM mallory")
        shared.sql("alice", "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM mallory")
    with caplog.at_level(logging.WARNING):
        second = shared.run("alice", tmp_path / "second" / "000")
    assert told in caplog.text
    assert "trapped" not in caplog.text
    assert shared.seen("alice") == ["first"]
    shared.sql("alice", "REVOKE CREATE ON SCHEMA public FROM mallory, PUBLIC")
    shared.sql("alice", "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM mallory")
    shared.sql("mallory", "DROP OPERATOR IF EXISTS public.=(text, varchar)")
    shared.sql("mallory", "DROP FUNCTION IF EXISTS mine.trap() CASCADE")
    rebuild(second, shared.uri("alice"))
    assert shared.seen("alice") == ["first", "second"]


def test_what_another_user_adds_to_a_schema_runs_not_as_one_who_looks(shared: Shared, tmp_path: Path) -> None:
    shared.run("alice", tmp_path / "first" / "000")
    shared.sql("alice", "GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT SELECT ON ALL TABLES IN SCHEMA public TO ben")
    shared.sql("mallory", OPERATOR)
    assert shared.seen("alice") == shared.seen("ben") == ["first"]


CODED = {
    "a view": "ALTER TABLE workflow RENAME TO was; CREATE VIEW workflow AS SELECT * FROM was WHERE mine.trap()",
    "a policy": "ALTER TABLE workflow ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON workflow USING (mine.trap())",
    "an index": "ALTER FUNCTION mine.trap() IMMUTABLE; CREATE INDEX trap ON node (run_id) WHERE mine.trap()",
    "a partition": "CREATE TABLE mine.more () INHERITS (workflow)",
    "a domain": "CREATE DOMAIN mine.odd AS text CHECK (VALUE <> 'x'); ALTER TABLE workflow ALTER host TYPE mine.odd",
    "a number of any length": "ALTER TABLE workflow ALTER time_began TYPE text",
    "a version of any length": "ALTER TABLE flow_monitor_version ALTER version_num TYPE text",
}


@pytest.mark.parametrize("what", CODED)
def test_a_table_with_code_of_its_owner_is_not_looked_at(shared: Shared, tmp_path: Path, what: str) -> None:
    shared.run("alice", tmp_path / "hers" / "000")
    shared.sql("alice", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO ben")
    assert shared.seen("ben") == ["hers"]
    trap = FUNCTION if what != "an index" else FUNCTION.replace(TRAP, "BEGIN RETURN true; END")
    shared.sql("alice", f"CREATE SCHEMA mine; GRANT USAGE ON SCHEMA mine TO ben; {trap}{CODED[what]}")
    shared.sql("alice", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO ben")
    with pytest.raises(UnsafeDatabase, match=r"is no plain table"):
        shared.seen("ben")


def test_a_table_cannot_be_exchanged_while_it_is_looked_at(shared: Shared, tmp_path: Path) -> None:
    shared.run("alice", tmp_path / "hers" / "000")
    shared.sql("alice", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO ben")
    with open_database(shared.uri("ben")) as database, database.connect() as connection:
        with pytest.raises(Exception, match="lock timeout"):
            shared.sql("alice", "SET lock_timeout = 200; ALTER TABLE workflow RENAME TO was")
        assert workflows.one(connection, "hers").run_id == "hers"


def test_nobody_writes_into_the_tables_of_somebody_else(
    shared: Shared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared.sql("alice", "GRANT CREATE ON SCHEMA public TO mallory")
    shared.run("mallory", tmp_path / "theirs" / "000")
    shared.sql("mallory", "GRANT ALL ON ALL TABLES IN SCHEMA public TO alice")
    shared.sql("alice", "REVOKE CREATE ON SCHEMA public FROM mallory")
    shared.run("alice", tmp_path / "hers" / "000")
    assert "belongs to the role 'mallory'" in caplog.text
    assert shared.seen("alice") == ["theirs"]  # they are plain


def test_a_schema_that_another_user_has_made_in_this_ones_name_is_not_written_to(
    shared: Shared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared.sql("alice", f"GRANT CREATE ON DATABASE {shared.name} TO mallory")
    shared.sql("mallory", "CREATE SCHEMA alice; GRANT ALL ON SCHEMA alice TO alice")
    shared.run("alice", tmp_path / "hers" / "000")
    assert "the schema 'alice' belongs to the role 'mallory'" in caplog.text
    with pytest.raises(NotOurDatabase):
        shared.seen("alice")


def test_members_of_the_role_that_owns_the_tables_write_into_them_together(roles: str, tmp_path: Path) -> None:
    shared = Shared(roles)
    try:
        shared.sql("postgres", "CREATE ROLE lab; GRANT lab TO alice, ben")
        shared.sql("alice", "CREATE SCHEMA lab AUTHORIZATION lab")
        for who in ("alice", "ben"):
            shared.sql("postgres", f"ALTER ROLE {who} SET role = lab; ALTER ROLE {who} SET search_path = lab")
            shared.run(who, tmp_path / f"of-{who}" / "000")
        assert shared.seen("alice") == shared.seen("ben") == ["of-alice", "of-ben"]
    finally:
        shared.sql("postgres", "ALTER ROLE alice RESET ALL; ALTER ROLE ben RESET ALL")
        shared.sql("postgres", "DROP OWNED BY lab CASCADE; DROP ROLE lab")
        shared.remove()


def test_a_role_that_has_been_granted_to_both_is_no_owner_of_the_tables(
    roles: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is in one group with somebody has not said that all of the group may run code as them."""
    shared = Shared(roles)
    try:
        shared.run("alice", tmp_path / "first" / "000")
        shared.sql("postgres", "CREATE ROLE course; GRANT course TO alice, mallory")
        shared.sql("alice", "GRANT CREATE ON SCHEMA public TO course")
        shared.run("alice", tmp_path / "second" / "000")
        assert "the role 'course' may make functions in the schema 'public'" in caplog.text
        assert shared.seen("alice") == ["first"]
        caplog.clear()
        shared.sql("mallory", f"SET ROLE course; {OPERATOR}")
        shared.sql("alice", "REVOKE CREATE ON SCHEMA public FROM course")
        shared.run("alice", tmp_path / "third" / "000")
        assert "the role 'course' has a function '='" in caplog.text or "an operator '='" in caplog.text
        assert shared.seen("alice") == ["first"]
    finally:
        shared.sql("postgres", "DROP OWNED BY course CASCADE; DROP ROLE course")
        shared.remove()


def test_the_schema_of_the_uri_is_the_one_that_is_read(shared: Shared, tmp_path: Path) -> None:
    shared.sql("alice", "CREATE SCHEMA other")
    plain, shared.uri = shared.uri, lambda who: f"{plain(who)}?options=-csearch_path%3Dother"  # type: ignore[method-assign]
    shared.run("alice", tmp_path / "hers" / "000")
    assert shared.seen("alice") == ["hers"]
    shared.uri = plain  # type: ignore[method-assign]
    with pytest.raises(NotOurDatabase):
        shared.seen("alice")


def test_a_lock_that_another_user_never_gives_back_is_not_waited_for_without_end(
    shared: Shared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(shared.uri("mallory")) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (version._LOCK,))
        shared.run("alice", tmp_path / "hers" / "000")
        assert "lock timeout" in caplog.text
    deadline = time.monotonic() + 60
    while True:  # the projection goes on by itself
        with suppress(NotOurDatabase):
            if shared.seen("alice") == ["hers"]:
                break
        assert time.monotonic() < deadline
