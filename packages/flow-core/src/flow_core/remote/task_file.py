"""Files of one task and of its result: for engines that start one command for each task, without workers of ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from flow_core.errors import DeserializationError
from flow_core.interfaces.call import DEFAULT_SPEC, NodeContext, TaskSpec, TaskStep
from flow_core.remote.parcel import TaskResult, failed_parcel, is_failed, pack_task, unpack_result
from flow_core.remote.parcel_run import run_parcel

# The digit is the version of the format: files of another version are refused by name.
_TASK = b"FLOWTASK1\n"
_RESULT = b"FLOWRSLT1\n"


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
    _write(path, _TASK + pack_task(func, args, kwargs, spec, steps, where))


def read_result(path: str) -> TaskResult:
    """Read what ``run_file`` wrote. A value that cannot be unpickled here is a DeserializationError in ``error``.

    Raises:
        OSError: there is no such file (yet).
        DeserializationError: it is not a whole result.
    """
    return unpack_result(_read(path, _RESULT))


def run_file(task_path: str, result_path: str) -> bool:
    """Run the task of one file and write its result to another, whole or not at all.

    Must be called on the main thread of a process of its own. The exception of a task is its result.

    Returns:
        Whether the task ended without an exception.

    Raises:
        OSError: the result cannot be written.
    """
    try:
        result = run_parcel(_read(task_path, _TASK))
    except (OSError, DeserializationError) as error:
        # The caller waits for a result file, so what goes wrong before the task is a result, too.
        result = failed_parcel(error)
    _write(result_path, _RESULT + result)
    return not is_failed(result)


def _read(path: str, magic: bytes) -> bytes:
    with open(path, "rb") as stream:
        data = stream.read()
    if not data.startswith(magic):
        raise DeserializationError(f"{path} was not written by this version of Flow")
    return data[len(magic) :]


def _write(path: str, data: bytes) -> None:
    # Written aside and renamed: a reader that finds the file finds all of it.
    unfinished = f"{path}.{os.getpid()}.part"
    with open(unfinished, "wb") as stream:
        stream.write(data)
    os.replace(unfinished, path)
