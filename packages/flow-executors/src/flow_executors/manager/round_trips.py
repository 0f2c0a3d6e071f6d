"""Round-trip times to the interchange, as heartbeats and the registration show them. Pure."""

from __future__ import annotations

from collections import deque

LEAST_S = 0.005
"""Seconds: a shorter round trip costs nothing that matters, and cannot be told from a busy machine."""
# Round trips of which the shortest counts: the longer ones waited for something else than the link.
_REMEMBERED = 8
# Round trips from which the estimate is believed.
_SURE = 4
# Questions without answer that are remembered: a bound for a connection on which nothing comes back.
_WAITING = 64
# Round trips that must fit into the silence that is allowed: one message may be lost, and sent again.
_SAFE = 4.0


class RoundTripTimes:
    """The shortest of the last round trips. One thread. Answers come in the order of the questions."""

    __slots__ = ("_asked", "_last")

    def __init__(self) -> None:
        self._asked: deque[float] = deque(maxlen=_WAITING)
        self._last: deque[float] = deque(maxlen=_REMEMBERED)

    def begin(self) -> None:
        """Forget all times: there is a new connection."""
        self._asked.clear()
        self._last.clear()

    def asked(self, now: float) -> None:
        """A message was sent that is answered at once."""
        self._asked.append(now)

    def answered(self, now: float) -> bool:
        """An answer came; return whether to ask again at once, since the link seems slow and little is known of it."""
        if not self._asked:
            return False
        self._last.append(now - self._asked.popleft())
        return self.seconds > 0 and len(self._last) < _SURE and not self._asked

    @property
    def seconds(self) -> float:
        """The round trip; 0 where it is not known, or does not matter."""
        shortest = min(self._last, default=0.0)
        return shortest if shortest >= LEAST_S else 0.0

    def too_long_for(self, period_s: float, threshold_s: float) -> bool:
        """Return whether a silence of ``threshold_s`` may be only the link, with a message each ``period_s``."""
        return len(self._last) >= _SURE and self.seconds > 0 and threshold_s < period_s + _SAFE * self.seconds
