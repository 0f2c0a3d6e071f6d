"""Exit codes as shells tell them: 128 + n after signal n. Pure."""

from __future__ import annotations

SIGNAL_BASE = 128
_SIGNALS = 65


def signal_of(code: int | None) -> int | None:
    """Return the signal that an exit code tells, or None where it tells none."""
    return code - SIGNAL_BASE if code is not None and SIGNAL_BASE < code < SIGNAL_BASE + _SIGNALS else None
