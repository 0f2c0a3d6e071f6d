"""Times, durations, sizes and states as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

STATES = {
    "pending": "waiting",
    "unsched": "waiting",
    "staging": "staging",
    "launched": "queued",
    "running": "running",
    "at_executors": "queued or running",
    "joining": "joining",
    "exec_done": "done",
    "memo_done": "from memo",
    "failed": "failed",
    "dep_fail": "dependency failed",
    "fail_retryable": "to be retried",
    "cancelled": "cancelled",
}
"""States in the order of a task's life, with a word for each."""


def state(name: str) -> str:
    """Return a word for a task's state."""
    return STATES.get(name, name or "unknown")


AT_EXECUTORS = ("launched", "running")


def states_told_apart(counts: Mapping[str, int]) -> dict[str, int]:
    """Return numbers of tasks by distinguishable states; those at executors are one where it is unclear which run.

    Workers in processes report the start of a task only after it has run for a second, so nobody knows which of the
    launched tasks run already. Where no task is launched, the running ones are known.
    """
    if not counts.get("launched"):
        return dict(counts)
    told = {name: tasks for name, tasks in counts.items() if name not in AT_EXECUTORS}
    told["at_executors"] = sum(counts.get(name, 0) for name in AT_EXECUTORS)
    return told


def state_order(name: str) -> int:
    """Return where a state stands in a task's life."""
    return list(STATES).index(name) if name in STATES else len(STATES)


def moment(time_ns: int | None) -> str:
    """Return a time as ``2026-01-31 12:00:00`` UTC."""
    found = _datetime(time_ns)
    return found.strftime("%Y-%m-%d %H:%M:%S") if found else "\u2013"


def clock(time_ns: int | None) -> str:
    """Return a time of day with milliseconds, UTC."""
    found = _datetime(time_ns)
    return found.strftime("%H:%M:%S.%f")[:-3] if found else "\u2013"


def ago(time_ns: int | None, now_ns: int) -> str:
    """Return how long ago a time was, roughly: ``13 months ago``."""
    if not time_ns:
        return "\u2013"
    passed = (now_ns - time_ns) / 1e9
    for name, length in _SPANS:
        count = int(passed / length)
        if count >= 2:
            return f"{count} {name}s ago"
    return "just now"


_SPANS = (
    ("year", 365 * 86_400),
    ("month", 30.44 * 86_400),
    ("week", 7 * 86_400),
    ("day", 86_400),
    ("hour", 3600),
    ("minute", 60),
    ("second", 1),
)
"""Names of spans of time and their length in seconds; one is used from two of it on."""


def iso(time_ns: int | None) -> str:
    """Return a time (nanoseconds since the epoch) in ISO 8601, UTC; empty where there is none."""
    found = _datetime(time_ns)
    return found.isoformat().replace("+00:00", "Z") if found else ""


def _datetime(time_ns: int | None) -> datetime | None:
    try:
        return None if not time_ns else datetime.fromtimestamp(time_ns / 1e9, UTC)
    # The database may hold any number; a page must not fail for one of them.
    except (OverflowError, ValueError, OSError):
        return None


def seconds(value: float | None) -> str:
    """Return a duration given in seconds."""
    if value is None:
        return "\u2013"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs" if value > 0 else "0 s"
    if value < 1:
        return f"{value * 1e3:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    # Rounded first: 119.7 s would otherwise read "1 min 60 s".
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    # From two days on, days are easier to read.
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def duration(value_ns: int | None) -> str:
    """Return a duration given in nanoseconds."""
    return seconds(None if value_ns is None else value_ns / 1e9)


def size(value: float | None) -> str:
    """Return a number of bytes in the unit that fits, from B to PiB."""
    if value is None or value < 0:
        return "\u2013"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def number(value: int | None) -> str:
    """Return a whole number with thin spaces between thousands."""
    return "\u2013" if value is None else f"{value:,}".replace(",", "\u202f")


def sentence(text: str) -> str:
    """Return a message of an error as a sentence. Its first word stays as it is where it is a path."""
    begun = text if "/" in text.partition(" ")[0] else text[:1].upper() + text[1:]
    return begun if begun.endswith((".", "!", "?")) or not begun else f"{begun}."
