"""The interchange's loop: sockets and the clock around the core. One thread; it decides nothing."""

from __future__ import annotations

import logging
import os
import resource
import select
import socket
import time
from collections.abc import Collection

import zmq

from flow_core.remote.faults import is_armed, point
from flow_executors.common.host import host_id
from flow_executors.common.interchange_settings import ProcessSettings
from flow_executors.common.loop_waits import BusyPoll, Pauses
from flow_executors.errors import BadMessage
from flow_executors.interchange.interchange_core import InterchangeCore
from flow_executors.interchange.settings import CoreSettings
from flow_executors.interchange.sockets import InterchangeSockets
from flow_executors.wire.commands import KeyChange, unpack_keys
from flow_executors.wire.kinds import HELLO, KEYS, RESULTS, TASKS, Buffer
from flow_executors.wire.messages import Heartbeat, PeerInfo, agree, pack_heartbeat, pack_hello, unpack_hello
from flow_executors.wire.transport import LinkReader, LinkWriter

# Reads of the client's link in one turn.
_READS = 16
# Messages of managers in one turn: with the bound above, neither side starves the other.
_MESSAGES = 256
# Seconds after which a turn reads no more of them, and messages that are looked at in between: some take long.
_TURN_S, _LOOK_EVERY = 0.05, 8
# Seconds that results wait for a common acknowledgement; a manager keeps them meanwhile, which costs only its memory.
_ACK_DELAY_S = 0.25
# Milliseconds that the last messages have to leave when the interchange ends.
_LINGER_MS = 1000
_NEVER = float("inf")


