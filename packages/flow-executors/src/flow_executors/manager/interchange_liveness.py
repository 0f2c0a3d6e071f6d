"""Liveness of the interchange, as a manager sees it: when to register, and when to give up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

GONE_AFTER_S = 2.0
"""Seconds for which an address where the interchange was may refuse connections before it counts as gone for good:
a replaced interchange listens on the same socket, which the client keeps open."""
DENIED_FOR_S = 3.0
"""Seconds for which a key may be refused: an interchange that was just restarted receives the keys a moment later."""
FIRST_WORD_S = 30.0
"""Seconds that an interchange which accepts connections has for its first answer, however short the heartbeats are:
five round trips of a slow link, on machines that are busy."""
NO_WAY_S = 30.0
"""Seconds after which a manager that has never been answered, where no address accepts connections, gives up."""
# Seconds until a search begins anew, as a proxy may hold dead connections open.
_SEEK_AGAIN_S = 5.0
# The same where an address accepts connections: longer, since a new search would undo what the first one has reached.
_SEEK_OPEN_S = 15.0
# The same where the key was refused: short, so that several attempts fit into ``DENIED_FOR_S``.
_KNOCK_AGAIN_S = 0.5


class ConnectionState(Enum):
    """How far an address was reached."""

    UNKNOWN = 0
    """Nothing has come back yet."""
    REFUSED = 1
    """No process listens there."""
    OPEN = 2
    """A process accepted the connection."""
    BROKEN = 3
    """There was a connection, and it is gone."""
    DENIED = 4
    """A process listens there and does not accept this key."""
    UNRESOLVED = 5
    """The name has no address here."""


TELL_AFTER_S = 8.0
"""Seconds after which a manager that has not been answered says so in its job's standard error."""
_STATES = {
    ConnectionState.UNKNOWN: "no answer",
    ConnectionState.REFUSED: "refused",
    ConnectionState.OPEN: "connected, no answer",
    ConnectionState.BROKEN: "connection broke",
    ConnectionState.DENIED: "key refused",
    ConnectionState.UNRESOLVED: "the name does not resolve",
}


def in_words(reach: Mapping[str, ConnectionState]) -> str:
    """Return addresses and how far each was reached."""
    return ", ".join(f"{address} ({_STATES[state]})" for address, state in reach.items())


class Phase(Enum):
    """Where the conversation with the interchange stands."""

    SEEKING = 0
    """HELLO was sent and is not answered yet."""
    GREETED = 1
    """HELLO was answered; the registration waits for workers, or for its answer."""
    REGISTERED = 2
    """Tasks may come."""


REGISTERED = Phase.REGISTERED
"""``Phase.REGISTERED`` as a global, compared several times a turn: a member through its class costs 70 ns, not 8."""


