"""Exit codes as shells report them: 128 + n after signal n. Pure."""

from __future__ import annotations

SIGNAL_BASE = 128  # as the shells have it: 128 + n after signal n
_SIGNALS = 65  # Linux has signals 1 to 64


def signal_of(code: int | None) -> int | None:
    """Return the signal that an exit code stands for, or None where it stands for none."""
    return code - SIGNAL_BASE if code is not None and SIGNAL_BASE < code < SIGNAL_BASE + _SIGNALS else None
