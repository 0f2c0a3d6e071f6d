"""The interchange's loop: sockets and the clock around the core. One thread; it decides nothing."""

from __future__ import annotations

import logging
import os
import resource
import socket
import time

import zmq

from flow_core.remote.faults import point
from flow_executors.errors import BadMessage
from flow_executors.interchange.core import Core, Settings
from flow_executors.interchange.doors import Doors
from flow_executors.interchange.setup import Setup
from flow_executors.interchange.spin import Spin
from flow_executors.wire.frames import Beat, Introduction, Kind, pack_beat, pack_hello, unpack_hello, unpack_keys
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.link import LinkReader, LinkWriter
from flow_executors.wire.versions import agree

_READS = 16
_MESSAGES = 256
_ACK_DELAY_S = 0.25
_LINGER_MS = 1000
_SLEPT_S = 2.0


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
        )
        self._core = Core(settings, who, time.time_ns)
        self._spin = Spin(len(os.sched_getaffinity(0)), _preemptions)
        self._poller = zmq.Poller()
        self._next_beat = 0.0
        self._ack_at = 0.0
        self._writing = False

    def run(self) -> None:
        """Loop to the end."""
        poller, doors = self._poller, self._doors
        poller.register(self._link, zmq.POLLIN)
        for door in (doors.router, doors.zap, doors.monitor):
            poller.register(door, zmq.POLLIN)
        try:
            while not self._core.exiting:
                self._once()
        finally:
            self._finish()

    def _once(self) -> None:
        timeout_s = self._timeout()
        before = time.monotonic()
        ready = dict(self._poller.poll(0 if self._spin.wanted(before) else max(0, int(timeout_s * 1000 + 0.999))))
        now = time.monotonic()
        if now - before > timeout_s + _SLEPT_S:
            self._core.slept(now)
        doors = self._doors
        if doors.zap in ready:
            doors.authenticate()
        if doors.monitor in ready:
            self._breaks(now)
        if self._link.fileno() in ready:
            self._from_client(now)
        if doors.router in ready:
            self._from_managers(now)
        if ready:
            self._core.turn(now)
        self._timers(now)
        self._send()
        self._spin.after(now, bool(ready), self._core.busy)

    def _timeout(self) -> float:
        now = time.monotonic()
        deadline = self._core.next_deadline(now)
        wake = self._next_beat if deadline is None else min(self._next_beat, deadline)
        if self._core.owes_acks:
            wake = min(wake, self._ack_at)
        return max(0.0, wake - now)

    # -- in

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
            if not messages:
                return
            for message in messages:
                self._client_message(message, now)

    def _client_message(self, message: Buffer, now: float) -> None:
        kind = message[0] if len(message) else 0
        if kind == Kind.HELLO:
            hello = unpack_hello(message)
            agree(hello.lowest, hello.highest, "the script")
            self._core.up.append(pack_hello(self._who))
        elif kind == Kind.KEYS:
            change = unpack_keys(message)
            self._doors.change_keys(change)
            self._core.revoked.update(change.revoke)
        else:
            self._core.from_client(message, now)
        if kind == Kind.TASKS:
            point("interchange.after_tasks")

    def _from_managers(self, now: float) -> None:
        core, doors = self._core, self._doors
        for peer, block, message in doors.receive(_MESSAGES):
            if block:
                self._breaks(now)
                doors.bind_connection()
            if len(message) and message[0] == Kind.RESULTS:
                point("interchange.after_results")
            core.from_peer(peer, block, message, now)

    def _breaks(self, now: float) -> None:
        for peer in self._doors.disconnected():
            self._core.disconnected(peer, now)

    # -- time

    def _timers(self, now: float) -> None:
        deadline = self._core.next_deadline(now)
        if deadline is not None and deadline <= now:
            self._core.tick(now)
        if now >= self._next_beat:
            self._next_beat = now + self._setup.heartbeat_period_s
            self._core.up.append(pack_beat(Beat(0, time.time_ns(), 0)))

    # -- out

    def _send(self) -> None:
        """Send all: first to the client, who must know of a manager before that one can have tasks."""
        core = self._core
        try:
            done = self._writer.write(core.up)
        except OSError:
            core.leave("the script is gone")
            done = False
        core.up.clear()
        self._watch(writing=not done)
        if core.down:
            dispatched = False
            for peer, message in core.down:
                self._doors.send(peer, message)
                dispatched = dispatched or message[0] == Kind.TASKS
            core.down.clear()
            if dispatched:
                point("interchange.after_dispatch")
        for line in core.story:
            self._logger.info(line)
        core.story.clear()
        if done and core.owes_acks:
            self._acknowledge()

    def _watch(self, writing: bool) -> None:
        if writing != self._writing:
            self._writing = writing
            self._poller.register(self._link, zmq.POLLIN | zmq.POLLOUT if writing else zmq.POLLIN)

    def _acknowledge(self) -> None:
        now = time.monotonic()
        if not self._ack_at:
            self._ack_at = now + _ACK_DELAY_S
        due = now >= self._ack_at
        self._core.delivered(due)
        if due or not self._core.owes_acks:
            self._ack_at = 0.0
        for peer, message in self._core.down:
            self._doors.send(peer, message)
        self._core.down.clear()

    def _finish(self) -> None:
        for peer, message in self._core.down:
            self._doors.send(peer, message)
        self._core.down.clear()
        self._link.close()
        self._doors.close(_LINGER_MS)


def _preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def introduction(setup: Setup, software: str) -> Introduction:
    """Return how the interchange introduces itself."""
    return Introduction("interchange", setup.run_id, setup.python, software, os.getpid())
