"""Who may register: as many managers of a block as it has places, and a bounded number that are about to. Pure.

All managers of a block share its key. A thief of it would come as one manager more, so there is a place for each that
the block starts and for no other. One that proves to have been here before an interchange was replaced has its place
in any case.
"""

from __future__ import annotations

from collections.abc import Sequence

from flow_executors.interchange.managers import ManagerRecord
from flow_executors.interchange.talk import REASON, TalkBudget

MOST = 4096
"""Managers of a block where it is not known how many it starts. Only the magnitude matters."""
# Managers of one block that have greeted and not registered: each may have come several times over a bad network.
_PENDING_EACH, _PENDING_MORE = 2, 16
# Seconds between two lines about managers of a block that were turned away.
_TELL_EVERY_S = 10.0
# Names in a reason.
_NAMED = 4


class Greetings:
    """Peers that have greeted, with the blocks of their keys.

    Args:
        managers: Most managers of a block.
    """

    __slots__ = ("_blocks", "_budgets", "_most", "_pending")

    def __init__(self, managers: int) -> None:
        self._most = _PENDING_EACH * managers + _PENDING_MORE
        self._blocks: dict[bytes, str] = {}
        self._pending: dict[str, dict[bytes, None]] = {}  # by block: the peers that have not registered, oldest first
        self._budgets: dict[str, TalkBudget] = {}

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def may_say(self, block: str, units: float, now: float) -> bool:
        """Whether peers with the key of a block may still greet: all of them together have one budget."""
        if len(self._budgets) > MOST:
            self._budgets.clear()  # at the cost of a few greetings more
        return self._budgets.setdefault(block, TalkBudget()).spend(units, now)

    def add(self, peer: bytes, block: str) -> bytes | None:
        """Note a greeting; return the peer that is forgotten for it, which can greet again."""
        self.forget(peer)
        pending = self._pending.setdefault(block, {})
        # The oldest goes, not the newest: who only greets cannot keep those out that register at once.
        oldest = next(iter(pending)) if len(pending) >= self._most else None
        if oldest is not None:
            self.forget(oldest)
        self._blocks[peer] = block
        self._pending.setdefault(block, {})[peer] = None
        return oldest

    def registered(self, peer: bytes) -> None:
        """The peer is a manager now."""
        self._wait_no_more(peer)

    def forget(self, peer: bytes) -> None:
        """The peer is gone."""
        self._wait_no_more(peer)
        self._blocks.pop(peer, None)

    def _wait_no_more(self, peer: bytes) -> None:
        block = self._blocks.get(peer, "")
        pending = self._pending.get(block)
        if pending is not None:
            pending.pop(peer, None)
            if not pending:
                del self._pending[block]


class Places:
    """Decides who gets a place in a block.

    Args:
        managers: Most managers of a block.
    """

    __slots__ = ("_closed", "_left_out", "_most", "_reported", "contested")

    def __init__(self, managers: int) -> None:
        self._most = managers
        self._closed: set[str] = set()
        self.contested: set[str] = set()
        """Blocks with whose key more have come than they have places."""
        self._reported: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def close(self, block: str) -> None:
        """Give no place of a block to anybody any more who was not here."""
        if len(self._closed) < MOST:
            self._closed.add(block)

    def refusal(self, block: str, name: str, node: str, there: Sequence[ManagerRecord]) -> str:
        """Return why one that was never here gets no place beside those of its block; empty if it does."""
        if block in self._closed:
            return f"{name} on {node} has the key of block {block}, of which a manager was sent away: {REASON}"
        if len(there) < self._most:
            return ""
        if len(self.contested) < MOST:
            self.contested.add(block)
        named = ", ".join(f"{one.offer.manager_id} on {one.offer.node}" for one in there[:_NAMED])
        return (
            f"{name} on {node} has the key of a block whose {self._most} "
            f"{'place is' if self._most == 1 else 'places are'} taken by {named}"
            f"{', ...' if len(there) > _NAMED else ''}: one of them may have a stolen key, or the job starts more "
            "managers than its provider has nodes"
        )

    def surplus(self, there: Sequence[ManagerRecord]) -> ManagerRecord | None:
        """Return who leaves when one comes that proves to have been here before, None where there is a place."""
        unproven = [one for one in there if not one.proven]
        return unproven[-1] if unproven and len(there) >= self._most else None

    def tells(self, block: str, now: float) -> int | None:
        """Return how many lines about a block were left out since the last one; None: leave out this one, too."""
        told = self._reported.get(block)
        if told is not None and now - told < _TELL_EVERY_S:
            self._left_out[block] = self._left_out.get(block, 0) + 1
            return None
        # To forget all costs a few lines; it bounds what is kept of blocks that are long over.
        if len(self._reported) >= MOST:
            self._reported.clear()
            self._left_out.clear()
        self._reported[block] = now
        return self._left_out.pop(block, 0)
