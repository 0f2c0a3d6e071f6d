"""The client of one started executor: takes calls, hands them to the interchange, reports their outcomes."""

from __future__ import annotations

import itertools
import logging
import os
import platform
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace

from zmq.utils import z85

from flow_core.errors import ExecutorBroken, ExecutorClosed, ExecutorError, SerializationError
from flow_core.interfaces.call import DEFAULT_SPEC, Call, TryKey
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Place, TryListener, Verdict
from flow_executors.client.file_service import FileService
from flow_executors.client.interchange_process import InterchangeProcess, InterchangeSettings
from flow_executors.client.interface import Counters
from flow_executors.client.managers import ManagerDirectory
from flow_executors.client.receiver import RESUME_AFTER_S, Receiver, ReceiverCallbacks
from flow_executors.client.submission import SubmissionSender, TaskQueues
from flow_executors.common.unix_socket_server import UnixSocketServer
from flow_executors.serialize.script_code import ScriptCode
from flow_executors.serialize.task_records import Records
from flow_executors.wire.commands import Command, KeyChange, Reply, Whereabouts, pack_command, pack_keys
from flow_executors.wire.messages import DEFAULT_CLASS, Credit, ExitCode, PeerInfo, pack_cancel, pack_exit
from flow_executors.wire.transport import address_of, listen_locally

