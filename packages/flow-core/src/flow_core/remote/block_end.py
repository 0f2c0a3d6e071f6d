"""The end of a block, told to the task that runs in it, on the task's own thread.

A worker has a task that asked for it (``warn_before_end_s``) run by ``run_told``, and calls ``tell`` from the handler
of the signal that its manager sends. Standard library and the leaf only: it runs on nodes.
"""

from __future__ import annotations

from collections.abc import Callable

from flow_core.errors import AppException, Requeue
from flow_core.remote.run import in_worker


class _ToldTask:
    """The task that runs, and may be told. One thread but for ``callbacks``, to which any thread adds."""

    __slots__ = ("acknowledge", "callbacks", "told")

    def __init__(self, acknowledge: Callable[[], None]) -> None:
        self.acknowledge = acknowledge
        self.callbacks: list[Callable[[], object]] = []
        self.told = False


_now: _ToldTask | None = None


def on_block_end(callback: Callable[[], object]) -> None:
    """Have a function called, on the task's own thread, when the block of this task is about to end.

    For apps with ``warn_before_end_s``. The function is called once, between two lines of the task; it may save the
    work, set a flag that the task looks at, or raise ``Requeue``, which ends the task at once and has it run again.
    Several functions are called in their order, and one that is given when the task was told already at once. What a
    function raises is raised in the task. Any thread of the task. Outside of workers, where no block ends, the function
    is never called.

    Raises:
        AppException: the task that runs did not ask to be told.
    """
    task = _now
    if task is None:
        if in_worker():
            raise AppException(
                "on_block_end() was called by a task that is not told of the end of its block: give its app "
                "warn_before_end_s, the seconds that it needs to save its work"
            )
        return
    if task.told:
        _call(callback)
    else:
        task.callbacks.append(callback)
        # It may have been told between the two lines above, when the callback was not there.
        if block_is_ending() and _taken(task.callbacks, callback):
            _call(callback)


def block_is_ending() -> bool:
    """Return whether the task that runs was told that its block ends. Any thread; False outside of workers."""
    return _now is not None and _now.told


def run_told(run: Callable[[], object], acknowledge: Callable[[], None]) -> object:
    """Run a task that is to be told, on the calling thread; ``acknowledge`` is called once when it was.

    Raises:
        Requeue: the task is to be run again, if ``told`` says that it knew of the end of its block.
    """
    global _now
    task = _now = _ToldTask(acknowledge)
    try:
        return run()
    except Requeue as error:
        error.told = task.told
        raise
    finally:
        _now = None


def with_callbacks_of(func: Callable[..., object]) -> Callable[..., object]:
    """Return a task's function whose callbacks are given up when it ends: what comes after it is not theirs."""

    def call(*args: object, **kwargs: object) -> object:
        """Call the function of the task."""
        try:
            return func(*args, **kwargs)
        finally:
            if _now is not None:
                _now.callbacks.clear()

    return call


def tell() -> None:
    """Tell the task that runs, if it asked for that and was not told yet. For a handler of a signal."""
    task = _now
    if task is None or task.told:
        return
    task.told = True
    task.acknowledge()
    while task.callbacks:
        _call(task.callbacks.pop(0))


def _taken(callbacks: list[Callable[[], object]], callback: Callable[[], object]) -> bool:
    """Take a callback off the list; False if another thread has taken it to call it."""
    try:
        callbacks.remove(callback)
    except ValueError:
        return False
    return True


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Requeue as error:
        # Here too: raised in the last moment of the task, it does not come by run_told any more.
        error.told = True
        raise
