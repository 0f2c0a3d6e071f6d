"""Running of tasks that came as bytes: in pools and engines that carry data, without workers of ours."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from flow_core.remote.errors import pack, presentable
from flow_core.remote.functions import load_function
from flow_core.remote.parcel import dumped, loaded, packed_result, this_process

if TYPE_CHECKING:
    from flow_core.interfaces.call import TellFiles, TryKey
    from flow_core.interfaces.outcome import Usage
    from flow_core.remote.reports import Reporting
    from flow_core.remote.state import ProcessState


def run_parcel(data: bytes, *, alone: bool = False) -> bytes:
    """Run the task of ``pack_task`` here and return its result for ``unpack_result``. Never raises.

    On the main thread of another process than the packer's, what it has changed of the process is put back after it.
    ``alone``: no other task runs in this process meanwhile, so that its directory and its environment are the task's
    also on another thread.
    """
    started_ns, value, failure, usage = time.time_ns(), b"", None, None
    pid, state, key = os.getpid(), None, 0
    try:
        *task, watched, packed_in, directory, key = loaded(data, "the frame")
        elsewhere = packed_in != this_process()
        apart = ""
        # In the script's own process, and on threads, the state belongs to others as well and is left alone.
        if elsewhere and threading.current_thread() is threading.main_thread():
            state = _state_before()
            _go_to(directory)
        elif elsewhere and alone:
            _go_to(directory)
        elif elsewhere and os.path.isdir(directory):
            apart = directory
        alone = alone and elsewhere
        if watched is None:
            value = dumped(_run(task, apart, alone=alone), "the result")
        elif watched[0].sampler is None:  # it only moves files
            value = dumped(_run(task, apart, _teller(*watched), alone=alone), "the result")
        else:
            value, failure, usage = _measured(task, apart, *watched, alone=alone)
    except BaseException as error:
        failure = pack(presentable(error))
    # A child that a task has forked and that came back would take tasks as one more worker, and the pool would never
    # end it.
    if os.getpid() != pid:
        _end_forked_child()
    if state is not None:
        _put_back(state, time.time_ns() - started_ns)
    return packed_result(value, failure, started_ns, usage, key)


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


def _measured(
    task: list[Any], directory: str, reporting: Reporting, key: TryKey, *, alone: bool
) -> tuple[bytes, bytes | None, Usage | None]:
    """Run a task that is watched; return its packed result or its packed error, and what it used."""
    from flow_core.remote.reports import Reported
    from flow_core.remote.usage import begin_thread, process_used, thread_used, usage_between

    on_main = threading.current_thread() is threading.main_thread()
    value, failure = b"", None
    before = process_used() if on_main else begin_thread()
    with Reported(reporting, key):
        try:
            value = dumped(_run(task, directory, _teller(reporting, key), alone=alone), "the result")
        except BaseException as error:
            failure = pack(error)
    if before is None:
        return value, failure, None
    return value, failure, usage_between(before, process_used() if on_main else thread_used())


def _teller(reporting: Reporting, key: TryKey) -> TellFiles:
    """Return what tells how far files are that the steps of a task move."""
    from flow_core.remote.reports import report_files

    return partial(report_files, reporting.directory, key)


def _run(task: list[Any], directory: str, tell: TellFiles | None = None, *, alone: bool = False) -> object:
    func, arguments, around = task
    from flow_core.remote.run import enter_worker, execute, leave_worker
    from flow_core.remote.worker_imports import import_for_worker

    import_for_worker()  # before the function: it may name a module that comes of them

    function, modules = load_function(func)
    args, kwargs = loaded(arguments, "the arguments")
    spec, steps, where = loaded(around, "the steps")
    on_main = alone or threading.current_thread() is threading.main_thread()
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
