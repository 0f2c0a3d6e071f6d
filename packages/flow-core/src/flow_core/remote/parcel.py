"""One task as bytes, and its result as bytes: for pools and engines that carry data, without workers of ours."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flow_core.errors import DeserializationError, SerializationError
from flow_core.guard import name_of, one_line, pass_signal
from flow_core.interfaces.call import DEFAULT_SPEC, NodeContext, TaskSpec, TaskStep
from flow_core.remote.callables import pickled_simply
from flow_core.remote.errors import pack, unpack
from flow_core.remote.functions import needs_care, pack_function

if TYPE_CHECKING:
    from flow_core.interfaces.outcome import Usage
    from flow_core.remote.reports import Reporting


@dataclass(slots=True)
class TaskResult:
    """Result of a task: its value or its error, its times in ns UTC, the process it ran in, the key (0: not known)."""

    value: object
    error: BaseException | None
    started_ns: int
    ended_ns: int
    pid: int
    node: str = ""
    usage: Usage | None = None
    key: int = 0


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
        dumped((spec, tuple(steps), context), "its steps"),
        None if reporting is None else (reporting, context.key),
        this_process(),
        directory,
        context.key,
    )
    return pickle.dumps(parts, protocol=5)


def this_process() -> tuple[int, str]:
    """Return what tells this process from others."""
    # The process id alone may be that of another machine's process.
    return os.getpid(), os.uname().nodename


def failed_parcel(error: BaseException, started_ns: int = 0) -> bytes:
    """Return the result of a task that failed, for ``unpack_result``; ``started_ns`` is in ns UTC."""
    return packed_result(b"", pack(error), started_ns, None)


def packed_result(value: bytes, failure: bytes | None, started_ns: int, usage: Usage | None, key: int = 0) -> bytes:
    """Return a result for ``unpack_result``: a packed value, or an error as ``flow_core.remote.errors`` packs it."""
    node = os.uname().nodename
    return pickle.dumps((value, failure, started_ns, time.time_ns(), os.getpid(), node, usage, key), protocol=5)


def is_failed(result: bytes) -> bool:
    """Tell whether a packed result is that of a task that failed, without unpacking it."""
    return pickle.loads(result)[1] is not None


def unpack_result(data: bytes) -> TaskResult:
    """Return what came of a task. A value that cannot be unpickled here is a DeserializationError in ``error``.

    Raises:
        DeserializationError: the bytes are no whole result.
    """
    packed, packed_error, started_ns, ended_ns, pid, node, usage, key = loaded(data, "the result")
    value: object = None
    error = None if packed_error is None else unpack(packed_error)
    if error is None:
        try:
            value = loaded(packed, "the result")
        except DeserializationError as failure:
            error = failure
    return TaskResult(value, error, started_ns, ended_ns, pid, node, usage, key)


def unpack_packed(data: bytes) -> tuple[bytes, BaseException | None]:
    """Return the value of a packed result as it is packed, and the error of one that failed, which has no value."""
    packed, packed_error, *_ = loaded(data, "the result")
    return packed, None if packed_error is None else unpack(packed_error)


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


def dumped(value: object, what: str) -> bytes:
    """Pickle a part of a task, by value where it must be. Raises SerializationError, which names the part."""
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


def loaded(data: bytes, what: str) -> Any:
    """Unpickle a part of a task. Raises DeserializationError, which names the part."""
    try:
        return pickle.loads(data)
    except BaseException as error:
        pass_signal(error)
        raise DeserializationError(
            f"{what} of the task cannot be unpickled here ({one_line(error)}): are all its modules "
            "installed on this machine, in the same versions?"
        ) from error
