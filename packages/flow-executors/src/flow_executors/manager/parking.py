"""Tasks that wait for the code they need: taken from the interchange, not yet known to any worker. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

Batch = tuple[int, list[tuple[int, memoryview]]]
"""class id, (key, record) of each task"""


class Parking:
    """Batches by what they wait for."""

    def __init__(self) -> None:
        self._waiting: list[tuple[set[bytes], Batch]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def park(self, missing: Iterable[bytes], batch: Batch) -> None:
        """Keep a batch until all of these blobs are here."""
        self._waiting.append((set(missing), batch))

    def arrived(self, digest: bytes) -> list[Batch]:
        """Return the batches that waited for this blob alone, in the order in which they came."""
        for missing, _ in self._waiting:
            missing.discard(digest)
        ready = [batch for missing, batch in self._waiting if not missing]
        self._waiting = [entry for entry in self._waiting if entry[0]]
        return ready

    def missing(self) -> set[bytes]:
        """Return what is waited for."""
        return set().union(*(missing for missing, _ in self._waiting))

    def remove(self, keys: Collection[int]) -> list[int]:
        """Take tasks out; return those that were here."""
        gone = [key for _, (_, tasks) in self._waiting for key, _ in tasks if key in keys]
        self._waiting = [
            (missing, (class_id, [task for task in tasks if task[0] not in keys]))
            for missing, (class_id, tasks) in self._waiting
        ]
        return gone

    def take_all(self) -> Sequence[Batch]:
        """Take everything out."""
        batches = [batch for _, batch in self._waiting]
        self._waiting = []
        return batches

    def keys(self) -> list[int]:
        """Return the keys of what is here."""
        return [key for _, (_, tasks) in self._waiting for key, _ in tasks]
