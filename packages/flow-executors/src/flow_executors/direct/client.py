"""The client of a started LowLatencyExecutor: takes calls, hands each to a manager at once, reports outcomes."""

from __future__ import annotations

import itertools
import logging
import os
import platform
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace

from flow_core.errors import ExecutorBroken, ExecutorClosed, ExecutorError, SerializationError
from flow_core.interfaces.call import DEFAULT_SPEC, Call, TaskSpec, TryKey
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Place, TryListener, Verdict
from flow_executors.client.file_service import FileService
from flow_executors.client.interchange_process import InterchangeSettings
from flow_executors.client.managers import ManagerDirectory
from flow_executors.client.receiver import RESUME_AFTER_S, ReceiverCallbacks
from flow_executors.direct.in_process_interchange import InProcessInterchange
from flow_executors.direct.receiver import DirectReceiver
from flow_executors.serialize.script_code import ScriptCode
from flow_executors.serialize.task_records import Records
from flow_executors.wire.commands import Command, KeyChange, Reply, Whereabouts, pack_command
from flow_executors.wire.messages import DEFAULT_CLASS, Credit, PeerInfo, pack_cancel, pack_spec

# Seconds, for the interface alone: orders are carried out at once in this process.
_COMMAND_TIMEOUT_S = 10.0
_clients: weakref.WeakSet[DirectClient] = weakref.WeakSet()


