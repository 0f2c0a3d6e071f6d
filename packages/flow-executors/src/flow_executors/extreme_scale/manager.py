"""The manager on rank 0: the loop of every manager, whose workers are those of the other ranks."""

from __future__ import annotations

import json
import logging
import select
import time
from collections.abc import Collection

from flow_executors.extreme_scale.channel import LOOK_S, IdlePace
from flow_executors.extreme_scale.rank_messages import RankMessage
from flow_executors.extreme_scale.rank_pool import RankPool
from flow_executors.manager.event_loop import LINE, Manager
from flow_executors.manager.manager_core import ExitReason
from flow_executors.wire.kinds import Received
from flow_executors.wire.messages import ExitCode, unpack_hello

# Milliseconds between looks at MPI after a while without messages: a bound for how late a result is seen then.
_LONGEST_MS = 5
# Seconds that others have to say which of them has ended: MPI kills this rank a second after it was told to end.
_REASON_S = 0.4

log = logging.getLogger("flow.manager")


class ExtremeScaleManager(Manager):
    """The manager of a block of MPI ranks. One thread: the process's main one."""

    def over(self, ranks: RankPool) -> ExtremeScaleManager:
        """Take the ranks that are the workers of this manager; returns itself."""
        self._ranks = ranks
        self._pace = IdlePace(_LONGEST_MS)
        self._marked = False
        return self

    def run(self) -> ExitReason:
        """Serve until it is time to leave; return why."""
        if self._ranks.neighbour.fd >= 0:
            self._poller.register(self._ranks.neighbour.fd, select.POLLIN)
        return super().run()

    # -- one turn

    def _turn(self) -> None:
        super()._turn()
        ranks = self._ranks
        ranks.look_at_neighbour()
        if self._member.registered:
            for message in ranks.samples:
                self._line.send(message)
        ranks.samples.clear()
        for text in ranks.notices:
            self._member.notice(text)
        ranks.notices.clear()
        if self._leaving is None:
            if ranks.liveness.fell is not None:
                self._lose_block(ranks.liveness.why(""))
            elif ranks.lost:
                self._lose_block(ranks.lost)

    def _look(self, patience_ms: int) -> Collection[int]:
        """Return what is ready, MPI's messages too: it has no descriptor, so it is asked again and again."""
        deadline = time.monotonic() + patience_ms / 1000
        pace, ranks, poll = self._pace, self._ranks, self._poller.poll
        wait_ms = 0
        while True:
            line = self._line.waiting
            ready = set(dict(poll(0 if line else wait_ms)))
            if ranks.waiting:
                ready.add(self._worker_pool_fd)
            if line:
                ready.add(LINE)
            now = time.monotonic()
            if ready:
                pace.stirred(now)
                return ready
            if now >= deadline:
                return ready
            wait_ms = min(pace.nap_ms(now), max(0, int((deadline - now) * 1000)))
            if not wait_ms:
                time.sleep(LOOK_S)

    # -- the interchange's messages

    def _take_hello(self, message: Received, now: float) -> None:
        who = unpack_hello(message).who
        if not self._marked and who.marker is not None and who.marker_digest is not None:
            # Each rank looks for itself: one node may see the script's disk and another not.
            self._marked = True
            self._ranks.tell_all(RankMessage.MARKER, json.dumps([who.marker, who.marker_digest]).encode())
        super()._take_hello(message, now)

    def _take_blob(self, message: Received, now: float) -> None:
        super()._take_blob(message, now)
        self._ranks.blobs_came()

    # -- the end

    def block_ends(self, walltime_s: float, reason: str) -> None:
        """The block is being ended, perhaps by MPI, after one of its ranks: say so."""
        signal = "SIGHUP" if "SIGHUP" in reason else "SIGTERM"
        why = self._ranks.why_ended(signal, _REASON_S)
        self._handle(self._worker_pool.pool_events(), time.monotonic())
        if why != reason:
            self._lose_block(why)
        else:
            super().block_ends(walltime_s, reason)

    def _lose_block(self, reason: str) -> None:
        self._member.notice(f"the block is lost: {reason}")
        self.end_is_near(reason)
        self._end_now(0.0, reason)  # MPI leaves no time to save anything
        self._leaving = ExitReason(ExitCode.DONE, reason, 1)

    def _after_fork_server_death(self, reason: str, now: float) -> None:
        """A rank does not answer: so are the tasks of all lost, but no worker is to blame."""
        self._lose_block(reason)
