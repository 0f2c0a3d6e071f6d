"""How long a message and its answer take, as heartbeats and the registration show. Pure."""

from __future__ import annotations

from collections import deque

LEAST_S = 0.005
"""A round trip below that costs nothing that is worth a thought, and cannot be told from a busy machine."""
_REMEMBERED = 8
_SURE = 4
_WAITING = 64
_SAFE = 4.0
"""Round trips that must fit into the silence that is allowed: one message may be lost, and sent again."""


class Trip:
    """The shortest of the last round trips. One thread. Answers come in the order of the questions."""

    __slots__ = ("_asked", "_last")

    def __init__(self) -> None:
        self._asked: deque[float] = deque(maxlen=_WAITING)
        self._last: deque[float] = deque(maxlen=_REMEMBERED)

    def begin(self) -> None:
        """There is a new connection: nothing is known of it."""
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
        """Say whether silence of ``threshold_s`` may be only the link, where there is a word each ``period_s``."""
        return len(self._last) >= _SURE and self.seconds > 0 and threshold_s < period_s + _SAFE * self.seconds
