"""What an interchange does, done in the script's own process: its core and its doors, shared by threads under one lock.

A task goes from the submitting thread straight to the socket of a manager: no other process, no other thread. Sockets
of ZeroMQ may be used by several threads one after the other; the lock sees to that. Nobody sleeps with it.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from flow_executors.client.incarnation import Site
from flow_executors.direct.doors import DirectDoors
from flow_executors.direct.lanes import TELL_AFTER_S, Lanes
from flow_executors.host import host_id
from flow_executors.interchange.core import Core
from flow_executors.interchange.settings import Settings
from flow_executors.wire.frames import (
    DEFAULT_CLASS,
    Command,
    Introduction,
    KeyChange,
    Reply,
    pack_command,
    pack_tasks,
    unpack_reply,
)
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.single import pack_task

_MESSAGES = 64
_ACK_DELAY_S = 0.25
_PUT_OFF_S = 0.001
_SLEPT_S = 2.0
_LINGER_MS = 1000
_LONGEST_S = 3600.0
_ALERT_S = 1.0
"""For so long after a task was given over a lane the receiver looks often enough to tell its manager in time."""


class Exchange:
    """Core and doors. Any thread, but for ``take``, which is the receiver's."""

    def __init__(self, site: Site, who: Introduction) -> None:
        """Open the doors on the site's listening socket."""
        self._lock = threading.Lock()
        self._port = site.port
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        setup = site.setup(0, (), -1)
        local_fd = os.dup(setup.local_fd) if setup.local_fd >= 0 else -1  # the doors close theirs
        self._doors = DirectDoors(replace(setup, listen_fd=os.dup(setup.listen_fd), local_fd=local_fd))
        self._local_fd = self._doors.local.fileno()
        settings = Settings(
            run_id=site.run_id,
            python=who.python,
            heartbeat_period_s=site.heartbeat_period_s,
            heartbeat_threshold_s=site.heartbeat_threshold_s,
            packed=site.packed,
            host_id=host_id(),
        )
        self._core = Core(settings, who, time.time_ns)
        self._ack_at = self._settle_at = 0.0
        self._settled = True
        self._more = True  # what came before the first look has signalled nobody
        self._poll = select.poll()
        self._side = {door.fileno() for door in (self._doors.zap, self._doors.monitor)}
        self._router_fd = self._doors.router.fileno()
        for descriptor in (self._wake_fd, self._local_fd, self._router_fd, *self._side):
            self._poll.register(descriptor, select.POLLIN)
        self._lanes = Lanes(self._core, self._poll)
        self._dozing = False
        """The receiver sleeps for longer than a task over a lane may go unnoticed."""

    # -- the client's side

    def submit(self, class_id: int, digest: bytes, key: int, record: bytes) -> None:
        """Take a task of a class that was described: to a manager if one has room, else into its queue."""
        with self._lock:
            if class_id != DEFAULT_CLASS:
                message = pack_tasks(class_id, (digest,), (key,), (len(record),), record)
            else:
                message = pack_task(digest, key, record)
                if self._core.pass_on(digest, key, message):
                    self._send()
                    if self._dozing or self._doors.unread():
                        self.wake()
                    return
            now = time.monotonic()
            self._core.from_client(message, now)
            self._turn(now)

    def tell(self, messages: Iterable[Buffer]) -> None:
        """Take what a client tells an interchange: SPEC, BLOB, CANCEL."""
        now = time.monotonic()
        with self._lock:
            for message in messages:
                self._core.from_client(message, now)
            self._turn(now)

    def command(self, command: Command) -> Reply:
        """Carry out an order about managers."""
        now = time.monotonic()
        with self._lock:
            self._core.from_client(pack_command(command), now)
            reply = unpack_reply(self._core.up.pop())
            self._turn(now)
        return reply

    def change_keys(self, change: KeyChange) -> None:
        """Admit and revoke the keys of blocks."""
        with self._lock:
            self._doors.change_keys(change)
            self._core.revoked.update(change.revoke)

    def withdraw(self, keys: Sequence[int]) -> list[int]:
        """Take back tasks that no manager has; return those."""
        with self._lock:
            return self._core.waiting.remove(keys)

    def waits(self, key: int) -> bool:
        """Whether a task is at no manager."""
        with self._lock:
            return not any(key in one.out or key in one.special for one in self._core.pool.by_number.values())

    @property
    def waiting(self) -> int:
        """Number of tasks that are at no manager."""
        with self._lock:
            return self._core.waiting.count

    def dismiss(self, reason: str) -> None:
        """Send all managers home."""
        with self._lock:
            self._core.leave(reason)
            self._send()

    def _turn(self, now: float) -> None:
        """Hand out what can be; leave to the receiver what is for it. Sending may have swallowed its signal."""
        core = self._core
        core.turn(now)
        if core.down:
            self._send()
        if core.up or self._dozing or self._doors.unread():
            self.wake()

    def wake(self) -> None:
        """Let the receiver look."""
        try:
            os.eventfd_write(self._wake_fd, 1)
        except OSError:
            pass

    # -- the receiver's side

    def take(self) -> list[Buffer]:
        """Wait for something and take it in; return the messages that are for the client."""
        began, patience_s = time.monotonic(), self._patience_s()
        ready = dict(self._poll.poll(int(patience_s * 1000 + 0.999)))
        woken = self._wake_fd in ready
        if woken:
            self._hush()
        core = self._core
        with self._lock:
            now = time.monotonic()
            self._dozing = False
            if now - began > patience_s + _SLEPT_S:
                core.slept(now)
            self._lanes.take(ready, now)  # before what managers say, which may be of a worker's death
            if self._local_fd in ready:
                self._take_local(now)
            side = self._more or not self._side.isdisjoint(ready)
            if side or woken or not ready or self._router_fd in ready:
                self._take_in(now, side)
            if core.waiting.count or now >= self._settle_at:
                self._settle(now)
            else:
                self._settled = False
            if core.down:
                self._send()
                self._more = self._more or self._doors.unread()
            up = core.up[:]
            core.up.clear()
        return up

    def slept(self) -> None:
        """Nobody has listened for a while: the silence of managers meanwhile means nothing."""
        with self._lock:
            self._core.slept(time.monotonic())
            self._more = True
        self.wake()

    def _settle(self, now: float) -> None:
        """Hand out, look at the clock, acknowledge. Put off for a moment where nothing waits for it: results first."""
        core = self._core
        self._settled, self._settle_at = True, now + _PUT_OFF_S
        core.down += self._lanes.overdue(now)
        core.turn(now)
        deadline = core.next_deadline(now)
        if deadline is not None and deadline <= now:
            core.tick(now)
            self._lanes.forget_the_gone()
        if core.owes_acks:
            self._acknowledge(now)

    def _acknowledge(self, now: float) -> None:
        """Acknowledge results to their managers, few of them a little later."""
        if not self._ack_at:
            self._ack_at = now + _ACK_DELAY_S
        due = now >= self._ack_at
        self._core.delivered(due)
        if due or not self._core.owes_acks:
            self._ack_at = 0.0

    def _patience_s(self) -> float:
        if self._more:
            return 0.0
        now = time.monotonic()
        if not self._settled:
            return max(0.0, self._settle_at - now)
        with self._lock:
            deadlines = [self._core.next_deadline(now), self._lanes.deadline()]
            if self._core.owes_acks:
                deadlines.append(self._ack_at)
            if now < self._lanes.used_at + _ALERT_S:
                deadlines.append(now + TELL_AFTER_S)
            patience_s = max(0.0, min((one for one in deadlines if one is not None), default=now + _LONGEST_S) - now)
            self._dozing = patience_s > TELL_AFTER_S and len(self._lanes) > 0
        return patience_s

    def _hush(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            pass

    def _take_in(self, now: float, side: bool) -> None:
        """Read the sockets that have something until they are empty: else their descriptors would stay silent."""
        core, doors = self._core, self._doors
        if side:
            doors.authenticate()
            self._breaks(now)
        count = 0
        for peer, block, message in doors.receive(_MESSAGES):
            count += 1
            if block:
                self._breaks(now)
                doors.bind_connection()
            core.from_peer(peer, block, message, now)
        self._more = count == _MESSAGES

    def _take_local(self, now: float) -> None:
        core, doors, lanes = self._core, self._doors.local, self._lanes
        for peer, block, message in doors.receive():
            lanes.hear(peer, block, message, now)
        for peer in doors.disconnected():
            lanes.lost(peer, now)
            core.disconnected(peer, now)

    def _breaks(self, now: float) -> None:
        for peer in self._doors.disconnected():
            self._core.disconnected(peer, now)

    def _send(self) -> None:
        down, lanes = self._core.down, self._lanes
        for peer, message in down:
            if peer in lanes:
                for one in lanes.divert(peer, message, time.monotonic()):
                    self._doors.send(peer, one)
            else:
                self._doors.send(peer, message)
        down.clear()

    # -- the end

    def close(self) -> None:
        """Close the doors after what was sent has left. When no other thread uses this any more."""
        with self._lock:
            self._lanes.close()
            self._doors.close(_LINGER_MS)
            os.close(self._wake_fd)
            self._wake_fd = -1

    def forsake(self) -> None:
        """In a forked child: let go of the parent's connections, lest they outlive it."""
        self._lanes.close()
        self._doors.local.close()
        for name in os.listdir("/proc/self/fd"):
            if _is_local(int(name), self._port):
                os.close(int(name))


def _is_local(descriptor: int, port: int) -> bool:
    """Whether a descriptor is a TCP socket of that port here."""
    try:
        copied = os.dup(descriptor)
    except OSError:  # it is closed
        return False
    try:
        copy = socket.socket(fileno=copied)
    except OSError:  # no socket
        os.close(copied)
        return False
    with copy:
        try:
            return copy.family in (socket.AF_INET, socket.AF_INET6) and copy.getsockname()[1] == port
        except OSError:
            return False
