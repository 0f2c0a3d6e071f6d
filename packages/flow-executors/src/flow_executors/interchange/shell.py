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

from flow_core.remote.faults import point
from flow_executors.errors import BadMessage
from flow_executors.host import host_id
from flow_executors.interchange.core import Core
from flow_executors.interchange.doors import Doors
from flow_executors.interchange.settings import Settings
from flow_executors.interchange.setup import Setup
from flow_executors.interchange.spin import Spin
from flow_executors.wire.commands import KeyChange
from flow_executors.wire.frames import Beat, Introduction, Kind, pack_beat, pack_hello, unpack_hello, unpack_keys
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.link import LinkReader, LinkWriter
from flow_executors.wire.versions import agree

_READS = 16
_MESSAGES = 256
_ACK_DELAY_S = 0.25
_LINGER_MS = 1000
_SLEPT_S = 2.0
_NEVER = float("inf")


class Shell:
    """Runs one interchange until the client says EXIT or is gone."""

    def __init__(self, setup: Setup, who: Introduction, logger: logging.Logger) -> None:
        self._setup = setup
        self._logger = logger
        self._who = who
        self._link = socket.socket(fileno=setup.link_fd)
        self._link.setblocking(False)
        self._reader = LinkReader(self._link)
        self._writer = LinkWriter(self._link)
        self._doors = Doors(setup)
        settings = Settings(
            setup.run_id,
            setup.python,
            setup.incarnation,
            setup.heartbeat_period_s,
            setup.heartbeat_threshold_s,
            setup.packed,
            host_id(),
            setup.results,
        )
        self._core = Core(settings, who, time.time_ns)
        self._core.admitted(KeyChange(admit=setup.admitted))
        self._spin = Spin(len(os.sched_getaffinity(0)), _preemptions)
        self._poll = select.poll()
        self._waiting = True
        """Messages of managers are known to be there."""
        self._deadline = _NEVER
        self._link_fd = self._link.fileno()
        self._fds = tuple(int(door.get(zmq.FD)) for door in (self._doors.router, self._doors.zap, self._doors.monitor))
        self._local_fd = self._doors.local.fileno()
        self._all = (self._link_fd, self._local_fd, *self._fds)
        self._next_beat = 0.0
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
        wake = self._wake_at(before)
        sleeps = not (self._waiting or self._spin.wanted(before))
        found = dict(self._poll.poll(max(0, int((wake - before) * 1000 + 0.999)) if sleeps else 0))
        now = time.monotonic()
        if now - max(wake, before) > _SLEPT_S:
            self._core.slept(now)
        heard = bool(found) or self._waiting
        if heard:
            self._listen(found, now)
        elif sleeps:  # nothing for long: look at all, whatever the descriptors say
            self._listen(self._all, now)
        self._timers(now)
        self._send(now)
        self._waiting = self._doors.unread()
        self._spin.after(now, heard, self._core.busy)

    def _wake_at(self, now: float) -> float:
        """Return when to look although nothing happens."""
        deadline = self._core.next_deadline(now)
        self._deadline = wake = _NEVER if deadline is None else deadline
        if self._next_beat < wake:
            wake = self._next_beat
        if self._core.owes_acks and self._ack_at < wake:
            wake = self._ack_at
        return wake

    # -- in

    def _listen(self, ready: Collection[int], now: float) -> None:
        router, zap, monitor = self._fds
        if zap in ready:
            self._doors.authenticate()
        if monitor in ready:
            self._breaks(now)
        if self._link_fd in ready:
            self._from_client(now)
        if self._local_fd in ready:
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
        if kind == Kind.TASKS:
            self._core.from_client(message, now)
            point("interchange.after_tasks")
        elif kind == Kind.HELLO:
            hello = unpack_hello(message)
            agree(hello.lowest, hello.highest, "the script")
            self._core.up.append(pack_hello(self._who))
        elif kind == Kind.KEYS:
            change = unpack_keys(message)
            self._doors.change_keys(change)
            self._core.admitted(change)
        else:
            self._core.from_client(message, now)

    def _from_managers(self, now: float) -> None:
        core, doors = self._core, self._doors
        for peer, block, message in doors.receive(_MESSAGES):
            if block:
                self._breaks(now)
                doors.bind_connection()
            if len(message) and message[0] == Kind.RESULTS:
                point("interchange.after_results")
            core.from_peer(peer, block, message, now)

    def _from_this_machine(self, now: float) -> None:
        core, doors = self._core, self._doors.local
        for peer, block, message in doors.receive():
            if len(message) and message[0] == Kind.RESULTS:
                point("interchange.after_results")
            core.from_peer(peer, block, message, now)
        for peer in doors.disconnected():
            core.disconnected(peer, now)

    def _breaks(self, now: float) -> None:
        for peer in self._doors.disconnected():
            self._core.disconnected(peer, now)

    # -- time

    def _timers(self, now: float) -> None:
        if self._deadline <= now:
            self._core.tick(now)
        if now >= self._next_beat:
            self._next_beat = now + self._setup.heartbeat_period_s
            self._core.up.append(pack_beat(Beat(0, time.time_ns(), 0)))

    # -- out

    def _send(self, now: float) -> None:
        """Send all: first to the client, who must know of a manager before that one can have tasks."""
        core = self._core
        if core.up or self._writing:
            self._send_up()
        done = not self._writing
        if core.down:
            dispatched = any(message[0] == Kind.TASKS for _, message in core.down)
            self._send_down()
            if dispatched:
                point("interchange.after_dispatch")
        if core.story:
            for line in core.story:
                self._logger.info(line)
            core.story.clear()
        if done and core.owes_acks and (now >= self._ack_at or core.presses):
            self._acknowledge(now)

    def _send_up(self) -> None:
        core = self._core
        try:
            done = self._writer.write(core.desk.take_up())
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
        if self._core.desk.known and (due or self._core.presses):
            self._send_up()
            if self._writing:
                return
        self._core.delivered(due)
        if due or not self._core.owes_acks:
            self._ack_at = 0.0
        if self._core.down:
            self._send_down()

    def _send_down(self) -> None:
        for peer, message in self._core.down:
            self._doors.send(peer, message)
        self._core.down.clear()

    def _finish(self) -> None:
        self._send_down()
        self._link.close()
        self._doors.close(_LINGER_MS)


def _preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def introduction(setup: Setup, software: str) -> Introduction:
    """Return how the interchange introduces itself."""
    return Introduction("interchange", setup.run_id, setup.python, software, os.getpid())
