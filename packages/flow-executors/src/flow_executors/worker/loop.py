"""The loop of a worker: one packet, one task, one result, written at once. Standard library and the leaf only."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from functools import partial
from struct import Struct
from time import time_ns

from flow_core.errors import Requeue, SerializationError
from flow_core.guard import name_of
from flow_core.interfaces.call import DEFAULT_SPEC, NodeContext, TryKey
from flow_core.remote.errors import pack, presentable
from flow_core.remote.faults import is_armed, point
from flow_core.remote.fetching import report_fetching
from flow_core.remote.functions import needs_care
from flow_core.remote.run import execute, with_variables
from flow_core.remote.state import LONG_NS, ProcessState
from flow_core.remote.usage import Used, process_used
from flow_executors.worker.packets import (
    APP_ERROR,
    BLOCK_ENDS,
    FRAME,
    KEY,
    KEY_AT,
    LANE_ROOM,
    LOST,
    NEED,
    NOTICES,
    OK,
    PACKET,
    READY,
    REQUEUED,
    TOLD,
    is_direct,
)
from flow_executors.worker.unpack import Unpacker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flow_core.interfaces.call import TaskSpec, TaskStep
    from flow_executors.worker.telling import FilesTeller

_forks = 0
"""How often a task's child has begun, made by os.fork: of most tasks that is asked, and getpid takes as long as all
else that is done for it beside reading and writing."""


def _note_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)

# A name of ``mpi.environment``, and flags of ``wire.results``, stated again: workers load nothing that they do not
# need for a plain task.
PLACEMENT = "FLOW_MPI_PLACEMENT"
USAGE = 0x80
BUFFERS = 0x40
UNLOADED = 0x20
UNIMPORTED = 0x10
# Seconds that the manager has to open a large result; the death of the manager ends this process.
_RECEIPT_S = 600.0
_SMALL = frozenset((bool, int, float, str))
_USAGE = Struct("<ddQQQ").pack


class WorkerSettings:
    """The settings of a worker; plain attributes, so that they cost nothing to fork."""

    __slots__ = ("executor", "files", "index_fd", "manager_pid", "max_result", "node", "rank", "usage", "working_dir")

    def __init__(
        self,
        executor: str,
        node: str,
        rank: int,
        manager_pid: int,
        index_fd: int,
        working_dir: str | None = None,
        max_result: int = 16 << 30,
        usage: bool = False,
        files: str = "",
    ) -> None:
        self.executor = executor
        self.files = files
        self.node = node
        self.rank = rank
        self.manager_pid = manager_pid
        self.index_fd = index_fd
        self.working_dir = working_dir
        self.max_result = max_result
        self.usage = usage


class Worker:
    """One worker. Serves on the main thread of its process. ``direct_fd`` is -1 where it has no direct channel."""

    def __init__(self, settings: WorkerSettings, task_fd: int, result_fd: int, direct_fd: int = -1) -> None:
        self._settings = settings
        self._task_fd = task_fd
        self._result_fd = result_fd
        self._direct_fd = direct_fd
        self._pid = os.getpid()
        self._forks = _forks
        self._tell: Callable[[], None] | None = None
        self._in_task = False
        self._teller: FilesTeller | None = None
        self._file = -1
        self._file_size = 0
        self._unpacker = Unpacker(settings.manager_pid, settings.index_fd, self._ask_for)
        report_fetching(self._unpacker.code)

    def serve(self) -> None:
        """Run tasks until the manager closes its end, or until one has changed the process for good."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(BLOCK_ENDS, self._on_block_end)
        for notice in NOTICES:
            signal.signal(notice, _go_on)
        state = ProcessState()
        self._send(self._result_fd, 0, 0, 0, READY, b"")
        read, task_fd, armed = os.read, self._task_fd, is_armed
        while packet := read(task_fd, PACKET):
            if armed:
                point("worker.before_run")
            key = KEY.unpack_from(packet, KEY_AT)[0]
            started = time_ns()
            status, payload = self._run(key, packet)
            ended = time_ns()
            if armed:
                point("worker.after_run")
            try:
                short = ended - started < LONG_NS
                spoilt = "" if short and state.seems_right() else state.restore(ended - started)
            except BaseException:  # a timer of the task's fired before it was stopped
                spoilt = state.restore(ended - started)
            if spoilt:
                self._report_spoilt(spoilt)
            way = self._way_of(packet, status, payload) if self._direct_fd >= 0 else self._result_fd
            self._send(way, key, started, ended, status, payload)
            if armed:
                point("worker.result_written")
            if self._file >= 0:
                self._let_go()
            if spoilt:
                return  # the manager makes another worker

    def _report_spoilt(self, spoilt: str) -> None:
        text = f"worker {self._settings.rank}: a task has changed what cannot be put back: {spoilt}. Replaced\n"
        try:
            os.write(2, text.encode())
        except OSError:
            pass  # that is what it has closed

    def _run(self, key: int, packet: bytes) -> tuple[int, bytes]:
        """Run the task in a packet; whatever it does, return a status and a payload."""
        before = process_used() if self._settings.usage else None
        begun = False
        try:
            func, (args, kwargs, steps), spec, variables = self._unpacker.unpack(packet)
            begun = self._in_task = True
            # The common case calls the function directly: no context, no staging, no walltime.
            if spec is DEFAULT_SPEC and not steps:
                value = func(*args, **kwargs)
            else:
                where = self._where(key, spec)
                if spec.warn_before_end_s is None:
                    call = partial(execute, func, args, kwargs, spec, steps, where)
                else:
                    call = partial(self._run_told, func, args, kwargs, spec, steps, where)
                if variables and variables[-1][0] == PLACEMENT:
                    from flow_executors.mpi.on_worker import run_on_ranks

                    value = run_on_ranks(call, dict(variables), spec, steps)
                else:
                    value = with_variables(call, variables) if variables else call()
                self._end_telling()
            self._in_task = False
            # A counter instead of getpid, which takes as long as all else that is done for a small task.
            if self._forks != _forks:
                self._end_forked_child()
            status, payload = (OK, b"") if value is None else self._pack_value(value)
        except BaseException as error:
            self._in_task = False
            self._end_telling()
            self._end_forked_child()
            requeued = issubclass(type(error), Requeue) and vars(error).get("told") is True
            status, payload = REQUEUED if requeued else APP_ERROR, pack(presentable(error))
            # Of ranks, not of this process. Asked of its class: what the user's own says of an attribute is its own.
            if (lost := vars(type(error)).get("packed_loss")) is not None:
                status, payload = LOST, lost(error)
            # For the script, which knows whether other nodes are better off.
            elif not begun:
                status |= UNLOADED
            elif type(error) is ModuleNotFoundError:
                status |= UNIMPORTED
        if before is not None:
            status, payload = status | USAGE, _usage_since(before) + payload
        return status, payload

    def _run_told(
        self,
        func: Callable[..., object],
        args: Sequence[object],
        kwargs: dict[str, object],
        spec: TaskSpec,
        steps: Sequence[TaskStep],
        where: NodeContext,
    ) -> object:
        """Run a task that is told of the end of its block, on the main thread."""
        from flow_core.remote.block_end import run_told, tell, with_callbacks_of

        # Some schedulers end a job by a SIGTERM to all of its processes: what saves its work must outlive that. Its
        # manager tells it. A handler, since commands would inherit that a signal is ignored.
        before = signal.signal(signal.SIGTERM, _go_on)
        self._tell = tell
        try:
            call = partial(execute, with_callbacks_of(func), args, kwargs, spec, steps, where)
            return run_told(call, partial(self._send, self._result_fd, where.key, 0, 0, TOLD, b""))
        finally:
            self._tell = None
            signal.signal(signal.SIGTERM, before)

    def _where(self, key: int, spec: TaskSpec) -> NodeContext:
        from flow_executors.worker.script_files import NodeFiles  # most tasks are without steps
        from flow_executors.worker.telling import FilesTeller

        settings = self._settings
        self._teller = teller = FilesTeller(self._result_fd, key)
        return NodeContext(
            executor=settings.executor,
            node=settings.node,
            worker=settings.rank,
            key=TryKey(key),
            working_dir=settings.working_dir,
            walltime_s=spec.walltime_s,
            main_thread=True,
            tell=teller.tell,
            script_files=NodeFiles(settings.files, key, settings.node) if settings.files else None,
        )

    def _end_telling(self) -> None:
        if self._teller is not None:
            self._teller.close()
            self._teller = None

    def _pack_value(self, value: object) -> tuple[int, bytes]:
        buffers: list[memoryview] = []
        payload = _dumps(value, None if type(value) in _SMALL else buffers)
        size = len(payload) + sum(buffer.nbytes for buffer in buffers)
        # Checked here: a result that is too large ends its own task, not the manager that would read it.
        if size > self._settings.max_result:
            raise SerializationError(
                f"the result of the task, of type {type(value).__name__}, has {size} bytes; at most "
                f"{self._settings.max_result} are sent (max_result_bytes): write it to a file and return a File"
            )
        if buffers:
            return self._ship(value, payload, buffers)
        return OK, payload

    def _ship(self, value: object, payload: bytes, buffers: list[memoryview]) -> tuple[int, bytes]:
        """Put the buffers of a result into a file of memory, which lives until the manager has opened it."""
        from flow_executors.common.large_results import write_file
        from flow_executors.wire.tasks import BufferRef, pack_buffers

        try:
            self._file, name, self._file_size = write_file(buffers)
        except OSError:  # no memory file to be had: in band
            return OK, _dumps(value, None)
        hint, at, refs = f"/proc/{self._pid}/fd/{self._file}", 0, []
        for buffer in buffers:
            refs.append(BufferRef(name, at, buffer.nbytes, hint))
            at += buffer.nbytes
        return OK | BUFFERS, pack_buffers(refs) + payload

    def _let_go(self) -> None:
        """Close the file of the last result once the manager has it; a manager that is dead ends this process."""
        from flow_executors.common.large_results import await_receipt

        await_receipt(self._file, self._file_size, _RECEIPT_S)
        os.close(self._file)
        self._file = -1

    def _way_of(self, packet: bytes, status: int, payload: bytes) -> int:
        """Return where a result is to be written: to the manager, unless it is small and the script itself asked."""
        if is_direct(packet) and not status & BUFFERS and len(payload) <= LANE_ROOM:
            return self._direct_fd
        return self._result_fd

    def _send(self, way: int, key: int, started: int, ended: int, status: int, payload: bytes) -> None:
        """Write one frame; blocks while the pipe is full. The loop ends with the pipe's other end."""
        data = FRAME.pack(len(payload), key, started, ended, status)
        if payload:
            data += payload
        # One write a result, at once: the manager batches what comes from all workers.
        count = os.write(way, data)
        if count < len(data):
            rest = memoryview(data)[count:]
            while rest:
                rest = rest[os.write(way, rest) :]

    def _ask_for(self, digest: bytes) -> None:
        self._send(self._result_fd, 0, 0, 0, NEED, digest)

    def _end_forked_child(self) -> None:
        """A task called os.fork and its child came back to here: it must not go on as a second worker."""
        if os.getpid() != self._pid:
            os.write(
                2, f"process {os.getpid()}, forked by a task with os.fork(), returned from the app: ended\n".encode()
            )
            sys.stdout.flush()
            os._exit(0)

    def _on_block_end(self, signum: int, frame: object) -> None:
        # A child that the task has forked is no worker; and the signal may come when the task has just ended.
        if self._tell is not None and os.getpid() == self._pid:
            self._tell()

    def _on_interrupt(self, signum: int, frame: object) -> None:
        if self._in_task:
            raise KeyboardInterrupt


def _go_on(signum: int, frame: object) -> None:
    """Do nothing at a signal."""


def _dumps(value: object, buffers: list[memoryview] | None) -> bytes:
    """Pickle a value; large buffers of it go into the list, if there is one."""
    on_buffer = None
    if buffers is not None:
        from flow_executors.common.large_results import carried, collector

        value, on_buffer = carried(value), collector(buffers)
    try:
        data = pickle.dumps(value, 5, buffer_callback=on_buffer)
        if not needs_care(data):
            return data
    except BaseException:  # whatever an object's __reduce__ raises
        pass
    from flow_core.remote import by_value

    if buffers is not None:
        buffers.clear()
    try:
        return by_value.dumps(value, on_buffer)
    except BaseException as error:
        from flow_core.remote.culprits import explained

        raise SerializationError(
            f"the result of the task, of type {name_of(value)}, cannot be pickled "
            f"({explained(value, error)}): return plain data, or write it to a file and return a File"
        ) from error


def _usage_since(before: Used) -> bytes:
    now = process_used()
    return _USAGE(now[0] - before[0], now[1] - before[1], now[2], now[3] - before[3], now[4] - before[4])
