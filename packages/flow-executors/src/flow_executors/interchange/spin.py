"""When to look without sleeping: only while tasks are out and events come fast, and never for much of the time."""

from __future__ import annotations

_AFTER_S = 0.0003
_SHARE = 0.1
_WINDOW_S = 1.0


class Spin:
    """A budget of spinning: up to 300 us after an event, at most a tenth of each second, never with one CPU."""

    __slots__ = ("_busy", "_cpus", "_last_event", "_spent", "_started", "_window")

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._last_event = 0.0
        self._busy = False
        self._window = 0.0
        self._spent = 0.0
        self._started = 0.0

    def wanted(self, now: float) -> bool:
        """Whether the next look should not sleep."""
        if self._cpus < 2 or not self._busy:
            return False
        if now - self._window > _WINDOW_S:
            self._window, self._spent = now, 0.0
        if now - self._last_event > _AFTER_S or self._spent > _SHARE * _WINDOW_S:
            return False
        self._started = now
        return True

    def after(self, now: float, event: bool, busy: bool) -> None:
        """Note how a look ended: whether something was there, and whether tasks are out."""
        if self._started:
            self._spent += max(0.0, now - self._started)
            self._started = 0.0
        if event:
            self._last_event = now
        self._busy = busy
