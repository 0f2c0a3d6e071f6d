"""The submission queue of an executor's client, and the sender that fills the link.

Every record is kept until its result; queues are per class. The sender is the hybrid that measured best: the submitting
thread sends if nothing was sent for a while or a batch is full; else it wakes the receiver thread once, which then
sends what has gathered. ``TaskQueues.add`` may be called by any thread at any time; all else under the owner's lock.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flow_core.interfaces.call import DEFAULT_SPEC, TaskSpec
from flow_executors.client.interface import Counters
from flow_executors.serialize.task_records import Functions
from flow_executors.wire.kinds import DIGEST_SIZE, Buffer
from flow_executors.wire.messages import DEFAULT_CLASS, pack_blob, pack_spec
from flow_executors.wire.tasks import pack_task, pack_tasks
from flow_executors.wire.transport import LinkWriter

FIRST_WINDOW = 1024
"""Tasks of a class that may be sent before the interchange has stated a window."""
# Most tasks in one message. Only the magnitude matters: from some hundred on a task more costs next to nothing.
_BATCH = 4096
# Bytes after which a message is closed, so that large arguments do not make messages of gigabytes.
_BATCH_BYTES = 1 << 20
_CLASS_AT = DIGEST_SIZE + 8


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks to send: one class, one message."""

    class_id: int
    digests: tuple[bytes, ...]
    message: bytes


class TaskQueues:
    """Tasks by key and by class.

    Attributes:
        records: Record of every task without outcome.
        unsent: Keys that wait here and were not sent.
        window: Tasks of a class that may be out.
    """

    __slots__ = ("_classes", "_out", "_queues", "_specs", "records", "unsent", "window")

    def __init__(self) -> None:
        self.records: dict[int, bytes] = {}
        self.unsent: set[int] = set()
        self.window = FIRST_WINDOW
        self._queues: dict[int, deque[int]] = {DEFAULT_CLASS: deque()}
        self._out: dict[int, int] = {DEFAULT_CLASS: 0}
        self._classes: dict[TaskSpec, int] = {DEFAULT_SPEC: DEFAULT_CLASS}
        self._specs: dict[int, TaskSpec] = {}

    def class_of(self, spec: TaskSpec) -> int | None:
        """Return the class of a spec; None if it has none yet."""
        return DEFAULT_CLASS if spec is DEFAULT_SPEC else self._classes.get(spec)

    def new_class(self, spec: TaskSpec) -> int:
        """Return the class of a spec, making it if needed. Under the lock."""
        known = self._classes.get(spec)
        if known is not None:
            return known
        class_id = len(self._classes)
        self._specs[class_id] = spec
        self._queues[class_id] = deque()
        self._out[class_id] = 0
        self._classes[spec] = class_id
        return class_id

    @property
    def specs(self) -> dict[int, TaskSpec]:
        """The classes other than the default one."""
        return self._specs

    def add(self, class_id: int, key: int, record: bytes) -> int:
        """Take one task; return how many wait in its class. Any thread."""
        # Any thread, without a lock: the record comes first, so that whoever finds the key in the queue finds its
        # record, too.
        self.records[key] = record
        self.unsent.add(key)
        queue = self._queues[class_id]
        queue.append(key)
        return len(queue)

    def blocked(self, class_id: int) -> bool:
        """Whether the window of a class is used up: then a result will lead to the next sending."""
        return self._out[class_id] >= self.window

    @property
    def sendable(self) -> bool:
        """Whether ``take`` has something."""
        for class_id, queue in self._queues.items():  # noqa: SIM110 - asked twice a task, and quicker so
            if queue and self._out[class_id] < self.window:
                return True
        return False

    def take(self) -> list[Batch]:
        """Take what may be sent, as messages of bounded size."""
        batches = []
        for class_id, queue in self._queues.items():
            while queue and (room := self.window - self._out[class_id]) > 0:
                batch = self._batch(class_id, queue, min(room, _BATCH))
                if batch is not None:
                    batches.append(batch)
        return batches

    def _batch(self, class_id: int, queue: deque[int], room: int) -> Batch | None:
        keys: list[int] = []
        records: list[bytes] = []
        size, unsent, known = 0, self.unsent, self.records
        while queue and room > 0 and size < _BATCH_BYTES:
            key = queue.popleft()
            # Cancelled keys stay in the deque: to take one out of its middle would be a search.
            if key in unsent:  # not cancelled meanwhile
                record = known[key]
                keys.append(key)
                records.append(record)
                size += len(record)
                room -= 1
        if not keys:
            return None
        unsent.difference_update(keys)
        self._out[class_id] += len(keys)
        # The same layout in one step: a lone task is the latency that users see.
        if len(keys) == 1 and class_id == DEFAULT_CLASS:
            digest = records[0][:DIGEST_SIZE]
            return Batch(class_id, (digest,), pack_task(digest, keys[0], records[0]))
        digests = tuple({record[:DIGEST_SIZE] for record in records})
        return Batch(class_id, digests, pack_tasks(class_id, digests, keys, list(map(len, records)), b"".join(records)))

    def finish(self, keys: Iterable[int]) -> None:
        """Tasks have their outcome: forget them. Keys not known are left out."""
        out, records, unsent, single = self._out, self.records, self.unsent, len(self._out) == 1
        for key in keys:
            record = records.pop(key, None)
            if record is None:
                continue
            if key in unsent:
                unsent.discard(key)
            else:
                # With one class, nearly always, no record need be read.
                out[DEFAULT_CLASS if single else class_of_record(record)] -= 1

    def withdraw(self, keys: Iterable[int]) -> list[int]:
        """Forget tasks that were not sent yet; return those."""
        found = [key for key in keys if key in self.unsent]
        for key in found:
            self.unsent.discard(key)
            del self.records[key]
        return found

    def sent(self) -> set[int]:
        """Return the keys that were sent and have no outcome."""
        return self.records.keys() - self.unsent

    def send_again(self, keys: Sequence[int]) -> None:
        """Put tasks that never arrived back in front, in their order."""
        # Keys grow with time: in reverse, each in front of the one before, they keep their order.
        for key in sorted(keys, reverse=True):
            record = self.records.get(key)
            if record is not None and key not in self.unsent:
                class_id = class_of_record(record)
                self._out[class_id] -= 1
                self.unsent.add(key)
                self._queues[class_id].appendleft(key)

    def digests_in_use(self) -> set[bytes]:
        """Return the digests of functions of tasks without outcome."""
        return {record[:DIGEST_SIZE] for record in list(self.records.values())}

    def clear(self) -> tuple[list[int], list[int]]:
        """Forget all tasks; return the keys never sent and those sent."""
        unsent, sent = sorted(self.unsent), sorted(self.sent())
        self.records.clear()
        self.unsent.clear()
        for class_id, queue in self._queues.items():
            queue.clear()
            self._out[class_id] = 0
        return unsent, sent