class InterchangeServer:
    """Runs one interchange until the client sends EXIT or is gone."""

    def __init__(self, setup: ProcessSettings, who: PeerInfo, logger: logging.Logger) -> None:
        self._setup = setup
        self._logger = logger
        self._who = who
        self._link = socket.socket(fileno=setup.link_fd)
        self._link.setblocking(False)
        self._reader = LinkReader(self._link)
        self._writer = LinkWriter(self._link)
        self._sockets = InterchangeSockets(setup)
        settings = CoreSettings(
            setup.run_id,
            setup.python,
            setup.incarnation,
            setup.heartbeat_period_s,
            setup.heartbeat_threshold_s,
            setup.sleep_threshold_s,
            setup.packed,
            host_id(),
            setup.results,
            setup.managers_per_block,
            setup.session_secret,
        )
        self._core = InterchangeCore(settings, who, time.time_ns)
        self._core.address_of = self._sockets.address_of
        self._core.admitted(KeyChange(admit=setup.admitted), time.monotonic())
        self._spin = BusyPoll(len(os.sched_getaffinity(0)), _preemptions)
        self._poll = select.poll()
        self._waiting = True
        """Messages of managers are known to be there."""
        self._deadline = _NEVER
        self._pauses = Pauses()
        self._link_fd = self._link.fileno()
        self._fds = tuple(
            int(door.get(zmq.FD)) for door in (self._sockets.router, self._sockets.zap, self._sockets.monitor)
        )
        self._local_fd = self._sockets.local.fileno()
        self._all = (self._link_fd, self._local_fd, *self._fds)
        self._next_heartbeat = 0.0
        self._ack_at = 0.0
        self._writing = False

    def run(self) -> None:
        """Loop to the end."""
        for descriptor in self._all:
            self._poll.register(descriptor, select.POLLIN)
        try:
            while not self._core.exiting:
                self._once()
        finally:
            self._finish()

    def _once(self) -> None:
        """One turn. The descriptors are polled bare: zmq's own poll asks each socket, four times the calls."""
        before = time.monotonic()
        # Rounded up below: a wake-up a moment too early finds nothing due, and leads to another one.
        wake = self._wake_at(before)
        sleeps = not (self._waiting or self._spin.wanted(before))
        found = dict(self._poll.poll(max(0, int((wake - before) * 1000 + 0.999)) if sleeps else 0))
        now = time.monotonic()
        # Before anything is read: what waits in the sockets is older than the pause.
        late_s = now - max(wake, before)
        away_s = self._pauses.away_s(late_s, now) if sleeps or late_s > 0 else 0.0
        if away_s:
            self._core.slept(now, away_s)
        heard = bool(found) or self._waiting
        if heard:
            self._listen(found, now)
        elif sleeps:  # nothing for long: look at all, whatever the descriptors say
            self._listen(self._all, now)
        self._timers(now)
        self._send(now)
        # After sending, which may have swallowed the signal of messages that came meanwhile.
        self._waiting = self._sockets.unread()
        self._spin.after(now, heard, self._core.busy)

    def _wake_at(self, now: float) -> float:
        """Return when to look although nothing happens."""
        deadline = self._core.next_deadline(now)
        self._deadline = wake = _NEVER if deadline is None else deadline
        if self._next_heartbeat < wake:
            wake = self._next_heartbeat
        if self._core.owes_acks and self._ack_at < wake:
            wake = self._ack_at
        if self._sockets.local.resumes_at < wake:
            wake = self._sockets.local.resumes_at
        return wake

    # -- in

    def _listen(self, ready: Collection[int], now: float) -> None:
        router, zap, monitor = self._fds
        if zap in ready:
            self._sockets.authenticate()
        # Broken connections first: a manager may be back over another one, whose greeting is in the router by now.
        if monitor in ready:
            self._breaks(now)
        if self._link_fd in ready:
            self._from_client(now)
        if self._local_fd in ready or now >= self._sockets.local.resumes_at:
            self._from_this_machine(now)
        if self._waiting or router in ready:
            self._from_managers(now)
        self._core.turn(now)

    def _from_client(self, now: float) -> None:
        for _ in range(_READS):
            try:
                messages = self._reader.read()
            except BadMessage as error:
                self._logger.error("the link to the script is out of step: %s", error)
                self._core.leave(str(error))
                return
            if self._reader.closed:
                self._core.leave("the script is gone")
                return
            for message in messages:
                self._client_message(message, now)
            if not self._reader.more:
                return

    def _client_message(self, message: Buffer, now: float) -> None:
        kind = message[0] if len(message) else 0
        if kind == TASKS:
            self._core.from_client(message, now)
            if is_armed:
                point("interchange.after_tasks")
        elif kind == HELLO:
            hello = unpack_hello(message)
            agree(hello.lowest, hello.highest, "the script")
            self._core.to_client.append(pack_hello(self._who))
        elif kind == KEYS:
            change = unpack_keys(message)
            self._sockets.change_keys(change)
            self._core.admitted(change, now)
        else:
            self._core.from_client(message, now)

    def _from_managers(self, now: float) -> None:
        core, sockets = self._core, self._sockets
        for count, (peer, block, message) in enumerate(sockets.receive(_MESSAGES), 1):
            if block:
                self._breaks(now)
                sockets.bind_connection()
            if is_armed and len(message) and message[0] == RESULTS:
                point("interchange.after_results")
            core.from_peer(peer, block, message, now)
            if not count % _LOOK_EVERY and time.monotonic() - now > _TURN_S:
                break

    def _from_this_machine(self, now: float) -> None:
        core, sockets = self._core, self._sockets.local
        for peer, block, message in sockets.receive():
            if is_armed and len(message) and message[0] == RESULTS:
                point("interchange.after_results")
            core.from_peer(peer, block, message, now)
        for peer in sockets.disconnected():
            core.disconnected(peer, now)

    def _breaks(self, now: float) -> None:
        for peer in self._sockets.disconnected():
            self._core.disconnected(peer, now)

    # -- time

    def _timers(self, now: float) -> None:
        if self._deadline <= now:
            self._core.tick(now)
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._setup.heartbeat_period_s
            self._core.to_client.append(pack_heartbeat(Heartbeat(0, time.time_ns(), 0)))

    # -- out

    def _send(self, now: float) -> None:
        """Send all messages: first to the client, which must know of a manager before that has tasks."""
        core = self._core
        if core.to_client or self._writing:
            self._send_up()
        done = not self._writing
        if core.to_managers:
            dispatched = is_armed and any(message[0] == TASKS for _, message in core.to_managers)
            self._send_down()
            if dispatched:
                point("interchange.after_dispatch")
        for peer in core.hang_ups:
            self._sockets.hang_up(peer)
        core.hang_ups.clear()
        if core.story:
            for line in core.story:
                self._logger.info(line)
            core.story.clear()
        # Only when all is written: an acknowledged result is forgotten by its manager, and must be in the client's
        # socket.
        if done and core.owes_acks and (now >= self._ack_at or core.presses):
            self._acknowledge(now)

    def _send_up(self) -> None:
        core = self._core
        try:
            done = self._writer.write(core.shared.take_for_client())
        except OSError:
            core.leave("the script is gone")
            done = False
        self._watch(writing=not done)

    def _watch(self, writing: bool) -> None:
        if writing != self._writing:
            self._writing = writing
            self._poll.register(self._link_fd, select.POLLIN | select.POLLOUT if writing else select.POLLIN)

    def _acknowledge(self, now: float) -> None:
        if not self._ack_at:
            self._ack_at = now + _ACK_DELAY_S
        due = now >= self._ack_at
        if self._core.shared.known_to_client and (due or self._core.presses):
            self._send_up()
            if self._writing:
                return
        self._core.delivered(due)
        if due or not self._core.owes_acks:
            self._ack_at = 0.0
        if self._core.to_managers:
            self._send_down()

    def _send_down(self) -> None:
        for peer, message in self._core.to_managers:
            self._sockets.send(peer, message)
        self._core.to_managers.clear()

    def _finish(self) -> None:
        self._send_down()
        self._link.close()
        self._sockets.close(_LINGER_MS)


def _preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def introduction(setup: ProcessSettings, software: str) -> PeerInfo:
    """Return how the interchange introduces itself."""
    marker, digest = setup.marker or None, setup.marker_digest or None
    return PeerInfo("interchange", setup.run_id, setup.python, software, os.getpid(), marker, digest)
