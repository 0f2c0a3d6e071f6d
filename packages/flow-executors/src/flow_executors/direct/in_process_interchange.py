"""An interchange inside the process of the script: its core and its sockets, shared by threads under one lock.

A task goes from the submitting thread straight to the socket of a manager: no other process, no other thread. Sockets
of ZeroMQ may be used by several threads one after the other, which the lock ensures. No thread sleeps with the lock.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from flow_core.errors import ExecutorError
from flow_executors.client.interchange_process import InterchangeSettings
from flow_executors.common.host import host_id
from flow_executors.common.loop_waits import Pauses
from flow_executors.direct.sockets import DirectSockets
from flow_executors.direct.worker_channels import TELL_AFTER_S, DirectWorkerChannels
from flow_executors.interchange.interchange_core import InterchangeCore
from flow_executors.interchange.settings import CoreSettings
from flow_executors.wire.commands import Command, KeyChange, Reply, pack_command, unpack_reply
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.messages import DEFAULT_CLASS, PeerInfo
from flow_executors.wire.tasks import pack_task, pack_tasks

# Messages of managers that are read in one turn, under the lock that submitting threads need.
_MESSAGES = 64
# Seconds that results wait for a common acknowledgement.
_ACK_DELAY_S = 0.25
# Seconds for which handing out and acknowledging may be put off after a turn: results reach the script first.
_PUT_OFF_S = 0.001
# Milliseconds that the last messages have to leave at the end.
_LINGER_MS = 1000
# Seconds; a bound for poll, which cannot take an infinite time.
_LONGEST_S = 3600.0
# Seconds after a task was given over a direct channel for which the receiver looks often enough to tell its manager in
# time.
_ALERT_S = 1.0


class InProcessInterchange:
    """Core and sockets. Any thread, but for ``take``, which is the receiver's."""

    def __init__(self, site: InterchangeSettings, who: PeerInfo) -> None:
        """Open the sockets on the site's listening socket."""
        self._lock = threading.Lock()
        self._port = site.port
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        setup = site.setup(0, (), -1)
        listen_fd, local_fd = (os.dup(fd) if fd >= 0 else -1 for fd in (setup.listen_fd, setup.local_fd))
        self._sockets = DirectSockets(replace(setup, listen_fd=listen_fd, local_fd=local_fd))  # which close theirs
        self._local_fd = self._sockets.local.fileno()
        settings = CoreSettings(
            run_id=site.run_id,
            python=who.python,
            heartbeat_period_s=site.heartbeat_period_s,
            heartbeat_threshold_s=site.heartbeat_threshold_s,
            sleep_threshold_s=site.sleep_threshold_s,
            packed=site.packed,
            host_id=host_id(),
            managers_per_block=site.managers_per_block,
        )
        self._core = InterchangeCore(settings, who, time.time_ns)
        self._ack_at = self._settle_at = 0.0
        self._settled = True
        self._more = True  # what came before the first look has signalled nobody
        self._poll = select.poll()
        self._side = {door.fileno() for door in (self._sockets.zap, self._sockets.monitor)}
        self._router_fd = self._sockets.router.fileno()
        for descriptor in (self._wake_fd, self._local_fd, self._router_fd, *self._side):
            self._poll.register(descriptor, select.POLLIN)
        self._channels = DirectWorkerChannels(self._core, self._poll)
        self._pauses = Pauses()
        self._sleeping = False
        """Whether the receiver sleeps for longer than a task over a direct channel may go unnoticed."""

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
                    if self._sleeping or self._sockets.unread():
                        self.wake()
                    return
            now = time.monotonic()
            self._core.from_client(message, now)
            self._turn(now)

    def tell(self, messages: Iterable[Buffer]) -> None:
        """Take messages of a client to an interchange: SPEC, BLOB, CANCEL."""
        now = time.monotonic()
        with self._lock:
            for message in messages:
                self._core.from_client(message, now)
            self._turn(now)

    def command(self, command: Command, timeout_s: float) -> Reply:
        """Carry out an order about managers. Raises ExecutorError: no other thread let go of the lock in time."""
        if not self._lock.acquire(timeout=timeout_s):
            raise ExecutorError(f"no answer to {command.name} within {timeout_s:g} s: another thread is held up")
        try:
            now = time.monotonic()
            self._core.from_client(pack_command(command), now)
            reply = unpack_reply(self._core.to_client.pop())
            self._turn(now)
        finally:
            self._lock.release()
        return reply

    def change_keys(self, change: KeyChange) -> None:
        """Admit and revoke the keys of blocks."""
        now = time.monotonic()
        with self._lock:
            self._sockets.change_keys(change)
            if self._wake_fd >= 0:  # else it is closed: blocks that end after that have nobody here
                self._core.admitted(change, now)
                self._turn(now)

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
        if core.to_managers:
            self._send()
        if core.to_client or self._sleeping or self._sockets.unread():
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
            self._read_wakes()
        core = self._core
        with self._lock:
            now = time.monotonic()
            self._sleeping = False
            late_s = now - began - patience_s
            away_s = self._pauses.away_s(late_s, now) if late_s > 0 or not ready else 0.0
            if away_s:
                core.slept(now, away_s)
            self._channels.take(ready, now)  # before what managers say, which may be of a worker's death
            if self._local_fd in ready or now >= self._sockets.local.resumes_at:
                self._take_local(now)
            side = self._more or not self._side.isdisjoint(ready)
            if side or woken or not ready or self._router_fd in ready:
                self._take_in(now, side)
            if core.waiting.count or now >= self._settle_at:
                self._settle(now)
            else:
                self._settled = False
            if core.to_managers:
                self._send()
                self._more = self._more or self._sockets.unread()
            for peer in core.hang_ups:
                self._sockets.hang_up(peer)
            core.hang_ups.clear()
            core.story.clear()  # for the log of an interchange that is a process
            to_client = core.to_client[:]
            core.to_client.clear()
        return to_client

    def slept(self) -> None:
        """Restart the silence of all managers: no thread has read their messages for a while."""
        with self._lock:
            self._core.slept(time.monotonic(), 0.0)
            self._more = True
        self.wake()

    def _settle(self, now: float) -> None:
        """Hand out, look at the clock, acknowledge. Put off for a moment where nothing waits for it: results first."""
        core = self._core
        self._settled, self._settle_at = True, now + _PUT_OFF_S
        core.to_managers += self._channels.overdue(now)
        core.turn(now)
        deadline = core.next_deadline(now)
        if deadline is not None and deadline <= now:
            core.tick(now)
            self._channels.forget_the_gone()
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
            deadlines = [self._core.next_deadline(now), self._channels.deadline()]
            if self._core.owes_acks:
                deadlines.append(self._ack_at)
            if self._sockets.local.paused:
                deadlines.append(self._sockets.local.resumes_at)
            if now < self._channels.used_at + _ALERT_S:
                deadlines.append(now + TELL_AFTER_S)
            patience_s = max(0.0, min((one for one in deadlines if one is not None), default=now + _LONGEST_S) - now)
            self._sleeping = patience_s > TELL_AFTER_S and len(self._channels) > 0
        return patience_s

    def _read_wakes(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            pass

    def _take_in(self, now: float, side: bool) -> None:
        """Read the sockets that have something until they are empty: else their descriptors would stay silent."""
        core, sockets = self._core, self._sockets
        if side:
            sockets.authenticate()
            self._breaks(now)
        count = 0
        for peer, block, message in sockets.receive(_MESSAGES):
            count += 1
            if block:
                self._breaks(now)
                sockets.bind_connection()
            core.from_peer(peer, block, message, now)
        self._more = count == _MESSAGES

    def _take_local(self, now: float) -> None:
        core, sockets, channels = self._core, self._sockets.local, self._channels
        for peer, block, message in sockets.receive():
            channels.hear(peer, block, message, now)
        for peer in sockets.disconnected():
            channels.lost(peer, now)
            core.disconnected(peer, now)

    def _breaks(self, now: float) -> None:
        for peer in self._sockets.disconnected():
            self._core.disconnected(peer, now)

    def _send(self) -> None:
        to_managers, channels = self._core.to_managers, self._channels
        for peer, message in to_managers:
            if peer in channels:
                for one in channels.divert(peer, message, time.monotonic()):
                    self._sockets.send(peer, one)
            else:
                self._sockets.send(peer, message)
        to_managers.clear()

    # -- the end

    def close(self) -> None:
        """Close the sockets after what was sent has left. When no other thread uses this any more."""
        with self._lock:
            self._channels.close()
            self._sockets.close(_LINGER_MS)
            os.close(self._wake_fd)
            self._wake_fd = -1

    def abandon_after_fork(self) -> None:
        """In a forked child: close the parent's connections, which would outlive it otherwise."""
        self._channels.close()
        self._sockets.local.close()
        for name in os.listdir("/proc/self/fd") if self._port else ():
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
