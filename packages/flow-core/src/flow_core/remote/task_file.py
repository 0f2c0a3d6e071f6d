"""One task as a file, and its result as another: for engines that start a command a task, without workers of ours."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flow_core.errors import DeserializationError, SerializationError
from flow_core.interfaces.call import DEFAULT_SPEC, NodeContext, TaskSpec, TaskStep
from flow_core.remote.errors import pack, unpack
from flow_core.remote.refs import reference, resolve

_TASK = b"FLOWTASK1\n"
_RESULT = b"FLOWRSLT1\n"


@dataclass(slots=True)
class TaskResult:
    """What came of a task: its value or its error, and its times in ns UTC."""

    value: object
    error: BaseException | None
    started_ns: int
    ended_ns: int


def write_task(
    path: str,
    func: Callable[..., object],
    args: Sequence[object] = (),
    kwargs: dict[str, object] | None = None,
    spec: TaskSpec = DEFAULT_SPEC,
    steps: Sequence[TaskStep] = (),
    where: NodeContext | None = None,
) -> None:
    """Write a task for ``python -m flow_core.remote run``. The function goes by name where it can, else by value.

    Raises:
        SerializationError: something cannot be pickled; the message names it.
        OSError: the file cannot be written.
    """
    ref = reference(func)
    parts = {
        "func": ref if ref is not None else _dumps(func, f"the function {getattr(func, '__qualname__', func)!r}"),
        "args": _dumps(tuple(args), "its arguments"),
        "kwargs": _dumps(dict(kwargs or {}), "its keyword arguments"),
        "around": _dumps((spec, tuple(steps), where or NodeContext()), "its steps"),
    }
    _write(path, _TASK + pickle.dumps(parts, protocol=5))


def read_result(path: str) -> TaskResult:
    """Read what ``run_file`` wrote.

    Raises:
        OSError: there is no such file (yet).
        DeserializationError: it is not a result, or its value cannot be unpickled here.
    """
    with open(path, "rb") as stream:
        data = stream.read()
    parts = _loads(data, _RESULT, path)
    error = parts["error"]
    value = None if error is not None else _unpickled(parts["value"], "the result")
    return TaskResult(value, None if error is None else unpack(error), parts["started_ns"], parts["ended_ns"])


def run_file(task_path: str, result_path: str) -> bool:
    """Run the task of one file and write its result to another, whole or not at all.

    Must be called on the main thread of a process of its own. The exception of a task is its result.

    Returns:
        Whether the task ended without an exception.

    Raises:
        OSError: a file cannot be read or written.
    """
    import time

    started_ns = time.time_ns()
    value, error = b"", None
    try:
        value = _dumps(_run(task_path), "the result")
    except BaseException as raised:
        error = pack(raised)
    parts = {"value": value, "error": error, "started_ns": started_ns, "ended_ns": time.time_ns()}
    _write(result_path, _RESULT + pickle.dumps(parts, protocol=5))
    return error is None


def _run(task_path: str) -> object:
    from flow_core.remote.run import execute

    with open(task_path, "rb") as stream:
        parts = _loads(stream.read(), _TASK, task_path)
    func = parts["func"]
    function = resolve(func) if isinstance(func, str) else _unpickled(func, "the function")
    args, kwargs = _unpickled(parts["args"], "the arguments"), _unpickled(parts["kwargs"], "the keyword arguments")
    spec, steps, where = _unpickled(parts["around"], "the steps")
    return execute(function, args, kwargs, spec, steps, replace(where, main_thread=True))


def _dumps(value: object, what: str) -> bytes:
    try:
        data = pickle.dumps(value, protocol=5)
        if b"__main__" not in data:
            return data
    except Exception:
        pass
    import cloudpickle

    try:
        by_value: bytes = cloudpickle.dumps(value, protocol=5)
    except Exception as error:
        raise SerializationError(f"{what} cannot be pickled: {error}") from error
    return by_value


def _unpickled(data: bytes, what: str) -> Any:
    try:
        return pickle.loads(data)
    except Exception as error:
        raise DeserializationError(
            f"{what} of the task cannot be unpickled here ({type(error).__name__}: {error}): are all its modules "
            "installed on this machine, in the same versions?"
        ) from error


def _loads(data: bytes, magic: bytes, path: str) -> dict[str, Any]:
    if not data.startswith(magic):
        raise DeserializationError(f"{path} was not written by this version of Flow")
    parts: dict[str, Any] = _unpickled(data[len(magic) :], "the frame")
    return parts


def _write(path: str, data: bytes) -> None:
    unfinished = f"{path}.{os.getpid()}.part"
    with open(unfinished, "wb") as stream:
        stream.write(data)
    os.replace(unfinished, path)
