"""Whether the interchange is there, silent, or gone for good; when to register, when to give up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

GONE_AFTER_S = 2.0
"""How long nobody may listen at an address where the interchange was, before it counts as gone for good."""
DENIED_FOR_S = 3.0
"""How long a key may be refused: an interchange that was just restarted is told the keys a moment later."""
FIRST_WORD_S = 30.0
"""How long somebody who listens may take to answer for the first time, however short the heartbeats are: five round
trips, on machines that are busy."""
_SEEK_AGAIN_S = 5.0
_SEEK_OPEN_S = 15.0
"""Where somebody listens, a new search begins later: it would undo what the first one has reached."""
_KNOCK_AGAIN_S = 0.5


class Reach(Enum):
    """How far an address was reached."""

    UNKNOWN = 0
    """Nothing has come back yet."""
    REFUSED = 1
    """Nobody listens there."""
    OPEN = 2
    """Somebody listens there."""
    BROKEN = 3
    """There was a connection, and it is gone."""
    DENIED = 4
    """Somebody listens there and does not accept this key."""


class Phase(Enum):
    """Where the conversation with the interchange stands."""

    SEEKING = 0
    """Hello was said, nobody has answered yet."""
    GREETED = 1
    """Somebody answered; the registration waits for workers, or for its answer."""
    REGISTERED = 2
    """Tasks may come."""


class Contact:
    """The state of the conversation, in seconds of one monotonic clock."""

    def __init__(self, period_s: float, threshold_s: float, now: float) -> None:
        self.period_s = period_s
        self.threshold_s = threshold_s
        self.phase = Phase.SEEKING
        self.ever_registered = False
        self._heard = now
        self._refused_since: float | None = None
        self._denied_since: float | None = None
        self._beat = now
        self._sought = now

    def lost(self, now: float) -> None:
        """The connection broke: it is sought again."""
        self.phase = Phase.SEEKING
        self._sought = now
        self._refused_since = None

    def greeted(self, now: float) -> None:
        """Somebody answered."""
        self.phase = Phase.GREETED
        self._sought = now

    def heard(self, now: float) -> None:
        """A message came."""
        self._heard = now
        self._refused_since = self._denied_since = None

    def registered(self, period_s: float, threshold_s: float, now: float) -> None:
        """The registration was accepted; the interchange says how often it wants to be told."""
        self.phase, self.ever_registered = Phase.REGISTERED, True
        self.period_s, self.threshold_s = period_s, threshold_s
        self._beat = now

    def beat_due(self, now: float) -> bool:
        """Say, once a period, that a heartbeat is to be sent."""
        if self.phase is not Phase.REGISTERED or now < self._beat:
            return False
        self._beat = now + self.period_s
        return True

    def seek_again(self, now: float, open_: bool = False) -> bool:
        """Say, once in a while, that the search should begin anew (a proxy may hold dead connections open).

        ``open_``: somebody listens at some address.
        """
        pause = max(_SEEK_OPEN_S if open_ else _SEEK_AGAIN_S, self.threshold_s / 4)
        if self._denied_since is not None:
            pause = _KNOCK_AGAIN_S
        if self.phase is Phase.REGISTERED or now - self._sought < pause:
            return False
        self._sought = now
        return True

    def verdict(self, reach: Mapping[str, Reach], home: str, now: float) -> str:
        """Return why to give up, or an empty string. ``home`` is the address that answered last, if any did."""
        if any(state is Reach.DENIED for state in reach.values()):
            if self._denied_since is None:
                self._denied_since = now
            elif now - self._denied_since > DENIED_FOR_S:
                return "the interchange does not accept this block's key: the block was given up"
        if self.phase is Phase.SEEKING and home and reach.get(home) in (Reach.REFUSED, Reach.BROKEN):
            if self._refused_since is None:
                self._refused_since = now
            elif now - self._refused_since > GONE_AFTER_S:
                return f"the interchange at {home} is gone"
        elif self.phase is Phase.SEEKING:
            self._refused_since = None
        if now - self._heard > self._patience_s(reach):
            return self._silence(reach, home)
        return ""

    def _patience_s(self, reach: Mapping[str, Reach]) -> float:
        if not self.ever_registered and any(state is Reach.OPEN for state in reach.values()):
            return max(self.threshold_s, FIRST_WORD_S)
        return self.threshold_s

    def _silence(self, reach: Mapping[str, Reach], home: str) -> str:
        if home:
            return f"the interchange at {home} was silent for more than {self.threshold_s:g} s"
        tried = ", ".join(f"{address} ({state.name.lower()})" for address, state in reach.items())
        return (
            f"no interchange answered within {self._patience_s(reach):g} s at any of: {tried}. Set the executor's "
            "address to one that this node can reach (see flow_executors.addresses), or open its port in the firewall"
        )

    def deadline(self, now: float) -> float:
        """Return when to look again although nothing happens."""
        if self.phase is not Phase.REGISTERED:
            return now + 0.1
        return min(self._beat, self._heard + self.threshold_s)
