"""Tasks of ranks that are out: their parts at several managers, and what becomes of these. Pure.

The interchange is the only one that knows all parts. It books them when it places a task, tells each manager its own,
and frees them when the head has reported the task, or is gone. A member that is lost breaks the task: the head is told
to kill it, and reports the one loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flow_core.interfaces.outcome import Loss, LossKind
from flow_executors.common.resources import ResourceRequest
from flow_executors.common.task_ranks import RankPlace, RankPlacement
from flow_executors.interchange.managers import Gang, ManagerRecord
from flow_executors.interchange.pending import QueuedBatch
from flow_executors.interchange.state import InterchangeState
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.messages import pack_loss
from flow_executors.wire.ranks import (
    Part,
    Parts,
    from_manager,
    pack_break,
    pack_placement,
    pack_release,
    pack_reserve,
    unpack_remote,
)

Share = tuple[ManagerRecord, int, ResourceRequest]
"""A manager, the ranks that belong there, and what they take of it."""


class Gangs:
    """The tasks of ranks that are out."""

    __slots__ = ("_shared", "ended")

    def __init__(self, shared: InterchangeState) -> None:
        self._shared = shared
        self.ended: list[Gang] = []
        """Those that their heads do not have any more, and whose members were not told yet."""

    def place(self, class_id: int, taken: QueuedBatch, shares: Sequence[Share], until: float | None) -> None:
        """Give a task to the first of its managers, with its placement, and have the others keep their parts for it."""
        key, (head, _, demand) = taken.keys[0], shares[0]
        members = {manager.number: (manager, ranks) for manager, ranks, _ in shares[1:]}
        gang = Gang(key, head, members, sum(ranks for _, ranks, _ in shares), self.ended)
        head.take_special(key, demand)
        for manager, ranks, part in shares[1:]:
            manager.take_part(key, part)
            # Ahead of all that the head may ask of it: this connection keeps the order.
            self._shared.send(manager, pack_reserve(Parts((_part(gang, part, ranks),))))
            manager.idle_since = None
        for manager, _, _ in shares:
            manager.gangs[key] = gang
            if until is not None:
                manager.until[key] = until
        for manager, _, _ in shares[1:]:
            self._shared.pool.settle(manager)
        places = tuple(
            RankPlace(manager.number, manager.offer.node, ranks, part.slots) for manager, ranks, part in shares
        )
        self._shared.send(head, pack_placement(key, RankPlacement(places)))
        self._shared.give(head, class_id, taken)

    def settle_ended(self, now: float) -> None:
        """Free the parts of tasks that have ended, and tell their managers."""
        released: dict[int, list[int]] = {}
        for gang in self.ended:
            for manager, _ in gang.members.values():
                manager.drop_part(gang.key)
                released.setdefault(manager.number, []).append(gang.key)
        self.ended.clear()
        for number, keys in released.items():
            member = self._shared.pool.by_number.get(number)
            if member is not None:
                self._shared.send(member, pack_release(keys))
                if not member.outstanding and not member.parts:
                    member.idle_since = member.idle_since or now
                self._shared.pool.settle(member)

    def gone(self, manager: ManagerRecord, reason: str) -> None:
        """A manager is not there any more: its tasks of ranks have ended, and those with parts there are broken."""
        for gang in [*manager.gangs.values()]:
            if gang.head is manager:
                gang.end()
                continue
            _, ranks = gang.members.pop(manager.number)
            self._break(gang, _lost(gang, manager, ranks, reason))
        manager.gangs.clear()

    def _break(self, gang: Gang, reason: str) -> None:
        if not gang.broken and not gang.over:
            gang.broken = True
            self._tell_broken(gang.head, gang.key, LossKind.MANAGER, reason)

    def _tell_broken(self, head: ManagerRecord, key: int, kind: LossKind, reason: str) -> None:
        self._shared.send(head, pack_break(key, pack_loss(Loss(kind, reason=reason))))

    def came_back(self, manager: ManagerRecord) -> None:
        """A manager has registered again: tell it all its parts, as messages may have been lost with a connection."""
        parts = [
            _part(gang, manager.parts[key], gang.members[manager.number][1])
            for key, gang in manager.gangs.items()
            if key in manager.parts
        ]
        self._shared.send(manager, pack_reserve(Parts(tuple(parts), all=True)))
        for gang in manager.gangs.values():
            reason = f"the connection of node {manager.offer.node} broke while ranks talked over it"
            if gang.head is manager and gang.broken:  # it may have lost the word
                self._tell_broken(manager, gang.key, LossKind.MANAGER, reason)
            elif gang.talked:
                self._break(gang, reason)

    def unknown(self, head: ManagerRecord, keys: Iterable[int]) -> None:
        """Tasks whose ranks are on several nodes came of an interchange before: what the others keep is not known."""
        for key in keys:
            reason = "the interchange was replaced, and no longer knew the other nodes of its ranks"
            self._tell_broken(head, key, LossKind.INTERCHANGE, reason)

    def relay(self, manager: ManagerRecord, message: Buffer) -> bool:
        """Pass a step of a process on between head and member of a task; False if these are not its managers."""
        remote = unpack_remote(message)
        gang = manager.gangs.get(remote.key)
        if gang is None or gang.over:
            return False
        other = gang.head if gang.head is not manager else gang.members.get(remote.manager, (None, 0))[0]
        if other is None or other.number != remote.manager:
            return False
        gang.talked = True
        self._shared.send(other, from_manager(message, manager.number))
        return True


def _part(gang: Gang, demand: ResourceRequest, ranks: int) -> Part:
    return Part(gang.key, gang.head.number, demand.slots, demand.memory_mb, demand.gpus, ranks)


def _lost(gang: Gang, manager: ManagerRecord, ranks: int, reason: str) -> str:
    offer = manager.offer
    return (
        f"node {offer.node}, where {ranks} of its {gang.ranks} ranks were, is lost: the manager {offer.manager_id} of "
        f"block {offer.block}: {reason}"
    )
