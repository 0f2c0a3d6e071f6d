"""Times as other formats write them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(time_ns: int | None) -> str:
    """Return a time as ISO 8601 in UTC; the epoch where not known."""
    return datetime.fromtimestamp((time_ns or 0) / 1e9, UTC).isoformat(timespec="milliseconds")
