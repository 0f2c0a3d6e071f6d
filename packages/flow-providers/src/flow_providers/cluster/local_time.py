"""Times as schedulers print them: local to their host, without saying where that is. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from email.utils import parsedate

ZONE_COMMAND = "date +UTC%z"
"""Prints what ``zone_of`` reads."""


def with_zone(command: str) -> str:
    """Return a command that also prints the offset of its host, and ends with the command's own exit code."""
    # The offset is asked of the host in the same command: this machine may be in another zone, and daylight saving
    # changes it.
    return f"{command}; flow_code=$?; {ZONE_COMMAND}; exit $flow_code"


def zone_of(text: str) -> timezone | None:
    """Return the last offset printed by ZONE_COMMAND."""
    found = re.findall(r"^UTC([+-])(\d\d)(\d\d)\s*$", text, re.MULTILINE)
    if not found:
        return None
    sign, hours, minutes = found[-1]
    if int(hours) > 23 or int(minutes) > 59:
        return None
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-offset if sign == "-" else offset)


def seconds_of(text: str, zone: timezone | None) -> float | None:
    """Return seconds since the epoch of ``2026-11-21T11:04:25``, ``Sat Nov 21 11:04:25 2026``, or a plain number."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        fields = parsedate(text)
        when = datetime(*fields[:6]) if fields and not text[:4].isdecimal() else datetime.fromisoformat(text)
        if when.tzinfo is None and zone is None:
            return None
        return (when if when.tzinfo else when.replace(tzinfo=zone)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
