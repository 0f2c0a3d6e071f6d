"""One task as bytes, and its result as bytes: for pools and engines that carry data, without workers of ours."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from flow_core.errors import DeserializationError, SerializationError
from flow_core.guard import name_of, one_line, pass_signal
from flow_core.interfaces.call import DEFAULT_SPEC, NodeContext, TaskSpec, TaskStep
from flow_core.remote.callables import pickled_simply
from flow_core.remote.errors import pack, presentable, unpack
from flow_core.remote.functions import load_function, needs_care, pack_function

if TYPE_CHECKING:
    from flow_core.interfaces.call import TellFiles, TryKey
    from flow_core.interfaces.outcome import Usage
    from flow_core.remote.reports import Reporting
    from flow_core.remote.state import ProcessState


@dataclass(slots=True)
class TaskResult:
    """Result of a task: its value or its error, its times in ns UTC, and the process it ran in."""

    value: object
    error: BaseException | None
    started_ns: int
    ended_ns: int
    pid: int
    node: str = ""
    usage: Usage | None = None


def pack_task(
    func: Callable[..., object],
    args: Sequence[object] = (),
    kwargs: dict[str, object] | None = None,
    spec: TaskSpec = DEFAULT_SPEC,
    steps: Sequence[TaskStep] = (),
    where: NodeContext | None = None,
    reporting: Reporting | None = None,
    blob: bytes | None = None,
    directory: str = "",
) -> bytes:
    """Return a task as bytes for ``run_parcel``. The function goes by name where it can, else by value.

    With ``blob``, the function as ``flow_core.remote.functions`` packed it, that is what travels. With ``reporting``
    it tells how far files are that its steps move, and where there is a sampler its use of resources is measured, and
    sampled where it runs; ``where`` has its key. ``directory`` is the current one of the task, and of its commands,
    where it is there and the task has the main thread of its process; on other threads of its commands alone.

    Raises:
        SerializationError: something cannot be pickled; the message names it.
    """
    name = getattr(func, "__qualname__", repr(func))
    context = where or NodeContext()
    # Packed one by one, so that an error names the part that cannot be packed, or unpacked.
    parts = (
        blob or pack_function(func),
        _pack_arguments(name, tuple(args), dict(kwargs or {})),
        _dumps((spec, tuple(steps), context), "its steps"),
        None if reporting is None else (reporting, context.key),
        _this_process(),
        directory,
    )
    return pickle.dumps(parts, protocol=5)


def run_parcel(data: bytes) -> bytes:
    """Run the task of ``pack_task`` here and return its result for ``unpack_result``. Never raises.

    On the main thread of another process than the packer's, what it has changed of the process is put back after it.
    """
    started_ns, value, failure, usage = time.time_ns(), b"", None, None
    pid, state = os.getpid(), None
    try:
        *task, watched, packed_in, directory = _loads(data, "the frame")
        elsewhere = packed_in != _this_process()
        apart = ""
        # In the script's own process, and on threads, the state belongs to others as well and is left alone.
        if elsewhere and threading.current_thread() is threading.main_thread():
            state = _state_before()
            _go_to(directory)
        elif elsewhere and os.path.isdir(directory):
            apart = directory
        if watched is None:
            value = _dumps(_run(task, apart), "the result")
        elif watched[0].sampler is None:  # it only moves files
            value = _dumps(_run(task, apart, _teller(*watched)), "the result")
        else:
            value, failure, usage = _measured(task, apart, *watched)
    except BaseException as error:
        failure = pack(presentable(error))
    # A child that a task has forked and that came back would take tasks as one more worker, and the pool would never
    # end it.
    if os.getpid() != pid:
        _end_forked_child()
    if state is not None:
        _put_back(state, time.time_ns() - started_ns)
    return _packed(value, failure, started_ns, usage)


def _end_forked_child() -> NoReturn:
    """End a child that a task has forked and that came back from it: it would go on as one more worker of the pool."""
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(0)


_states: dict[int, ProcessState] = {}  # by process: a forked child has to make its own


def _state_before() -> ProcessState:
    """Return the state of this process as it is now; others than tasks may have changed it since the last one."""
    from flow_core.remote.state import ProcessState

    state = _states.get(os.getpid())
    if state is None:
        _states.clear()
        state = _states[os.getpid()] = ProcessState()
    else:
        state.take_changes()
    return state


def _go_to(directory: str) -> None:
    """Make the script's directory the current one, where it is; elsewhere relative paths mean the worker's own."""
    if directory:
        with suppress(OSError):
            os.chdir(directory)


def _put_back(state: ProcessState, took_ns: int) -> None:
    for _ in range(2):  # a timer of the task's may fire before it is stopped
        try:
            state.restore(took_ns)
            return
        except BaseException:
            continue


def _this_process() -> tuple[int, str]:
    # The process id alone may be that of another machine's process.
    return os.getpid(), os.uname().nodename


def failed_parcel(error: BaseException, started_ns: int = 0) -> bytes:
    """Return the result of a task that failed, for ``unpack_result``; ``started_ns`` is in ns UTC."""
    return _packed(b"", pack(error), started_ns, None)


def _packed(value: bytes, failure: bytes | None, started_ns: int, usage: Usage | None) -> bytes:
    node = os.uname().nodename
    return pickle.dumps((value, failure, started_ns, time.time_ns(), os.getpid(), node, usage), protocol=5)


def is_failed(result: bytes) -> bool:
    """Tell whether a packed result is that of a task that failed, without unpacking it."""
    return pickle.loads(result)[1] is not None


def unpack_result(data: bytes) -> TaskResult:
    """Return what came of a task. A value that cannot be unpickled here is a DeserializationError in ``error``.

    Raises:
        DeserializationError: the bytes are no whole result.
    """
    packed, packed_error, started_ns, ended_ns, pid, node, usage = _loads(data, "the result")
    value: object = None
    error = None if packed_error is None else unpack(packed_error)
    if error is None:
        try:
            value = _loads(packed, "the result")
        except DeserializationError as failure:
            error = failure
    return TaskResult(value, error, started_ns, ended_ns, pid, node, usage)


def _measured(
    task: list[Any], directory: str, reporting: Reporting, key: TryKey
) -> tuple[bytes, bytes | None, Usage | None]:
    """Run a task that is watched; return its packed result or its packed error, and what it used."""
    from flow_core.remote.reports import Reported
    from flow_core.remote.usage import begin_thread, process_used, thread_used, usage_between

    on_main = threading.current_thread() is threading.main_thread()
    value, failure = b"", None
    before = process_used() if on_main else begin_thread()
    with Reported(reporting, key):
        try:
            value = _dumps(_run(task, directory, _teller(reporting, key)), "the result")
        except BaseException as error:
            failure = pack(error)
    if before is None:
        return value, failure, None
    return value, failure, usage_between(before, process_used() if on_main else thread_used())


def _teller(reporting: Reporting, key: TryKey) -> TellFiles:
    """Return what tells how far files are that the steps of a task move."""
    from flow_core.remote.reports import report_files

    return partial(report_files, reporting.directory, key)


def _run(task: list[Any], directory: str, tell: TellFiles | None = None) -> object:
    func, arguments, around = task
    from flow_core.remote.run import enter_worker, execute, leave_worker

    function, modules = load_function(func)
    args, kwargs = _loads(arguments, "the arguments")
    spec, steps, where = _loads(around, "the steps")
    on_main = threading.current_thread() is threading.main_thread()
    # After the arguments are unpickled, which may import the modules that are to be prepared.
    if modules is not None:
        modules.prepare()
    enter_worker()
    try:
        return execute(
            function, args, kwargs, spec, steps, replace(where, main_thread=on_main, directory=directory, tell=tell)
        )
    finally:
        leave_worker()


def _pack_arguments(name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> bytes:
    try:
        return _dumped_arguments((args, kwargs), f"the arguments of {name}")
    except SerializationError as error:
        failure = error
    # Only after a failure: each argument by itself, to name the one that is to blame.
    for where, value in [*((str(number), value) for number, value in enumerate(args, 1)), *kwargs.items()]:
        try:
            _dumped_arguments(value, f"argument {where} ({name_of(value)}) of {name}")
        except SerializationError as error:
            failure = error
            break
    raise SerializationError(
        f"{failure}. Pass plain data, or write it to a file and pass a File"
    ) from failure.__cause__


def _dumped_arguments(value: object, what: str) -> bytes:
    data = pickled_simply(value)
    if data is not None:
        return data
    from flow_core.remote.bringing import pickled_with_code

    return _naming_what_fails(pickled_with_code, value, what)


def _dumps(value: object, what: str) -> bytes:
    try:
        data = pickle.dumps(value, protocol=5)
        if not needs_care(data):
            return data
    except BaseException as error:  # whatever an object's __reduce__ raises
        pass_signal(error)
        data = b""
    from flow_core.remote import by_value

    return _naming_what_fails(by_value.dumps, value, what)


def _naming_what_fails(dumps: Callable[[object], bytes], value: object, what: str) -> bytes:
    """Pickle a value; an error says what in it cannot be. Raises SerializationError."""
    try:
        return dumps(value)
    except BaseException as error:
        pass_signal(error)
        from flow_core.remote.culprits import explained

        raise SerializationError(f"{what} cannot be pickled: {explained(value, error)}") from error


def _loads(data: bytes, what: str) -> Any:
    try:
        return pickle.loads(data)
    except BaseException as error:
        pass_signal(error)
        raise DeserializationError(
            f"{what} of the task cannot be unpickled here ({one_line(error)}): are all its modules "
            "installed on this machine, in the same versions?"
        ) from error
