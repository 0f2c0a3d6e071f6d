"""The loop of a worker: one packet, one task, one result, written at once. Standard library and the leaf only."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from struct import Struct
from time import time_ns

from flow_core.errors import AppException, SerializationError
from flow_core.guard import is_a, name_of, shown, text_of
from flow_core.interfaces.call import DEFAULT_SPEC, NodeContext, TryKey
from flow_core.remote.errors import pack
from flow_core.remote.faults import point
from flow_core.remote.run import execute
from flow_core.remote.state import ProcessState
from flow_core.remote.usage import Used, process_used
from flow_executors.worker.frames import (
    APP_ERROR,
    FRAME,
    KEY,
    KEY_AT,
    LANE_ROOM,
    NEED,
    OK,
    PACKET,
    READY,
    is_direct,
)
from flow_executors.worker.unpack import Parcel, Unpacker

USAGE = 0x80
BUFFERS = 0x40
_RECEIPT_S = 600.0
_SMALL = frozenset((bool, int, float, str))
_USAGE_VALUES = 5
_USAGE = Struct("<ddQQQ").pack


class Settings:
    """What a worker is told about its surroundings; plain, so that it costs nothing to fork."""

    __slots__ = ("executor", "index_fd", "manager_pid", "max_result", "node", "rank", "usage", "working_dir")

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
    ) -> None:
        self.executor = executor
        self.node = node
        self.rank = rank
        self.manager_pid = manager_pid
        self.index_fd = index_fd
        self.working_dir = working_dir
        self.max_result = max_result
        self.usage = usage


class Worker:
    """One worker. Serves on the main thread of a process of its own. ``lane_fd`` is -1 where it has no lane."""

    def __init__(self, settings: Settings, task_fd: int, result_fd: int, lane_fd: int = -1) -> None:
        self._settings = settings
        self._task_fd = task_fd
        self._result_fd = result_fd
        self._lane_fd = lane_fd
        self._pid = os.getpid()
        self._in_task = False
        self._file = -1
        self._file_size = 0
        self._unpacker = Unpacker(settings.manager_pid, settings.index_fd, self._ask_for)

    def serve(self) -> None:
        """Run tasks until the manager closes its end, or until one has changed the process for good."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        state = ProcessState()
        self._send(self._result_fd, 0, 0, 0, READY, b"")
        read, task_fd = os.read, self._task_fd
        while packet := read(task_fd, PACKET):
            point("worker.before_run")
            started = time_ns()
            status, payload = self._run(packet)
            ended = time_ns()
            point("worker.after_run")
            try:
                spoilt = state.restore(ended - started)
            except BaseException:  # a timer of the task's fired before it was stopped
                spoilt = state.restore(ended - started)
            if spoilt:
                self._tell_spoilt(spoilt)
            way = self._way_of(packet, status, payload) if self._lane_fd >= 0 else self._result_fd
            self._send(way, KEY.unpack_from(packet, KEY_AT)[0], started, ended, status, payload)
            point("worker.result_written")
            if self._file >= 0:
                self._let_go()
            if spoilt:
                return  # the manager makes another worker

    def _tell_spoilt(self, spoilt: str) -> None:
        text = f"worker {self._settings.rank}: a task has changed what cannot be put back: {spoilt}. Replaced\n"
        try:
            os.write(2, text.encode())
        except OSError:
            pass  # that is what it has closed

    def _run(self, packet: bytes) -> tuple[int, bytes]:
        """Run the task in a packet; whatever it does, return a status and a payload."""
        before = process_used() if self._settings.usage else None
        try:
            parcel = self._unpacker.unpack(packet)
            status, payload = self._pack_value(self._call(parcel))
        except BaseException as error:
            self._in_task = False
            self._end_forked_child()
            status, payload = APP_ERROR, pack(_presentable(error))
        if before is not None:
            status, payload = status | USAGE, _usage_since(before) + payload
        return status, payload

    def _call(self, parcel: Parcel) -> object:
        self._in_task = True
        if not parcel.steps and parcel.spec is DEFAULT_SPEC:
            value = parcel.func(*parcel.args, **parcel.kwargs)
        else:
            value = self._execute(parcel)
        self._in_task = False
        if os.getpid() != self._pid:
            self._end_forked_child()
        return value

    def _execute(self, parcel: Parcel) -> object:
        settings, spec = self._settings, parcel.spec
        where = NodeContext(
            executor=settings.executor,
            node=settings.node,
            worker=settings.rank,
            key=TryKey(parcel.key),
            working_dir=settings.working_dir,
            walltime_s=spec.walltime_s,
            main_thread=True,
        )
        saved = {name: os.environ.get(name) for name, _ in parcel.variables}
        os.environ.update(parcel.variables)
        try:
            return execute(parcel.func, parcel.args, parcel.kwargs, spec, parcel.steps, where)
        finally:
            for name, value in saved.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def _pack_value(self, value: object) -> tuple[int, bytes]:
        if value is None:
            return OK, b""
        buffers: list[memoryview] = []
        payload = _dumps(value, None if type(value) in _SMALL else buffers)
        size = len(payload) + sum(buffer.nbytes for buffer in buffers)
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
        from flow_executors.wire.tasks import BufferRef, pack_buffers
        from flow_executors.worker.large import write_file

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
        from flow_executors.worker.large import await_receipt

        await_receipt(self._file, self._file_size, _RECEIPT_S)
        os.close(self._file)
        self._file = -1

    def _way_of(self, packet: bytes, status: int, payload: bytes) -> int:
        """Return where a result is to be written: to the manager, unless it is small and the script itself asked."""
        if is_direct(packet) and not status & BUFFERS and len(payload) <= LANE_ROOM:
            return self._lane_fd
        return self._result_fd

    def _send(self, way: int, key: int, started: int, ended: int, status: int, payload: bytes) -> None:
        """Write one frame; blocks while the pipe is full. The loop ends with the pipe's other end."""
        data = FRAME.pack(len(payload), key, started, ended, status) + payload
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

    def _on_interrupt(self, signum: int, frame: object) -> None:
        if self._in_task:
            raise KeyboardInterrupt


def _dumps(value: object, buffers: list[memoryview] | None) -> bytes:
    """Pickle a value; large buffers of it go into the list, if there is one."""
    on_buffer = None
    if buffers is not None:
        from flow_executors.worker.large import carried, collector

        value, on_buffer = carried(value), collector(buffers)
    try:
        data = pickle.dumps(value, 5, buffer_callback=on_buffer)
        if b"__main__" not in data:
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


def _presentable(error: BaseException) -> BaseException:
    """Turn what would end a whole process into an error of the app."""
    if is_a(error, Exception):
        return error
    if is_a(error, SystemExit):
        text = f"the app ended its process: sys.exit({shown(error.code)})"
    elif is_a(error, KeyboardInterrupt):
        text = "the app was interrupted (KeyboardInterrupt, or SIGINT sent to its worker)"
    else:
        text = f"the app raised {name_of(error)}: {text_of(error)}"
    presented = AppException(text)
    presented.__cause__ = error
    return presented


def _usage_since(before: Used) -> bytes:
    now = process_used()
    return _USAGE(now[0] - before[0], now[1] - before[1], now[2], now[3] - before[3], now[4] - before[4])
