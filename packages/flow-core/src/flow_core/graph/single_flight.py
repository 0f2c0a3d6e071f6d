"""Single flight of identical cached calls: the first runs, the others wait for its result."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow_core.graph.task import Task


class InFlightCalls:
    """Leader and followers of each call in flight, oldest first. Pure; guarded by the graph's caller."""

    def __init__(self) -> None:
        self._leaders: dict[bytes, Task] = {}
        self._followers: dict[bytes, deque[Task]] = {}

    def __len__(self) -> int:
        return len(self._leaders)

    def leader(self, digest: bytes) -> Task | None:
        """Return the leader of the call of this digest, None if there is none."""
        return self._leaders.get(digest)

    def lead(self, digest: bytes, task: Task) -> None:
        """Make a task the leader of a call that has none."""
        assert digest not in self._leaders
        self._leaders[digest] = task

    def follow(self, digest: bytes, task: Task) -> None:
        """Let a task wait for the leader."""
        self._followers.setdefault(digest, deque()).append(task)

    def followed(self, digest: bytes, task: Task) -> Task | None:
        """Return the leader that a task waits for, None if it follows none."""
        return self._leaders.get(digest) if task in self._followers.get(digest, ()) else None

    def land(self, digest: bytes) -> list[Task]:
        """End the flight; return all followers that have not ended meanwhile."""
        del self._leaders[digest]
        return [task for task in self._followers.pop(digest, ()) if not task.state.final]

    def succeed(self, digest: bytes) -> Task | None:
        """Make the oldest follower the leader of a flight whose leader has no result; return it, or None."""
        del self._leaders[digest]
        queue = self._followers.get(digest, deque())
        # Followers that were cancelled stay in the queue until here: to find them at once would be a search for each.
        while queue:
            task = queue.popleft()
            if not task.state.final:
                self._leaders[digest] = task
                return task
        self._followers.pop(digest, None)
        return None


def is_part_of(task: Task, leader: Task) -> bool:
    """Return whether a task was made, at whatever depth, in the body of the join task given."""
    above = task.details.parent if task.details is not None else None
    while above is not None:
        if above is leader:
            return True
        above = above.details.parent if above.details is not None else None
    return False


def digest_of(task: Task) -> bytes:
    """Return the digest of a cached call, whose key is known."""
    key = task.more().memo_key
    assert key is not None
    return key.digest
