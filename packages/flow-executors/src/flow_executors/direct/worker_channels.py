"""The script's ends of the direct channels to workers of its own machine, and the tasks given over them.

A direct channel spares a task the hop through the manager, there and back: the script writes it into the worker's pipe,
and reads its result from another one. The manager stays in charge of the worker, and of all tasks but these. Why that
is safe:

- A worker is *claimed*, by a message, before it is given a task like that, and only while its manager surely has
  nothing to do that could be in the way: none of the tasks that it was sent is without result.
- A claim is given back, ahead of them, where tasks of the manager need the worker, or where it is to be drained.
- Tasks that take long, and those that are to be cancelled, are made known to the manager, which then does all that it
  does for its own.
- What a manager reads back from a worker's pipe, for whatever reason, is its own again, and it reports that.
- When a worker dies its manager reports that, with a verdict for the tasks that it does not know.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Sequence

from flow_core.interfaces.outcome import Loss, LossKind, Verdict
from flow_executors.direct.worker_channel import DirectWorkerChannel, open_channel
from flow_executors.errors import BadMessage
from flow_executors.interchange.interchange_core import InterchangeCore
from flow_executors.interchange.managers import ManagerRecord
from flow_executors.manager.worker_pool import Frame
from flow_executors.wire.direct_messages import (
    DirectChannelOffer,
    TakenBack,
    WorkerDied,
    WorkerLease,
    pack_claim,
    unpack_channel_offer,
    unpack_taken,
    unpack_worker_died,
)
from flow_executors.wire.kinds import Buffer, Kind
from flow_executors.wire.messages import DEFAULT_CLASS, DrainMode, pack_cancel, pack_loss, unpack_cancel, unpack_drain
from flow_executors.wire.tasks import TaskBatch, one_task, pack_result, pack_tasks, unpack_tasks
from flow_executors.worker.packets import FLAGS_AT, PACKET

TELL_AFTER_S = 0.25
"""Seconds after which a task that runs is made known to its manager: half of what the manager assumes of one it
does not know."""
MOST_LANES = 64
"""Direct channels of an executor. Each costs two descriptors and a look at each turn; with more tasks out than that
nobody waits for them one by one."""
_KINDS = (Kind.CHANNEL_OFFER, Kind.TAKEN, Kind.WORKER_DIED)


class DirectWorkerChannels:
    """All direct channels of an executor. Several threads under one lock; the one that polls calls all but ``divert``.

    Args:
        core: The interchange's core, which knows managers and their tasks, and takes results.
        poll: Where results are waited for.
    """

    def __init__(self, core: InterchangeCore, poll: select.poll) -> None:
        self._core = core
        self._pool = core.pool
        self._poll = poll
        self._by_descriptor: dict[int, DirectWorkerChannel] = {}
        self._of: dict[bytes, dict[int, DirectWorkerChannel]] = {}
        self._slow: dict[DirectWorkerChannel, float] = {}
        self.used_at = 0.0
        """When a task was last given over a direct channel."""

    def __contains__(self, peer: object) -> bool:
        """Whether a manager has offered direct channels."""
        return peer in self._of

    def __len__(self) -> int:
        """Return how many direct channels there are."""
        return len(self._by_descriptor)

    # -- what workers write

    def take(self, ready: Iterable[int], now: float) -> None:
        """Take the results that are there, of the descriptors that are ready."""
        known = self._by_descriptor
        for channel in [known[descriptor] for descriptor in ready if descriptor in known] if known else ():
            try:
                self._report(channel, channel.read(), now)
            except BadMessage as error:
                self._give_up(channel, str(error), now)
            if channel.dead:
                self._ignore(channel)  # its manager will tell

    def _report(self, channel: DirectWorkerChannel, frames: Sequence[Frame], now: float) -> None:
        core, manager = self._core, self._pool.by_peer.get(channel.peer)
        if manager is None:
            return
        for key, start, end, status, payload in frames:
            message = pack_result(manager.number, 0, 0, key, start, end, channel.rank, status, payload)
            core.from_worker(channel.peer, message, now)
            self._over(channel, (key,), now)

    def _over(self, channel: DirectWorkerChannel, keys: Iterable[int], now: float) -> None:
        """Tasks have their outcome. A manager that was sent a claim with them is sent one without them, even if it has
        reported the outcome itself: messages may have crossed.
        """
        for key in keys:
            channel.keys.pop(key, None)
        if not channel.keys:
            self._slow.pop(channel, None)
        if channel.told:
            self._core.to_managers.append((channel.peer, channel.claim(now)))

    def _give_up(self, channel: DirectWorkerChannel, why: str, now: float) -> None:
        """Report a channel's tasks as lost; have the worker replaced, since what it wrote is no stream of results."""
        keys, loss = tuple(channel.keys), pack_loss(Loss(LossKind.WORKER, reason=why))
        self._ignore(channel)
        channel.claimed = False
        self._core.to_managers.append((channel.peer, channel.claim(now)))
        self._core.to_managers.append((channel.peer, pack_cancel(keys, True)))
        channel.told = ()  # what becomes of these there is of no interest any more
        self._report(channel, [(key, 0, 0, Verdict.LOST, loss) for key in keys], now)

    # -- what managers say

    def hear(self, peer: bytes, block: str, message: Buffer, now: float) -> None:
        """Take a message of a manager: of its direct channels, or any other that may bear on them."""
        if len(message) and message[0] in _KINDS:
            try:
                self._hear_of_lanes(peer, message, now)
            except BadMessage:
                self._core.ignored += 1
            return
        if peer not in self._of:
            self._core.from_peer(peer, block, message, now)
            return
        if message[0] == Kind.EXIT:
            self._take_last(peer, now)
        self._core.from_peer(peer, block, message, now)
        self._settle(peer, now)

    def _hear_of_lanes(self, peer: bytes, message: Buffer, now: float) -> None:
        if message[0] == Kind.CHANNEL_OFFER:
            self._open(peer, unpack_channel_offer(message))
        elif message[0] == Kind.TAKEN:
            self._return(peer, unpack_taken(message), now)
        else:
            self._after_death(peer, unpack_worker_died(message), now)

    def _open(self, peer: bytes, offer: DirectChannelOffer) -> None:
        manager = self._pool.by_peer.get(peer)
        if manager is None or manager.number != offer.manager:
            return
        channels = self._of.setdefault(peer, {})
        before = channels.get(offer.rank)
        if before is not None:
            if before.pid == offer.pid:
                return  # it is open
            self._close(channels.pop(offer.rank))
        channel = open_channel(peer, manager.offer.pid, offer) if len(self) < MOST_LANES else None
        if channel is None:
            return
        channels[offer.rank] = self._by_descriptor[channel.fileno()] = channel
        self._poll.register(channel.fileno(), select.POLLIN)

    def _return(self, peer: bytes, taken: TakenBack, now: float) -> None:
        """A manager has tasks of a direct channel now. It is answered, since a claim with them may be on its way."""
        channel, manager = self._channel_of(peer, taken.rank, taken.pid), self._pool.by_peer.get(peer)
        if channel is not None and manager is not None:
            channel.told = ()
            self._over(channel, taken.keys, now)
            self._core.to_managers += [
                (peer, said) for said in (channel.claim(now), *self._make_room(peer, manager, now))
            ]

    def _channel_of(self, peer: bytes, rank: int, pid: int) -> DirectWorkerChannel | None:
        channel = self._of.get(peer, {}).get(rank)
        return channel if channel is not None and channel.pid == pid else None

    def _after_death(self, peer: bytes, worker_loss: WorkerDied, now: float) -> None:
        channel = self._channel_of(peer, worker_loss.rank, worker_loss.pid)
        if channel is None:
            return
        del self._of[peer][worker_loss.rank]
        channel.told = ()
        self._report(channel, channel.read_all(), now)
        self._report(channel, [(key, 0, 0, worker_loss.verdict, worker_loss.payload) for key in [*channel.keys]], now)
        self._close(channel)

    def _settle(self, peer: bytes, now: float) -> None:
        """After a message of a manager: forget tasks whose outcome it reported; release its workers if it drains."""
        manager = self._pool.by_peer.get(peer)
        if manager is None:
            self._drop(peer)
            return
        for channel in self._of[peer].values():
            over = [key for key in channel.keys if not manager.has(key)]
            if over:
                self._over(channel, over, now)
        if not manager.slots:
            self._core.to_managers += [(peer, said) for said in self._release(self._of[peer].values(), now)]

    # -- the ends of managers

    def lost(self, peer: bytes, now: float) -> None:
        """The connection of a manager is gone, and with it what it knew of claims: workers of such are replaced."""
        self._take_last(peer, now)
        self._drop(peer)

    def _take_last(self, peer: bytes, now: float) -> None:
        for channel in self._of.get(peer, {}).values():
            self._report(channel, channel.read_all(), now)

    def forget_the_gone(self) -> None:
        """Drop the direct channels of managers that were given up."""
        for peer in self._of.keys() - self._pool.by_peer.keys():
            self._drop(peer)

    def _drop(self, peer: bytes) -> None:
        for channel in self._of.pop(peer, {}).values():
            self._close(channel)

    def _ignore(self, channel: DirectWorkerChannel) -> None:
        """Stop using a direct channel, and stop polling it."""
        channel.usable = False
        self._slow.pop(channel, None)
        if self._by_descriptor.pop(channel.fileno(), None) is not None:
            self._poll.unregister(channel.fileno())

    def _close(self, channel: DirectWorkerChannel) -> None:
        self._ignore(channel)
        channel.close()

    def close(self) -> None:
        """Close all; also for a forked child, whose parent goes on."""
        for channels in self._of.values():
            for channel in channels.values():
                channel.close()
        self._of.clear()
        self._by_descriptor.clear()
        self._slow.clear()

    # -- tasks

    def divert(self, peer: bytes, message: Buffer, now: float) -> list[Buffer]:
        """Give the tasks of a message to workers as far as they can be; return what is to be sent to their manager."""
        kind, manager = message[0], self._pool.by_peer.get(peer)
        if manager is None:
            return [message]
        if kind == Kind.TASKS:
            return self._divert_tasks(peer, manager, message, now)
        if kind == Kind.CANCEL:
            wanted = set(unpack_cancel(message)[0])
            concerned = [channel for channel in self._of[peer].values() if not wanted.isdisjoint(channel.keys)]
            return [*self._release(concerned, now), message]
        if kind == Kind.DRAIN and unpack_drain(message) is DrainMode.DRAIN:
            return [*self._release(self._of[peer].values(), now), message]
        return [message]

    def _divert_tasks(self, peer: bytes, manager: ManagerRecord, message: Buffer, now: float) -> list[Buffer]:
        said: list[Buffer] = []
        one = one_task(bytes(message))
        if one is not None:
            if self._give(peer, manager, one[1], one[2], 1, said, now):
                return said
        else:
            batch = unpack_tasks(message)
            if batch.class_id != DEFAULT_CLASS:
                return [*self._release(self._of[peer].values(), now), message]
            rest: list[int] = []
            count = len(batch.keys)
            for place, (key, record) in enumerate(zip(batch.keys, batch.records(), strict=True)):
                if not self._give(peer, manager, key, record, count - place + len(rest), said, now):
                    rest.append(place)
            if not rest:
                return said
            message = _some_of(batch, rest)
        said += self._make_room(peer, manager, now)
        said.append(message)
        return said

    def _give(
        self, peer: bytes, manager: ManagerRecord, key: int, record: Buffer, fresh: int, said: list[Buffer], now: float
    ) -> bool:
        """Give one task to a worker, adding to ``said`` the messages for its manager; False if it cannot be given.

        ``fresh`` of the tasks that the manager counts as its own are not sent yet, this one among them.
        """
        # Others need a file or buffers, which only the manager can provide.
        if len(record) > PACKET or record[FLAGS_AT]:
            return False
        spare = None
        for channel in self._of[peer].values():
            if channel.free:
                if channel.claimed:
                    if channel.write(key, bytes(record), now):
                        self.used_at = self._slow[channel] = now
                        return True
                elif spare is None:
                    spare = channel
        if spare is None or self._managed(peer, manager) > fresh or not spare.write(key, bytes(record), now):
            return False
        spare.claimed = True
        # Written into the pipe before the claim is sent: the manager reads back what it had given this worker
        # meanwhile.
        said.append(pack_claim(WorkerLease(spare.rank, spare.pid, True)))
        self.used_at = self._slow[spare] = now
        return True

    def _managed(self, peer: bytes, manager: ManagerRecord) -> int:
        """Return how many tasks without outcome are the manager's to see to, or not sent yet."""
        return manager.outstanding - sum(len(channel.keys) for channel in self._of[peer].values() if channel.claimed)

    def _make_room(self, peer: bytes, manager: ManagerRecord, now: float) -> list[Buffer]:
        """Give workers back to a manager that has tasks for more of them than it has."""
        channels = self._of[peer].values()
        own = manager.offer.workers - sum(channel.claimed for channel in channels)
        idle = [channel for channel in channels if channel.claimed and not channel.keys]
        return self._release(idle[: max(0, self._managed(peer, manager) - own)], now)

    def _release(self, channels: Iterable[DirectWorkerChannel], now: float) -> list[Buffer]:
        said: list[Buffer] = []
        for channel in channels:
            if channel.claimed:
                channel.claimed = False
                self._slow.pop(channel, None)
                said.append(channel.claim(now))
        return said

    # -- time

    def overdue(self, now: float) -> list[tuple[bytes, bytes]]:
        """Return what is to be sent to whom because tasks take long."""
        late = [channel for channel, since in self._slow.items() if now - since >= TELL_AFTER_S]
        for channel in late:
            del self._slow[channel]
        return [(channel.peer, channel.claim(now)) for channel in late]

    def deadline(self) -> float | None:
        """Return when something is overdue, unless it has ended before."""
        return next(iter(self._slow.values())) + TELL_AFTER_S if self._slow else None


def _some_of(batch: TaskBatch, places: Sequence[int]) -> bytes:
    records = batch.records()
    chosen = [records[place] for place in places]
    keys = [batch.keys[place] for place in places]
    return pack_tasks(batch.class_id, batch.digests, keys, [len(record) for record in chosen], b"".join(chosen))
