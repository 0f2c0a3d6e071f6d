"""Who was heard of when. The oldest stands in front, so that looking for the silent costs nothing."""

from __future__ import annotations

from collections import OrderedDict


class Liveness:
    """Peers by the time of their last message."""

    __slots__ = ("_seen", "threshold_s")

    def __init__(self, threshold_s: float) -> None:
        self.threshold_s = threshold_s
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def heard(self, peer: bytes, now: float) -> None:
        """A message came."""
        self._seen[peer] = now
        self._seen.move_to_end(peer)

    def forget(self, peer: bytes) -> None:
        """The peer is gone."""
        self._seen.pop(peer, None)

    def forgive(self, now: float) -> None:
        """Count all as heard now: it was this process that slept."""
        for peer in self._seen:
            self._seen[peer] = now

    def silent(self, now: float) -> list[bytes]:
        """Return the peers not heard of for longer than the threshold."""
        found = []
        for peer, seen in self._seen.items():
            if now - seen <= self.threshold_s:
                break
            found.append(peer)
        return found

    def silence_s(self, peer: bytes, now: float) -> float:
        """Return for how long a peer has not been heard of; 0 for one that is not known."""
        return max(0.0, now - self._seen.get(peer, now))

    def next_deadline(self) -> float | None:
        """Return when the next peer would count as silent."""
        for seen in self._seen.values():
            return seen + self.threshold_s
        return None
