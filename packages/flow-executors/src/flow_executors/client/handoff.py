"""How submitted tasks get onto the link: at once when the way is free, in batches when they come fast.

The hybrid that measured best: the submitting thread sends if nothing was sent for a while or a batch is full; else it
wakes the receiver thread once, which sends what has gathered.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from collections.abc import Callable

from flow_executors.client.counters import Counters
from flow_executors.client.queue import TaskQueues
from flow_executors.serialize.functions import Functions
from flow_executors.wire.frames import pack_blob, pack_spec
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.link import LinkWriter

_QUIET_S = 0.0002
_FULL = 256

# Unlike os.eventfd_write this keeps the GIL, which the receiver would take at once: it would send what has gathered
# by then, and the submitting thread wait for it. So it wakes, and gets the GIL when the submitting thread waits.
_poke = ctypes.PyDLL(None).eventfd_write
_poke.argtypes = (ctypes.c_int, ctypes.c_uint64)


class Handoff:
    """Sends tasks and orders to the interchange. Any thread, but for ``on_wake``."""

    def __init__(self, queues: TaskQueues, functions: Functions) -> None:
        self.queues = queues
        self.lock = threading.Lock()
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.counters = Counters()
        self._functions = functions
        self._sent_blobs: set[bytes] = set()
        self._sent_specs: set[int] = set()
        self._writer: LinkWriter | None = None
        self._signalled = False
        self._last_send = 0.0
        self._receiver = 0

    def connect(self, link: socket.socket, first: list[Buffer]) -> None:
        """Use a new link, beginning with the messages given. Receiver thread, or before it runs."""
        with self.lock:
            self._writer = LinkWriter(link)
            self._sent_blobs.clear()
            self._sent_specs.clear()
            self._write(first)
            self._flush()

    def disconnect(self) -> None:
        """The link is gone: keep everything."""
        with self.lock:
            self._writer = None

    def serve(self, receiver: int) -> None:
        """Say which thread is the receiver: what it submits in callbacks is sent after them, in one batch."""
        self._receiver = receiver

    @property
    def congested(self) -> bool:
        """Whether the link did not take all: the receiver then watches for room."""
        writer = self._writer
        return writer is not None and writer.pending > 0

    def submitted(self, class_id: int, waiting: int) -> None:
        """A task was added to its queue, in which so many wait: send it, or see to it that it is sent."""
        if threading.get_ident() == self._receiver or self.queues.blocked(class_id):
            return
        if waiting >= _FULL or (waiting == 1 and time.monotonic() - self._last_send > _QUIET_S):
            self.flush()
        elif not self._signalled:
            self._signalled = True
            self.wake()

    def wake(self) -> None:
        """Wake the receiver thread."""
        _poke(self.wake_fd, 1)  # fails where it need not be told: the counter is full, or all is closed

    def on_wake(self) -> None:
        """Clear the signal: read first, then allow the next, then flush; in another order a wake-up could be lost."""
        try:
            os.eventfd_read(self.wake_fd)
        except BlockingIOError:
            pass
        self._signalled = False

    def flush(self) -> None:
        """Send what may be sent."""
        if self.queues.unsent or self.congested:
            with self.lock:
                self._flush()

    def send(self, message: Buffer) -> bool:
        """Send one order; False when there is no link now."""
        with self.lock:
            if self._writer is None:
                return False
            self._write([message])
            return True

    def under_lock(self, work: Callable[[], None]) -> None:
        """Do something to the queues while nobody sends."""
        with self.lock:
            work()

    def _flush(self) -> None:
        writer = self._writer
        if writer is None:
            return
        if writer.pending and not self._drain(writer):
            return
        while self.queues.sendable and not writer.pending:
            messages: list[Buffer] = []
            for batch in self.queues.take():
                self._before(batch.class_id, batch.digests, messages)
                messages.append(batch.message)
            self._write(messages)
            self._last_send = time.monotonic()

    def _before(self, class_id: int, digests: tuple[bytes, ...], messages: list[Buffer]) -> None:
        if class_id and class_id not in self._sent_specs:
            self._sent_specs.add(class_id)
            messages.append(pack_spec(class_id, self.queues.specs[class_id]))
        for digest in digests:
            if digest not in self._sent_blobs:
                self._sent_blobs.add(digest)
                messages.extend(pack_blob(digest, self._functions.blob(digest) or b""))

    def _write(self, messages: list[Buffer]) -> None:
        if self._writer is None:
            return
        self.counters.messages_out += len(messages)
        self.counters.bytes_out += sum(map(len, messages))
        try:
            self._writer.write(messages)
        except OSError:
            self._writer = None  # the receiver sees the end of the link and restarts the interchange
            return
        if self._writer.pending:
            self.wake()

    def _drain(self, writer: LinkWriter) -> bool:
        try:
            return writer.flush()
        except OSError:
            self._writer = None
            return False

    def forget_blobs(self) -> None:
        """Forget functions that no task without outcome uses, when there are many."""
        if self._functions.full:
            with self.lock:
                self._sent_blobs -= self._functions.forget_others(self.queues.digests_in_use())

    def close(self) -> None:
        """Release the descriptor. After the receiver has ended."""
        with self.lock:
            self._writer = None
            descriptor, self.wake_fd = self.wake_fd, -1
            os.close(descriptor)