class InterchangeLiveness:
    """The state of the conversation, in seconds of one monotonic clock.

    Args:
        period_s: Seconds between heartbeats.
        threshold_s: Seconds of silence after which it has given this manager up.
        now: The time.
        sleep_s: Seconds of silence for which it may be asleep, and takes results afterwards.
    """

    def __init__(self, period_s: float, threshold_s: float, now: float, sleep_s: float = 0.0) -> None:
        self.period_s = period_s
        self.threshold_s = threshold_s
        self.sleep_s = sleep_s
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
        """HELLO was answered: the search is over."""
        self.phase = Phase.GREETED
        self._sought = now

    def heard(self, now: float) -> None:
        """Note that a message came: neither silence nor a refusal counts any more."""
        self._heard = now
        self._refused_since = self._denied_since = None

    def registered(self, period_s: float, threshold_s: float, now: float) -> None:
        """Note that the registration was accepted, with the period of heartbeats and the threshold, in seconds."""
        self.phase, self.ever_registered = Phase.REGISTERED, True
        self.period_s, self.threshold_s = period_s, threshold_s
        self._beat = now

    def heartbeat_due(self, now: float) -> bool:
        """Return True once a period: a heartbeat is to be sent."""
        if self.phase is not REGISTERED or now < self._beat:
            return False
        self._beat = now + self.period_s
        return True

    def seek_again(self, now: float, open_: bool = False) -> bool:
        """Return True once in a while: the search is to begin anew, as a proxy may hold dead connections open.

        ``open_``: some address accepts connections.
        """
        pause = max(_SEEK_OPEN_S if open_ else _SEEK_AGAIN_S, self.threshold_s / 4)
        if self._denied_since is not None:
            pause = _KNOCK_AGAIN_S
        # ``_sought`` also moves with each answer, so that a search that gets on is left alone.
        if self.phase is REGISTERED or now - self._sought < pause:
            return False
        self._sought = now
        return True

    def unheard(self, now: float) -> bool:
        """Whether it has waited for its first answer for so long that somebody should hear of it."""
        return self.phase is Phase.SEEKING and not self.ever_registered and now - self._heard >= TELL_AFTER_S

    def silent(self, now: float) -> bool:
        """Whether the interchange has not answered for so long that other ways to it are worth trying."""
        return self.phase is REGISTERED and now >= self._silent_at()

    def _silent_at(self) -> float:
        # A heartbeat must have had its answer: there is silence between two of them anyway.
        return self._heard + max(self.threshold_s / 2, 1.25 * self.period_s)

    def verdict(
        self,
        reach: Mapping[str, ConnectionState],
        home: str,
        now: float,
        forwarded: bool = False,
        owes: bool = False,
    ) -> str:
        """Return why to give up, or an empty string.

        Args:
            reach: How far each address was reached.
            home: The address that answered last, if any did.
            now: The time.
            forwarded: There are forwards, which come back: an address that refuses does not mean that all is over.
            owes: There are tasks, or results that it has not taken: they are worth more patience.
        """
        # A key may be refused for a moment after a restart, see DENIED_FOR_S: only the time shows which it is.
        if any(state is ConnectionState.DENIED for state in reach.values()):
            if self._denied_since is None:
                self._denied_since = now
            elif now - self._denied_since > DENIED_FOR_S:
                return "the interchange does not accept this block's key: the block was given up"
        if (
            self.phase is Phase.SEEKING
            and home
            and not forwarded
            and reach.get(home) in (ConnectionState.REFUSED, ConnectionState.BROKEN)
        ):
            if self._refused_since is None:
                self._refused_since = now
            elif now - self._refused_since > GONE_AFTER_S:
                return f"the interchange at {home} is gone"
        elif self.phase is Phase.SEEKING:
            self._refused_since = None
        if now - self._heard > self._patience_s(reach, owes):
            return self._silence(reach, home, owes)
        return ""

    def _patience_s(self, reach: Mapping[str, ConnectionState], owes: bool) -> float:
        # A block whose heartbeat threshold was shorter than five round trips never registered, before the first answer
        # had a bound of its own.
        if not self.ever_registered and any(state is ConnectionState.OPEN for state in reach.values()):
            return max(self.threshold_s, FIRST_WORD_S)
        # A way that never led anywhere will not: the sooner that is told, the better.
        if not self.ever_registered:
            return min(self.threshold_s, NO_WAY_S)
        return max(self.threshold_s, self.sleep_s) if owes else self.threshold_s

    def _silence(self, reach: Mapping[str, ConnectionState], home: str, owes: bool) -> str:
        patience_s = self._patience_s(reach, owes)
        if home:
            return f"the interchange at {home} was silent for more than {patience_s:g} s"
        return (
            f"no interchange answered within {patience_s:g} s at any of: {in_words(reach)}. Set the "
            "executor's address to one that this node can reach (see flow_executors.addresses), or open its port in "
            "the firewall. Where the script's machine is behind a router that lets nothing in, start the jobs by an "
            "SSHChannel whose server forwards connections (AllowTcpForwarding in its sshd_config): managers come by "
            "that, and no port need be open"
        )

    def due(self, now: float) -> bool:
        """Whether there is something to look at: a search, a heartbeat, or a silence."""
        return self.phase is not REGISTERED or now >= self._beat or now >= self._silent_at()

    def deadline(self, now: float) -> float:
        """Return when to look again although nothing happens."""
        if self.phase is not REGISTERED:
            # Seconds. How long an address has refused is a matter of time alone: no descriptor signals it.
            return now + 0.1
        # Those that are over mean nothing more: who waits for a script that sleeps looks at its next heartbeat.
        times = self._silent_at(), self._heard + self.threshold_s, self._heard + self.sleep_s
        return min((self._beat, *(when for when in times if when > now)))