# Seconds that the interchange has to answer an order: it answers within a turn, so longer means that it hangs.
_COMMAND_TIMEOUT_S = 10.0
# Managers that may send single results directly: each costs a descriptor of the script.
_MOST_TELL = 64
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """One client, one interchange at a time. Any thread, unless a method states another."""

    def __init__(
        self,
        site: InterchangeSettings,
        listener: TryListener,
        hooks: ReceiverCallbacks,
        logger: logging.Logger,
        software: str,
        code: ScriptCode | None = None,
    ) -> None:
        self.records = Records(code)
        self.queues = TaskQueues()
        self.directory = ManagerDirectory(site.label, site.directory)
        self._site = site
        self._listener = listener
        self._admitted: dict[bytes, str] = {}  # blocks by their public key
        entrance = _entrance() if site.local is not None else None
        self._results = address_of(entrance) if entrance is not None else ""
        self._local_server = UnixSocketServer(
            entrance.detach() if entrance is not None else -1, self._admitted, _MOST_TELL
        )
        self._handoff = SubmissionSender(self.queues, self.records.functions)
        # Replies are found by number: an answer that comes after its deadline must not be taken for another's.
        self._numbers = itertools.count(1)
        self.files = FileService(
            self._handoff.send,
            site.label,
            logger,
            site.max_transfer_bytes,
            self.directory.log_place,
            listener,
            self.directory.words,
        )
        self._error: ExecutorError | None = ExecutorClosed(f"the executor {site.label} is not started")
        self._owner = hooks
        self._broken_at: float | None = None
        # Many threads may submit at once to a broken executor: one makes the fresh attempt, the others wait for it.
        self._resuming = threading.Lock()
        self._receiver = Receiver(
            self._handoff,
            self.directory,
            listener,
            ReceiverCallbacks(hooks.joined, hooks.left, hooks.events, self._broke),
            self._incarnate,
            PeerInfo("client", site.run_id, platform.python_version(), software, os.getpid()),
            site.heartbeat_threshold_s,
            site.patience_s,
            logger,
            self.records.blob,
            self.records.buffers,
            self._local_server,
            self.files,
        )

    # -- start and end

    def start(self) -> None:
        """Start the interchange and the receiver thread. Raises ExecutorError."""
        self._error = None
        # Before the first interchange: a fork from here on must close its descriptors in the child.
        _clients.add(self)
        try:
            self._receiver.begin()
        except ExecutorError as error:
            self._error = ExecutorClosed(str(error))
            self._handoff.close()
            self._local_server.close()
            raise

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the interchange has introduced itself.

        Raises:
            ExecutorError: it did not within the time; the message has the end of its standard error.
        """
        deadline = time.monotonic() + timeout_s
        # In steps of 0.2 s, so that an executor that breaks meanwhile is noticed.
        while not self._receiver.ready.wait(min(0.2, max(0.0, deadline - time.monotonic()))):
            if self._error is not None:
                raise self._error
            if time.monotonic() >= deadline:
                incarnation = self._receiver.incarnation
                tail = incarnation.tail() if incarnation else ""
                raise ExecutorError(
                    f"the interchange of {self._site.label} did not answer within {timeout_s:g} s; see "
                    f"{self._site.directory}/interchange.log{': ' + tail if tail else ''}"
                )

    def _incarnate(self, number: int) -> InterchangeProcess:
        admitted = [(z85.encode(key).decode(), block) for key, block in [*self._admitted.items()]]
        return InterchangeProcess(self._site, number, admitted, self._results)

    def close(self, timeout_s: float) -> list[str]:
        """End the interchange; report everything that is left; return what was forced. Idempotent."""
        label = self._site.label
        first = not isinstance(self._error, ExecutorClosed)
        self._error = ExecutorClosed(f"the executor {label} was shut down")
        if not first:
            return []
        deadline = time.monotonic() + timeout_s
        forced = []
        self._withdraw_all()
        # Before EXIT is sent: else the receiver would take the end of the link for a death and start another one.
        self._receiver.stop_expected()
        incarnation = self._receiver.incarnation
        self._handoff.send(pack_exit(ExitCode.DONE))
        if incarnation is not None and incarnation.end(max(0.1, deadline - time.monotonic())):
            forced.append(f"the interchange of {label} was killed")
        stopped = self._receiver.stop(max(1.0, deadline - time.monotonic()))
        if not stopped and (late := self._receiver.incarnation) not in (None, incarnation):
            late.end(0.0)  # it was started while this was called
            stopped = self._receiver.stop(1.0)
        if not stopped:
            forced.append(f"the receiver thread of {label} did not end")
        self.files.close()
        self._report_rest()
        self._handoff.close()
        self._local_server.close()
        self.records.buffers.clear()
        return forced

    def _withdraw_all(self) -> None:
        """Report what was never sent as returned, before anything else is lost."""
        with self._handoff.lock:
            keys = self.queues.withdraw(sorted(self.queues.unsent))
        self._post([Outcome(TryKey(key), Verdict.RETURNED) for key in keys])

    def _report_rest(self) -> None:
        with self._handoff.lock:
            unsent, sent = self.queues.clear()
        outcomes = [*self._receiver.inbox]
        self._receiver.inbox.clear()
        outcomes += [Outcome(TryKey(key), Verdict.RETURNED) for key in unsent]
        outcomes += [Outcome(TryKey(key), Verdict.CANCELLED) for key in sent]
        if outcomes:
            self._listener.finished(outcomes)

    def abandon_after_fork(self) -> None:
        """Close the parent's descriptors in a forked child of the script, without a message to any process."""
        self._error = ExecutorClosed(
            f"the executor {self._site.label} belongs to the process that this one was forked of"
        )
        incarnation = self._receiver.incarnation
        if incarnation is not None:
            incarnation.close()
        self._local_server.close()
        self._site.close()

    # -- failure

    def _broke(self, error: ExecutorBroken) -> None:
        """The interchange cannot be kept running. Receiver thread."""
        self._broken_at = time.monotonic()
        self._fail(error, LossKind.INTERCHANGE)
        self._owner.broken(error)

    def fail(self, error: ExecutorBroken) -> None:
        """No block can be had now: what is out is lost, what waits is refused with the error; new calls are taken."""
        if self._error is None:
            self._fail(error, LossKind.BLOCK)

    def _fail(self, error: ExecutorBroken, kind: LossKind) -> None:
        # Without blocks the interchange is well: new tasks are taken, and wait for a fresh attempt.
        if kind is not LossKind.BLOCK:
            self._error = error
        with self._handoff.lock:
            unsent, sent = self.queues.clear()
        if sent and kind is LossKind.BLOCK:
            self._handoff.send(pack_cancel(sent, True))  # the interchange has them: the next block must not run them
        self.records.buffers.clear()
        self.files.forget([*unsent, *sent] if self.files.declared else ())
        loss = Loss(kind, Place(self._site.label), reason=str(error))
        # With no manager connected the interchange had nobody to give them to: none can have started.
        never = sent if not self.directory.managers and kind is LossKind.BLOCK else []
        outcomes = [Outcome(TryKey(key), Verdict.REFUSED, None, error) for key in [*unsent, *never]]
        outcomes += [Outcome(TryKey(key), Verdict.LOST, None, None, loss, loss.place) for key in sent if not never]
        if self._receiver.on_thread:
            if outcomes:
                self._listener.finished(outcomes)
        else:
            self._post(outcomes)

    def _post(self, outcomes: Sequence[Outcome]) -> None:
        """Let the receiver thread report."""
        if outcomes:
            self._receiver.inbox.extend(outcomes)
            self._handoff.wake()

    # -- tasks

    def submit(self, key: TryKey, call: Call) -> None:
        """Take one try. Raises ExecutorClosed, ExecutorBroken."""
        if self._error is not None:
            self._check()
        queues = self.queues
        class_id = DEFAULT_CLASS if call.spec is DEFAULT_SPEC else queues.class_of(call.spec)
        # Only the first task of a spec takes the lock: all others are found without it.
        if class_id is None:
            with self._handoff.lock:
                class_id = queues.new_class(call.spec)
        try:
            _, record = self.records.pack(key, class_id, call)
        except SerializationError as error:
            self._post([Outcome(key, Verdict.REFUSED, None, error)])
            return
        if call.steps:
            self.files.declare(key, call)
        # No lock: deque, set and dict take one item at a time under the interpreter's own.
        waiting = queues.add(class_id, key, record)
        if self._error is not None:
            self._too_late(key)
        self._handoff.submitted(class_id, waiting)

    def _check(self) -> None:
        if self._error is not None and not self._resumed():
            raise self._error.with_traceback(None)  # else it grows with each task

    def _resumed(self) -> bool:
        """Make a fresh attempt with an executor whose interchange broke a while ago; False if it is not to be."""
        with self._resuming:
            if self._error is None:
                return True
            broken_at, closed = self._broken_at, isinstance(self._error, ExecutorClosed)
            if closed or broken_at is None or time.monotonic() - broken_at < RESUME_AFTER_S:
                return False
            error, self._error = self._error, None
            if not self._receiver.resume():
                self._error = error
                return False
            self._broken_at = None
            return True

    def _too_late(self, key: TryKey) -> None:
        """The executor ended while a task came in: take it back, unless it was reported with all others."""
        with self._handoff.lock:
            mine = self.queues.withdraw([key])
        if mine and self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Send what is buffered."""
        self._handoff.flush()

    def cancel(self, keys: Sequence[TryKey], kill: bool) -> None:
        """Ask to cancel tries; what was not sent is cancelled at once."""
        with self._handoff.lock:
            withdrawn = self.queues.withdraw(keys)
            # Their buffers are not named in any message: they can go now.
            for key in withdrawn:
                self.records.buffers.release(key)
            self.files.forget(withdrawn)
            sent = [key for key in keys if key in self.queues.records]
            # Kept until their outcome: a manager that comes back to the next interchange is told again.
            self._receiver.cancelled.update(dict.fromkeys(sent, kill))
        self._post([Outcome(TryKey(key), Verdict.CANCELLED) for key in withdrawn])
        if sent:
            self._handoff.send(pack_cancel(sent, kill))

    def withdraw(self, key: TryKey) -> bool | None:
        """Cancel a try that has not begun; False if it has, None if it ends without, or nobody says in time."""
        if self._receiver.on_thread:  # it could not take the answer
            return None
        return self._receiver.withdrawals.ask(key, self.queues.records, lambda: self.cancel((key,), False))

    # -- managers and blocks

    def admit(self, public_key: bytes, block: str) -> None:
        """Let the managers of a block in."""
        self._change_keys(KeyChange(admit=((public_key.decode(), block),)))

    def revoke(self, block: str) -> None:
        """Keep the managers of a block out from now on."""
        self._change_keys(KeyChange(revoke=(block,)))

    def _change_keys(self, change: KeyChange) -> None:
        # Here as well as at the interchange: its successor starts with this table.
        change.apply(self._admitted)
        self._handoff.send(pack_keys(change))

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
        """Give the interchange an order and wait for its answer. Not on the receiver thread.

        Raises:
            ExecutorError: no answer within the time.
        """
        done = threading.Event()
        answers: list[Reply] = []

        def answered(reply: Reply) -> None:
            answers.append(reply)
            done.set()

        command = Command(next(self._numbers), name, tuple(blocks), tuple(managers), idle_for_s, key)
        # Before it is sent: the answer may be there first.
        self._receiver.replies[command.number] = answered
        sent = self._handoff.send(pack_command(command))
        if not (sent and done.wait(timeout_s)):
            self._receiver.replies.pop(command.number, None)
            raise ExecutorError(f"the interchange of {self._site.label} did not answer {name!r} in {timeout_s:g} s")
        if answers[0].error:
            raise ExecutorError(answers[0].error)
        return answers[0]

    def hold_nodes(self, nodes: tuple[str, ...]) -> None:
        """Have these nodes, and no others, get no tasks."""
        self._receiver.barred = nodes
        self._handoff.send(pack_command(Command(next(self._numbers), "nodes", nodes=nodes)))

    def whereabouts(self, key: TryKey, timeout_s: float) -> Whereabouts:
        """Return where a task is, asking the interchange if it has the task. Raises ExecutorError: no answer.

        Not on the receiver thread.
        """
        if self.waits(key):
            waiting, credit = list(self.queues.unsent), self.credit
            ahead = sum(one < key for one in waiting)
            return Whereabouts("script", ahead, managers=credit.managers, slots=credit.slots)
        # The receiver thread would wait for an answer that only it can read.
        if timeout_s <= 0 or self._receiver.on_thread:
            return Whereabouts("sent", managers=self.credit.managers, slots=self.credit.slots)
        return self.command("why", key=key, timeout_s=timeout_s).whereabouts or Whereabouts("sent")

    # -- what there is

    @property
    def credit(self) -> Credit:
        """Slots and managers that are connected."""
        return self._receiver.credit

    @property
    def counters(self) -> Counters:
        """What passed between here and the interchange so far."""
        return replace(self._handoff.counters)

    @property
    def outstanding(self) -> int:
        """Number of tasks that were submitted and have no outcome yet."""
        return len(self.queues.records)

    @property
    def unsent(self) -> int:
        """Tasks of these that were not sent."""
        return len(self.queues.unsent)

    def knows(self, key: TryKey) -> bool:
        """Whether a task has no outcome yet."""
        return key in self.queues.records

    def waits(self, key: TryKey) -> bool:
        """Whether a task was not sent."""
        return key in self.queues.unsent

    @property
    def incarnation(self) -> InterchangeProcess | None:
        """The interchange that runs now."""
        return self._receiver.incarnation

    @property
    def error(self) -> ExecutorError | None:
        """Why nothing can be submitted; None while all is well."""
        return self._error


def _entrance() -> socket.socket | None:
    try:
        return listen_locally()
    except OSError:  # no more descriptors: then all results come by the interchange
        return None


def _forked() -> None:
    for client in list(_clients):
        client.abandon_after_fork()


os.register_at_fork(after_in_child=_forked)
