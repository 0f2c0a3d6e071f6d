"""Isolation of the user's code in arguments and results, which may hang: it holds up its own task alone.

Arguments and results that surely run no such code are told apart first: see ``graph.plain_data``, too.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from flow_core.futures.app_future import AppFuture
from flow_core.futures.callbacks import packing_calls
from flow_core.futures.data_future import DataFuture
from flow_core.graph.plain_data import LOOKED_AT, SAFE, are_harmless
from flow_core.guard import from_signal
from flow_core.hooks import Noted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flow_core.futures.callbacks import Limit
    from flow_core.graph.task import Task

    Job = tuple[Noted, Callable[[], None], Callable[[BaseException], None], Limit | None, bool]


_SEARCHED = SAFE.union((AppFuture, DataFuture))
"""Types of which a search for futures and files calls nothing."""
_OF_FUTURES = frozenset(("collections", "concurrent", "flow_core"))
_NAMES = frozenset(("__iter__", "__len__", "__getattribute__", "__class__"))
_ITERATED: dict[type, frozenset[str]] = {
    **dict.fromkeys((list, tuple, set, frozenset), _NAMES),
    dict: _NAMES | {"items", "keys", "values"},
}
"""Kinds of containers, with what a search calls of them."""
_LOOKED_INTO = (*_ITERATED, Future)
_HOOK_S = 1.0
"""Seconds that a call waits for a hook that takes its arguments; far above what those take that return."""


def may_hang_when_freed(task: Task) -> bool:
    """Return whether freeing a task that has ended may call a ``__del__`` of the user's. Any thread.

    An exception may: its traceback holds the variables of the functions that it came through.
    """
    if not (task.error is None and are_harmless((task.value, *task.args), task.kwargs)):
        return True
    details = task.details
    if details is None or (details.original is None and details.joined is None):
        return False
    args, kwargs = details.original or ((), {})
    return not are_harmless((details.joined, *args), kwargs)


def runs_code_when_searched(args: Iterable[object], kwargs: dict[str, object]) -> bool:
    """Return whether a search for futures and files in these values may run code of the user's. Any thread.

    Such code is that of containers which iterate in their own way, and of futures that are neither Flow's nor of the
    standard library. Values with very many items count as such.
    """
    if not kwargs and _SEARCHED.issuperset(map(type, args)):
        return False
    todo, looked = [*args, *kwargs.values()], 0
    try:
        while todo:
            value = todo.pop()
            kind = type(value)
            if kind in _SEARCHED or not issubclass(kind, _LOOKED_INTO):
                continue
            if issubclass(kind, Future):
                if not _is_known(kind):
                    return True
                continue
            base = next(each for each in _ITERATED if issubclass(kind, each))
            if kind is not base and _iterates_itself(kind, base):
                return True
            looked += base.__len__(value)  # type: ignore[attr-defined]  # all of them have it
            if looked > LOOKED_AT:
                return True
            if base is dict:
                todo += dict.keys(value)  # type: ignore[arg-type]
                todo += dict.values(value)  # type: ignore[arg-type]
            else:
                todo += value  # type: ignore[arg-type]
    except RuntimeError:  # a container was changed by another thread just now
        return True
    return False


def _iterates_itself(kind: type, base: type) -> bool:
    for each in type.__dict__["__mro__"].__get__(kind):
        if each is base:
            return False
        if not _is_known(each) and not _ITERATED[base].isdisjoint(vars(each)):
            return True
    return False


def _is_known(kind: type) -> bool:
    module = type.__getattribute__(kind, "__module__")
    return type(module) is str and module.partition(".")[0] in _OF_FUTURES


class _CallOfThread(threading.local):
    """The call of an app that this thread is in, and what is left to be done of it; None while it is in none."""

    task: Task | None = None
    left: list[Job] | None = None


class Isolation:
    """Chooses the thread for such work. Any thread.

    That of a call which is just being made is done by the calling thread, once the call has done all else: what hangs
    then is the caller's own, and arguments are packed before the call returns. Hooks of the user's are called apart all
    the same, and a call waits for them a moment. All other is done by threads that do nothing else, so that neither a
    thread that reports results nor one that happens to pass by can be held up.
    """

    def __init__(self) -> None:
        self._here = _CallOfThread()

    def during_call(self, task: Task, bring: Callable[[], None]) -> None:
        """Bring a task into the graph, in the call of its app, and do what is left of it then."""
        here = self._here
        outer, here.task, here.left = (here.task, here.left), task, []
        try:
            bring()
            # Last of all that the call does: no other task waits for this thread by now.
            while here.left:
                _do_here(here.left.pop())
        finally:
            here.task, here.left = outer

    def do(
        self,
        task: Task,
        noted: Noted,
        work: Callable[[], None],
        failed: Callable[[BaseException], None],
        limit: Limit | None = None,
        of_hook: bool = False,
    ) -> None:
        """Have something done for a task; ``noted`` says what, ``failed`` is given what it raises.

        With a limit somebody is told if it takes too long, but in the caller's own call. ``of_hook`` says that it is a
        hook of the user's that is called, such as ``submit`` of an executor, and not code that comes with data.
        """
        here = self._here
        # Not for another task, whose effects this call may carry out by chance: it would wait for that one's code.
        if here.task is task and here.left is not None:
            here.left.append((noted, work, failed, limit, of_hook))
        else:
            packing_calls.soon(_do, (noted, work, failed, limit, of_hook), _describe, limit)


def _do_here(job: Job) -> None:
    if job[4] and not packing_calls.here():
        # Arguments are packed when the call returns, as ever, but where the hook does not return.
        done = threading.Event()
        packing_calls.soon(partial(_do_and_tell, done), job, _describe, job[3])
        done.wait(_HOOK_S)
        return
    noted, work, failed, limit, _ = job
    before = packing_calls.enter(noted.__str__)
    try:
        with noted:
            work()
    except BaseException as error:
        if from_signal(error):  # the caller is interrupted, and the task is not
            packing_calls.soon(_do, job, _describe, limit)
            raise
        failed(error)
    finally:
        packing_calls.leave(before)


def _do_and_tell(done: threading.Event, job: Job) -> None:
    try:
        _do(job)
    finally:
        done.set()


def _do(job: Job) -> None:
    noted, work, failed, *_ = job
    try:
        with noted:
            work()
    except BaseException as error:
        failed(error)


def _describe(_call: object, job: Job) -> str:
    return str(job[0])
