"""URIs of databases as they may be shown."""

from __future__ import annotations

from flow_monitor.schema.engine import without_password


def test_passwords_of_databases_are_not_shown() -> None:
    shown = without_password("postgresql://me:hushhush@dbhost/monitoring")
    assert "hushhush" not in shown
    assert "me:***@dbhost/monitoring" in shown
    assert without_password("sqlite:///runinfo/monitoring.db") == "sqlite:///runinfo/monitoring.db"
