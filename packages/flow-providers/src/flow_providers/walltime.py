"""Wall times: ``HH:MM:SS`` and its kin, to and from seconds. Pure."""

from __future__ import annotations

import math
import re

from flow_providers.errors import BadOption

_FORMS = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+)")


def walltime_seconds(walltime: str) -> int:
    """Return the seconds of ``HH:MM:SS``, ``MM:SS`` or ``D-HH:MM:SS``.

    Raises:
        BadOption: it does not parse, or is zero.
    """
    if not isinstance(walltime, str):  # set after the provider was made
        raise BadOption(not_a_walltime(walltime))
    match = _FORMS.fullmatch(walltime.strip())
    # A bare number is refused: it means minutes to Slurm and LSF, seconds to PBS.
    if match is None and re.fullmatch(r"\d+(\.\d+)?", walltime.strip()):
        raise BadOption(not_a_walltime(walltime))
    if match is None:
        raise BadOption(f"walltime {walltime!r} does not parse: write 'HH:MM:SS', such as '00:30:00' for half an hour")
    days, h, m, s = (int(match[part] or 0) for part in ("days", "h", "m", "s"))
    seconds = ((days * 24 + h) * 60 + m) * 60 + s
    if seconds == 0:
        raise BadOption(f"walltime {walltime!r} is no time at all: give at least one second")
    return seconds


def not_a_walltime(value: object) -> str:
    """Return the text for a walltime that is not even text: schedulers disagree on what a bare number means."""
    try:
        number = float(value) if isinstance(value, str | int | float) else 0.0
    except ValueError:
        number = 0.0
    if 0 < number < 1e9:
        return (
            f"walltime={value!r} may mean seconds or minutes: write '{walltime_hms(number)}' for {number:g} seconds, "
            f"or '{walltime_hms(60 * number)}' for {number:g} minutes"
        )
    return f"walltime={value!r} is none: write 'HH:MM:SS', such as '00:30:00' for half an hour"


def walltime_minutes(walltime: str) -> int:
    """Return whole minutes, rounded up: no padding. Raises BadOption."""
    return math.ceil(walltime_seconds(walltime) / 60)


def walltime_hms(seconds: float) -> str:
    """Return ``HH:MM:SS`` (hours may exceed 99)."""
    # Up, not down: a job must not be ended before its walltime.
    whole = math.ceil(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
