"""The errors of monitoring: one hierarchy under MonitorError."""

from __future__ import annotations

from flow_core.errors import FlowError


class MonitorError(FlowError):
    """Root of the errors of monitoring."""


class BadEndpoint(MonitorError):
    """The database's URI cannot be used; the message says which part of it, and how it should look."""


class LogError(MonitorError):
    """The event log of a run cannot be opened or is not one."""


class ProjectionConflict(MonitorError):
    """Another process writes the same run into the same database."""


class DatabaseError(MonitorError):
    """The database cannot be read."""


class DatabaseMissing(DatabaseError):
    """There is no database at that place."""


class DatabaseBusy(DatabaseError):
    """The database is locked or does not answer; ask again."""


class NotOurDatabase(DatabaseError):
    """The file or database was not made by Flow's monitoring."""


class SchemaMismatch(DatabaseError):
    """The database is of a version that this program does not read; the message says what to upgrade."""


class NoSuchRecord(DatabaseError):
    """A workflow or task is not in the database."""


class UnsafeDatabase(DatabaseError):
    """Other users of the database could have code run with this user's rights; the message says who, and the remedy."""