def class_of_record(record: bytes) -> int:
    """Return the class id in a task's record."""
    return int.from_bytes(record[_CLASS_AT : _CLASS_AT + 4], "little")


# Seconds without a sending after which a task counts as alone, and is sent by its own thread. By the time and not by
# free slots: that sent task by task on a large machine, at nine times the cost.
_QUIET_S = 0.0002
# Tasks that make a full batch, which the submitting thread sends at once: to wait for more saves nothing.
_FULL = 256

# Unlike os.eventfd_write this keeps the GIL, which the receiver would take at once: it would send what has gathered
# by then, and the submitting thread wait for it. So it wakes, and gets the GIL when the submitting thread waits.
_poke = ctypes.PyDLL(None).eventfd_write
_poke.argtypes = (ctypes.c_int, ctypes.c_uint64)


class SubmissionSender:
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
        self._last_sign = 0.0
        self._receiver = 0

    def connect(self, link: socket.socket, first: list[Buffer]) -> None:
        """Use a new link, beginning with the messages given. Receiver thread, or before it runs."""
        with self.lock:
            self._writer = LinkWriter(link)
            # The next interchange has neither blobs nor classes of the one before.
            self._sent_blobs.clear()
            self._sent_specs.clear()
            self._write(first)
            self._flush()

    def disconnect(self) -> None:
        """The link is gone: keep everything."""
        with self.lock:
            self._writer = None

    def serve(self, receiver: int) -> None:
        """Note which thread is the receiver: tasks submitted by its callbacks are sent after them, in one batch."""
        self._receiver = receiver

    @property
    def congested(self) -> bool:
        """Whether the link did not take all: the receiver then watches for room."""
        writer = self._writer
        return writer is not None and writer.pending > 0

    def submitted(self, class_id: int, waiting: int) -> None:
        """A task was added to its queue, in which so many wait: send it, or see to it that it is sent."""
        if self._signalled and 1 < waiting < _FULL:  # most of those that come fast
            return
        # Callbacks on the receiver thread may submit many: it flushes once when they have returned.
        if threading.get_ident() == self._receiver or self.queues.blocked(class_id):
            return
        if waiting >= _FULL or (waiting == 1 and self._alone()):
            self.flush()
        elif not self._signalled:
            self._signalled = True
            self.wake()

    def _alone(self) -> bool:
        """Return whether a task comes by itself: nothing was sent, and no other began to wait, for a while.

        Where each takes 60 us to be packed, those that are sent one by one cost all processes twice the CPU time.
        """
        now = time.monotonic()
        alone = now - self._last_sign > _QUIET_S
        self._last_sign = now
        return alone

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
        """Call a function under the lock, while no thread sends; it must not block."""
        with self.lock:
            work()

    def _flush(self) -> None:
        writer = self._writer
        if writer is None:
            return
        if writer.pending and not self._drain(writer):
            return
        # Until it is empty: a task that came meanwhile saw others waiting, and has not signalled.
        while self.queues.sendable and not writer.pending:
            messages: list[Buffer] = []
            for batch in self.queues.take():
                self._before(batch.class_id, batch.digests, messages)
                messages.append(batch.message)
            self._write(messages)
            self._last_sign = time.monotonic()

    def _before(self, class_id: int, digests: tuple[bytes, ...], messages: list[Buffer]) -> None:
        if class_id and class_id not in self._sent_specs:
            self._sent_specs.add(class_id)
            messages.append(pack_spec(class_id, self.queues.specs[class_id]))
        for digest in digests:
            if digest not in self._sent_blobs:
                self._sent_blobs.add(digest)
                # Ahead of the tasks, in the same write: so the interchange never has to ask for it.
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
            # Changed before it is closed: its number may be another file's a moment later, and a late wake-up would
            # write there.
            descriptor, self.wake_fd = self.wake_fd, -1
            os.close(descriptor)
