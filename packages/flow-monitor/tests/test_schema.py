"""The schema: made by migrations, the same as the tables, refused where it is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from flow_monitor.errors import BadEndpoint, NotOurDatabase, SchemaMismatch
from flow_monitor.project.rebuild import upgrade
from flow_monitor.queries.database import open_database
from flow_monitor.schema import filesystem
from flow_monitor.schema.engine import parse_endpoint
from flow_monitor.schema.tables import metadata
from flow_monitor.schema.version import HEAD, VERSION_TABLE


def test_migrations_make_the_tables(tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path / 'm.db'}")
    engine = create_engine(f"sqlite:///{tmp_path / 'm.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        for table in metadata.sorted_tables:
            keys = inspect(connection).get_foreign_keys(table.name)
            assert len(keys) == len(table.foreign_key_constraints), table.name
    engine.dispose()


def test_upgrading_twice_changes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        upgrade(f"sqlite:///{tmp_path / 'm.db'}")


def test_the_newest_migration_is_the_version_written() -> None:
    versions = Path(filesystem.__file__).parent / "migrations" / "versions"
    assert max(int(path.name[:4]) for path in versions.glob("[0-9]*.py")) == HEAD


def test_somebody_elses_database_is_not_touched(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'm.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE workflow (x)"))
    engine.dispose()
    with pytest.raises(NotOurDatabase, match="choose another database"):
        upgrade(f"sqlite:///{tmp_path / 'm.db'}")


def test_a_newer_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    endpoint = f"sqlite:///{tmp_path / 'm.db'}"
    upgrade(endpoint)
    engine = create_engine(endpoint)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num='0099'"))
    engine.dispose()
    with pytest.raises(SchemaMismatch, match="upgrade flow-monitor"):
        upgrade(endpoint)
    with open_database(endpoint) as database, pytest.raises(SchemaMismatch), database.connect():
        pass


@pytest.mark.parametrize("uri", ["nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:", ""])
def test_bad_uris_are_named(uri: str) -> None:
    with pytest.raises(BadEndpoint):
        parse_endpoint(uri)


def test_a_password_in_a_bad_uri_is_not_shown() -> None:
    with pytest.raises(BadEndpoint) as caught:
        parse_endpoint("mysql://user:secret@host/db")
    assert "secret" not in str(caught.value)


def test_local_file_systems_are_told_from_network_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert filesystem.is_local(Path("/proc/not/yet/there"))
    monkeypatch.setattr(filesystem, "_kind", lambda _path: "nfs4")
    assert not filesystem.is_local(tmp_path)
    monkeypatch.setattr(filesystem, "_kind", lambda _path: None)
    assert not filesystem.is_local(tmp_path)