class DirectClient:
    """The counterpart of all managers of one executor. Any thread."""

    def __init__(
        self,
        site: InterchangeSettings,
        listener: TryListener,
        hooks: ReceiverCallbacks,
        logger: logging.Logger,
        software: str,
        code: ScriptCode | None = None,
    ) -> None:
        self.directory = ManagerDirectory(site.label, site.directory)
        self._label = site.label
        self._listener = listener
        self._hooks = hooks
        self._records = Records(code)
        self._keys: dict[int, bytes] = {}  # of every task without outcome, the digest of its function
        self._classes: dict[TaskSpec, int] = {DEFAULT_SPEC: DEFAULT_CLASS}
        self._new_class = threading.Lock()
        self._numbers = itertools.count(1)
        self._error: ExecutorError | None = ExecutorClosed(f"the executor {site.label} is not started")
        who = PeerInfo("client", site.run_id, platform.python_version(), software, os.getpid())
        if site.marker is not None:
            who = replace(who, marker=site.marker.path, marker_digest=site.marker.digest)
        self._broken_at: float | None = None
        self._given_up: list[int] = []
        self._resuming = threading.Lock()
        self._site = site
        self._exchange = InProcessInterchange(site, who)
        self.files = FileService(
            lambda message: self._exchange.tell([message]),
            site.label,
            logger,
            site.max_transfer_bytes,
            self.directory.log_place,
            listener,
            self.directory.words,
        )
        self._receiver = DirectReceiver(
            self._exchange,
            self._keys,
            self.directory,
            listener,
            ReceiverCallbacks(hooks.joined, hooks.left, hooks.events, self._broke),
            logger,
            self._records.blob,
            self._ended,
            self.files,
        )

    # -- start and end

    def start(self) -> None:
        """Start the receiver thread."""
        self._error = None
        _clients.add(self)
        self._receiver.begin()

    def wait_ready(self, timeout_s: float) -> None:
        """Return at once: there is nothing between this process and its managers."""

    def close(self, timeout_s: float) -> list[str]:
        """Send the managers home; report everything that is left; return what was forced. Idempotent."""
        first = not isinstance(self._error, ExecutorClosed)
        self._error = ExecutorClosed(f"the executor {self._label} was shut down")
        _clients.discard(self)
        if not first:
            return []
        self._post(Verdict.RETURNED, self._exchange.withdraw(list(self._keys)))
        self._exchange.dismiss("the run is over")
        stopped = self._receiver.stop(timeout_s)
        self.files.close()
        self._report_rest()
        self._records.buffers.clear()
        if not stopped:
            return [f"the receiver thread of {self._label} did not end"]
        self._exchange.close()
        return []

    def _report_rest(self) -> None:
        outcomes = [*self._receiver.inbox]
        self._receiver.inbox.clear()
        outcomes += [Outcome(TryKey(key), Verdict.CANCELLED) for key in list(self._keys) if self._mine(key)]
        if outcomes:
            self._listener.finished(outcomes)

    def abandon_after_fork(self) -> None:
        """Close the parent's descriptors in a forked child of the script, without a message to any process."""
        self._error = ExecutorClosed(f"the executor {self._label} belongs to the process that this one was forked of")
        self._exchange.abandon_after_fork()
        self._site.close_local()

    # -- failure

    def _broke(self, error: ExecutorBroken) -> None:
        self._broken_at = time.monotonic()
        self._given_up = list(self._keys)
        self._fail(error, LossKind.EXECUTOR)
        self._hooks.broken(error)

    def fail(self, error: ExecutorBroken) -> None:
        """No block can be had now: what is out is lost, what waits is refused with the error; new calls are taken."""
        if self._error is None:
            self._fail(error, LossKind.BLOCK)

    def _fail(self, error: ExecutorBroken, kind: LossKind) -> None:
        if kind is not LossKind.BLOCK:
            self._error = error
        keys = list(self._keys)  # those that come meanwhile are of the next attempt
        self._post(Verdict.REFUSED, self._exchange.withdraw(keys), error)
        loss = Loss(kind, Place(self._label), reason=str(error))
        self._post(Verdict.LOST, keys, None, loss)

    def _post(
        self, verdict: Verdict, keys: Sequence[int], error: BaseException | None = None, loss: Loss | None = None
    ) -> None:
        """Let the receiver thread report those of the keys that no other thread reports."""
        place = loss.place if loss is not None else None
        mine = [Outcome(TryKey(key), verdict, None, error, loss, place) for key in keys if self._mine(key)]
        if mine:
            self._receiver.inbox.extend(mine)
            self._exchange.wake()

    def _mine(self, key: int) -> bool:
        """Take a key out; True for the one thread that gets it, which reports it."""
        if self._keys.pop(key, None) is None:
            return False
        self._ended(TryKey(key))
        return True

    def _ended(self, key: TryKey) -> None:
        self._receiver.cancelled.pop(key, None)
        self._records.buffers.release(key)
        if self.files.declared:
            self.files.forget((key,))
        if self._records.functions.full:
            self._records.functions.forget_others(set(self._keys.values()))

    # -- tasks

    def submit(self, key: TryKey, call: Call) -> None:
        """Take one try, and send it if a worker is free. Raises ExecutorClosed, ExecutorBroken."""
        self._check()
        class_id = self._class_of(call.spec)
        try:
            digest, record = self._records.pack(key, class_id, call)
        except SerializationError as error:
            self._keys[key] = b""
            self._post(Verdict.REFUSED, [key], error)
            return
        self._keys[key] = digest
        if call.steps:
            self.files.declare(key, call)
        self._exchange.submit(class_id, digest, key, record)
        if self._error is not None and self._exchange.withdraw([key]) and self._mine(key):
            raise self._error  # it ended meanwhile, and whoever ended it did not see this task

    def _check(self) -> None:
        if self._error is not None and not self._resumed():
            raise self._error.with_traceback(None)  # else it grows with each task

    def _resumed(self) -> bool:
        """Listen again after an internal error a while ago; False if it is not to be. What it had is ended first."""
        with self._resuming:
            if self._error is None:
                return True
            broken_at, closed = self._broken_at, isinstance(self._error, ExecutorClosed)
            if closed or broken_at is None or time.monotonic() - broken_at < RESUME_AFTER_S:
                return False
            if not self._receiver.resume():
                return False
            self._error = self._broken_at = None
            given_up, self._given_up = self._given_up, []
        if given_up:  # they were reported as lost, and may run again elsewhere
            self._exchange.tell([pack_cancel(given_up, True)])
        return True

    def _class_of(self, spec: TaskSpec) -> int:
        if spec is DEFAULT_SPEC:
            return DEFAULT_CLASS
        known = self._classes.get(spec)
        if known is not None:
            return known
        with self._new_class:
            class_id = self._classes.get(spec, len(self._classes))
            if spec not in self._classes:
                self._exchange.tell([pack_spec(class_id, spec)])
                self._classes[spec] = class_id
        return class_id

    def flush(self) -> None:
        """Nothing is ever kept back."""

    def cancel(self, keys: Sequence[TryKey], kill: bool) -> None:
        """Ask to cancel tries."""
        wanted = [key for key in keys if key in self._keys]
        if wanted:
            self._receiver.cancelled.update(dict.fromkeys(wanted, kill))
            self._exchange.tell([pack_cancel(wanted, kill)])

    def withdraw(self, key: TryKey) -> bool | None:
        """Cancel a try that has not begun; False if it has, None if it ends without, or nobody says in time."""
        if self._receiver.on_thread:  # it could not take the answer
            return None
        return self._receiver.withdrawals.ask(key, self._keys, lambda: self.cancel((key,), False))

    # -- managers and blocks

    def admit(self, public_key: bytes, block: str) -> None:
        """Let the managers of a block in."""
        self._exchange.change_keys(KeyChange(admit=((public_key.decode(), block),)))

    def revoke(self, block: str) -> None:
        """Keep the managers of a block out from now on."""
        self._exchange.change_keys(KeyChange(revoke=(block,)))

    def command(
        self,
        name: str,
        *,
        blocks: Sequence[str] = (),
        managers: Sequence[str] = (),
        idle_for_s: float | None = None,
        key: TryKey | None = None,
        timeout_s: float = _COMMAND_TIMEOUT_S,
    ) -> Reply:
        """Carry out an order about managers. Raises ExecutorError: it cannot be carried out."""
        if isinstance(self._error, ExecutorClosed):
            raise self._error
        command = Command(next(self._numbers), name, tuple(blocks), tuple(managers), idle_for_s, key)
        reply = self._exchange.command(command, timeout_s)
        if reply.error:
            raise ExecutorError(reply.error)
        return reply

    def hold_nodes(self, nodes: tuple[str, ...]) -> None:
        """Have these nodes, and no others, get no tasks."""
        if not isinstance(self._error, ExecutorClosed):
            # The answer goes to the receiver, which has no use for it.
            self._exchange.tell([pack_command(Command(next(self._numbers), "nodes", nodes=nodes))])

    def whereabouts(self, key: TryKey, timeout_s: float) -> Whereabouts:
        """Return where a task is; known in this process at once."""
        return self.command("why", key=key, timeout_s=timeout_s).whereabouts or Whereabouts()

    # -- what there is

    @property
    def credit(self) -> Credit:
        """Slots and managers that are connected."""
        return self._receiver.credit

    @property
    def outstanding(self) -> int:
        """Number of tasks that were submitted and have no outcome yet."""
        return len(self._keys)

    @property
    def unsent(self) -> int:
        """Tasks of these that no manager has."""
        return self._exchange.waiting

    def knows(self, key: TryKey) -> bool:
        """Whether a task has no outcome yet."""
        return key in self._keys

    def waits(self, key: TryKey) -> bool:
        """Whether a task is at no manager."""
        return self._exchange.waits(key)


def _forked() -> None:
    for client in list(_clients):
        client.abandon_after_fork()


os.register_at_fork(after_in_child=_forked)
