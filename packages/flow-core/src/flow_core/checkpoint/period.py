"""The time between two periodic checkpoints."""

from __future__ import annotations

import math

from flow_core.errors import ConfigurationError


def period_seconds(period: str | float) -> float:
    """Return the seconds of a ``checkpoint_period``: ``"HH:MM:SS"``, or a number of seconds above 0.

    Raises:
        ConfigurationError: it is neither.
    """
    # True is an int in Python; as a period it is a mistake.
    if isinstance(period, (int, float)) and not isinstance(period, bool) and 0 < period < math.inf:
        return float(period)
    if isinstance(period, str):
        parts = period.split(":")
        if len(parts) == 3 and all(part.isdecimal() for part in parts) and int(parts[1]) < 60 and int(parts[2]) < 60:
            seconds = int(parts[0]) * 3600 + int(parts[1]) * 60 + int(parts[2])
            if seconds > 0:
                return float(seconds)
    raise ConfigurationError(
        f"checkpoint_period must be a time above 0 as 'HH:MM:SS' (an hour is '01:00:00') or in seconds, not {period!r}"
    )
