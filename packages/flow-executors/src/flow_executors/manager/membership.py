"""The manager's membership of a run: it seeks the interchange, registers, and stays in touch.

When to do which of these is decided elsewhere: see ``contact``.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Sequence
from dataclasses import replace

from flow_executors.manager.contact import Contact, Phase, Reach
from flow_executors.manager.line import Line
from flow_executors.manager.outbox import Outbox
from flow_executors.manager.trip import Trip
from flow_executors.wire.frames import (
    Beat,
    Credit,
    Introduction,
    Registration,
    Welcome,
    pack_beat,
    pack_credit,
    pack_hello,
    pack_notice,
    pack_register,
    unpack_welcome,
)
from flow_executors.wire.kinds import Received
from flow_executors.wire.local import is_local

log = logging.getLogger("flow.manager")


class Membership:
    """Where a manager stands with the interchange. One thread.

    Args:
        line: The connection.
        contact: What is known of the other side.
        offer: What the manager offers.
        outbox: What it has to tell, numbered and timed as the interchange says.
        poller: Where the descriptors of the line are watched.
        run_id: The run.
    """

    def __init__(
        self, line: Line, contact: Contact, offer: Registration, outbox: Outbox, poller: select.poll, run_id: str
    ) -> None:
        self.offer = offer
        self._line = line
        self._contact = contact
        self._outbox = outbox
        self._poller = poller
        self._hello = pack_hello(Introduction("manager", run_id, offer.python, offer.software, os.getpid()))
        self._watched: list[int] = []
        self._asked_ns = 0
        self.told_pids: tuple[int, ...] = ()
        """Process ids of the workers, as they were told to the interchange; none before it has answered."""
        self._told_credit = (offer.workers, 0)
        self._trip = Trip()
        self._warned = False

    @property
    def registered(self) -> bool:
        """Whether tasks may come."""
        return self._contact.phase is Phase.REGISTERED

    @property
    def greeted(self) -> bool:
        """Whether the interchange has answered and is to be offered the workers, which was not done yet."""
        return self._contact.phase is Phase.GREETED and not self.told_pids

    @property
    def threshold_s(self) -> float:
        """Seconds of silence after which the other side counts as lost."""
        return self._contact.threshold_s

    @property
    def trip_s(self) -> float:
        """Seconds that a round trip takes; 0 where it costs nothing."""
        return self._trip.seconds

    # -- finding it

    def begin(self) -> None:
        """Call all addresses."""
        self._line.seek(self._hello)

    def watch(self) -> None:
        """See to it that the line's descriptors are polled; they change while the interchange is sought."""
        if self.registered and self._watched:
            return
        descriptors = self._line.descriptors()
        if descriptors != self._watched:
            self._unwatch()
            for descriptor in descriptors:
                self._poller.register(descriptor, select.POLLIN)
            self._watched = descriptors

    def _unwatch(self) -> None:
        for descriptor in self._watched:
            self._poller.unregister(descriptor)
        self._watched = []

    @property
    def watched(self) -> bool:
        """Whether the descriptors polled are those of a line that stands."""
        return bool(self._watched) and self.registered

    def lost(self, now: float) -> None:
        """The connection broke: seek again."""
        log.warning("the connection to the interchange broke: seeking it again")
        self._contact.lost(now)
        self._seek_anew()

    def _seek_anew(self) -> None:
        self._unwatch()
        self._line.seek(self._hello)

    def answered(self) -> None:
        """The interchange said hello."""
        self._contact.greeted(time.monotonic())
        self.told_pids = ()

    def unknown(self) -> None:
        """The interchange does not know this manager: say hello again."""
        self._contact.phase = Phase.SEEKING
        self._line.send(self._hello)

    # -- registering

    def register(self, worker_pids: tuple[int, ...], prefetch: int, held: Sequence[int]) -> None:
        """Offer the workers, and say which tasks are here already."""
        self._asked_ns = time.time_ns()
        self.told_pids = worker_pids
        offer = replace(self.offer, prefetch=prefetch, time_ns=self._asked_ns, worker_pids=worker_pids)
        self._trip.begin()
        self._trip.asked(time.monotonic())
        self._line.send(pack_register(self._outbox.manager, offer, held))

    def welcome(self, message: Received, prefetch: int, now: float) -> Welcome:
        """Take the interchange's welcome, and send it what it may not have seen."""
        welcome, outbox = unpack_welcome(message), self._outbox
        outbox.manager = welcome.manager
        outbox.offset_ns = welcome.time_ns - (self._asked_ns + time.time_ns()) // 2
        self._contact.registered(welcome.heartbeat_period_s, welcome.heartbeat_threshold_s, now)
        self._told_credit = (self.offer.workers, prefetch)
        self.answer(now)
        for unacknowledged in outbox.unacknowledged():
            self._line.send(unacknowledged)
        log.info("registered as manager %d at %s", welcome.manager, self._line.home)
        return welcome

    # -- staying in touch

    def heard(self, now: float) -> None:
        """The interchange said something."""
        self._contact.heard(now)

    def deadline(self, now: float) -> float:
        """Return when to look again although nothing happens."""
        return self._contact.deadline(now)

    def examine(self, now: float) -> str:
        """Look whether the interchange is there, and seek it if need be; return why to give up, or nothing."""
        contact = self._contact
        if not self.registered or now >= contact.deadline(now):
            reason = contact.verdict(self._line.reach(), self._line.home, now)
            if reason:
                return reason
            if contact.seek_again(now, Reach.OPEN in self._line.reach().values()):
                self._seek_anew()
        if contact.beat_due(now):
            self.beat(())
        return ""

    def beat(self, starts: Sequence[tuple[int, int, int]]) -> None:
        """Send a heartbeat with the starts of tasks: key, time in ns UTC, worker."""
        keys, times, ranks = zip(*starts, strict=True) if starts else ((), (), ())
        beat = Beat(self._outbox.manager, time.time_ns(), self._outbox.offset_ns, keys, times, ranks)
        self._trip.asked(time.monotonic())
        self._line.send(pack_beat(beat))

    def answer(self, now: float) -> float:
        """The interchange has answered a heartbeat; return the round trip in seconds, 0 where it costs nothing."""
        if is_local(self._line.home):
            return 0.0
        if self._trip.answered(now):
            self.beat(())
        contact = self._contact
        if not self._warned and self._trip.too_long_for(contact.period_s, contact.threshold_s):
            self._warned = True
            self.notice(
                f"a round trip to {self.offer.node} takes {self._trip.seconds:.2g} s: a silence of "
                f"heartbeat_threshold={contact.threshold_s:g} s may be nothing but that, and its tasks count as lost. "
                "Set a longer heartbeat_threshold"
            )
        return self._trip.seconds

    def notice(self, text: str) -> None:
        """Write a warning to this log and to that of the run."""
        log.warning("%s", text)
        if self.registered:
            self._line.send(pack_notice(self._outbox.manager, text))

    def tell_credit(self, slots: int, prefetch: int) -> None:
        """Say how much may be sent here, if that has changed."""
        credit = (slots, prefetch)
        if credit != self._told_credit:
            self._told_credit = credit
            self._line.send(pack_credit(Credit(1, slots, prefetch, 0)))
