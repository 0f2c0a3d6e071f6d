"""Dependencies of a call: from the futures in its arguments to the edges of the graph."""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from operator import is_
from typing import TYPE_CHECKING, Any

from flow_core.errors import HookError
from flow_core.futures.app_future import AppFuture
from flow_core.futures.callbacks import Limit, hook_calls
from flow_core.futures.data_future import DataFuture
from flow_core.futures.derived import DerivedFuture
from flow_core.futures.lean import FINISHED, failure_of, when_done
from flow_core.graph.failures import cancellation, tid_of
from flow_core.graph.resolver import ATOMS
from flow_core.graph.states import State
from flow_core.graph.task import SharedArguments, SharedParents, Task
from flow_core.graph.waiting import Awaited
from flow_core.guard import pass_signal
from flow_core.kernel.isolation import runs_code_when_searched
from flow_core.kernel.join import returned_futures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flow_core.graph.effects import Failure
    from flow_core.graph.task import TaskOwner
    from flow_core.kernel.arguments import Arguments
    from flow_core.kernel.reactor import Reactor

    Sources = tuple[Sequence[Task | SharedParents], Sequence[Future[Any]], Sequence[Failure]]
    Found = tuple[Sequence[Future[Any]], Sources]

_SEARCH_S = 1.0  # seconds that a call waits for a resolver of the user's own; far above what one takes that returns
_MANY = 8  # parents from which calls share edges; below, a SharedParents (a record and an event) costs more


class CallDependencies:
    """Sorts futures into unfinished tasks of one kernel, other unfinished futures, and failures. Any thread."""

    def __init__(self, home: TaskOwner, reactor: Reactor, arguments: Arguments) -> None:
        self._home = home
        self._reactor = reactor
        self._arguments = arguments
        self.junction: SharedParents | None = None
        """The last shared parents that a call waits for. To be read only."""

    def of(self, task: Task) -> tuple[Sequence[Future[Any]], Sources]:
        """Return the futures in a call's arguments, and where their results come from.

        One ``SharedParents`` stands for many parents that calls may have in common.

        Raises:
            HiddenFutureError: one is hidden where it would not be waited for.
        """
        last = self.junction
        common = None if last is None else last.common
        if common is not None and last is not None and _shares(task, common):
            return common, ((last,), (), ())
        futures = self._arguments.futures(task)
        # A resolver of the user's own, and a container of the user's that iterates itself, is asked once: not by the
        # graph, nor by who wants to know why.
        if futures and (not self._arguments.quick or runs_code_when_searched(task.args, task.kwargs)):
            task.more().asked = futures
        # Only the last is compared: layers of tasks come one after the other, and a search would cost each call.
        if last is not None and last.futures == futures:
            return futures, ((last,), (), ())
        return futures, self._met(task, futures)

    def _met(self, task: Task, futures: list[Future[Any]]) -> Sources:
        parents, foreign, failures = self.split(futures)
        if len(parents) < _MANY or foreign or failures:
            return parents, foreign, failures
        junction = SharedParents(futures)
        if self._arguments.quick:
            common = SharedArguments(futures)
            if _shares(task, common):
                junction.common = common
        # Set without a lock: two threads that submit at once make two, which is correct and only costs more edges.
        self.junction = junction
        self._reactor.post(self._reactor.core.meeting, (junction, parents))
        return (junction,), (), ()

    def of_apart(self, task: Task, timeout_s: float | None) -> Found | Future[Found]:
        """Return the same as ``of``, asked on the thread of hooks; where that takes longer, a future of it.

        Raises as ``of``. A resolver of the user's own may not return: the call waits for it a moment only, and the
        future for so many seconds.
        """
        if hook_calls.here():
            return self.of(task)
        found: Future[Found] = Future()

        def ask(_: object) -> None:
            try:
                sources = self.of(task)
            except BaseException as error:
                _settle(found, error=error)
            else:
                _settle(found, sources)

        given_up = threading.Event()

        def passed(hook: str, told: str) -> None:
            given_up.set()  # its task fails, and the call returns as any other
            _settle(found, error=HookError(f"{task}: {told}", hook))

        limit = None if timeout_s is None else Limit(timeout_s, passed)
        hook_calls.soon(ask, None, lambda *_: f"the search for futures in the arguments of {task}", limit)
        came = wait([found], _SEARCH_S).done and not given_up.is_set()
        return found.result() if came else found

    def watch_search(self, task: Task, found: Future[Found]) -> None:
        """Have the graph told when futures that are still searched for are done: a task that waits for one thing."""
        reactor = self._reactor

        def searched(_: Future[Any]) -> None:
            error = found.exception()
            if error is not None:
                reactor.post(reactor.core.failed, (task, error))
                return
            futures = found.result()[0]
            left = [*futures]
            failures: list[Failure] = []
            lock = threading.Lock()

            def ended(future: Future[Any]) -> None:
                failure = _failure_of(future)
                with lock:
                    left.pop()
                    failures.extend(() if failure is None else (failure,))
                    last = not left
                if last:
                    reactor.post(reactor.core.foreign_done, (task, failures[0] if failures else None))

            if not futures:
                reactor.post(reactor.core.foreign_done, (task, None))
            for future in futures:
                when_done(future, ended)

        found.add_done_callback(searched)

    def forget(self) -> None:
        """Drop the last shared parents once all of them have ended: children hold what they still need themselves."""
        junction = self.junction
        if junction is not None and junction.futures is None:
            self.junction = None

    def split(self, futures: Sequence[Future[Any]]) -> tuple[list[Task], list[Future[Any]], list[Failure]]:
        """Return unfinished tasks of this kernel, other unfinished futures, and how finished ones failed."""
        parents: list[Task] = []
        foreign: list[Future[Any]] = []
        failures: list[Failure] = []
        for future in futures:
            if type(future) is AppFuture:
                if future._state is FINISHED and future._exception is None:  # most, where everything waits for all
                    continue
                task: object = future._handle
            else:
                task = _task_of(future)
            # Another kernel has a lock of its own, so its tasks are foreign: a callback reports their ends.
            if type(task) is Task and task.home is self._home:
                parents.append(task)
            elif not future.done():
                foreign.append(future)
            else:
                failure = _failure_of(future)
                if failure is not None:
                    failures.append(failure)
        return parents, foreign, failures

    def awaited(self, futures: Sequence[Future[Any]]) -> list[Awaited]:
        """Return the sources of those futures that are not done, each once: tasks, or others' futures."""
        found = {id(future): _awaited(future) for future in map(_whole, futures) if not future.done()}
        return list({(one.task_id, one.who): one for one in found.values()}.values())

    def first_of(self, futures: Sequence[Future[Any]]) -> Task | None:
        """Return an unfinished task of this kernel that settles one of some futures; one that runs, if there is one."""
        tasks = [task for task in map(_task_of, map(_whole, futures)) if task is not None and task.home is self._home]
        return max(tasks, key=lambda task: (not task.waiting, task.state), default=None)

    def in_order(self, task: Task, failures: Sequence[Failure]) -> Sequence[Failure]:
        """Return failures of what a task waited for in the order in which the call, or the join body, names it."""
        try:
            futures = self._waited_for(task)
        except BaseException:  # what the user's objects may raise, here in the midst of the graph's steps
            return failures
        places: dict[int, int] = {}
        for place, future in enumerate(futures):
            places.setdefault(id(future), place)
            if isinstance(future, DataFuture):  # the task is what is waited for
                places.setdefault(id(future._parent), place)
        return sorted(failures, key=lambda failure: places.get(id(failure[2]), len(places)))

    def _waited_for(self, task: Task) -> Sequence[Future[Any]]:
        details = task.more()
        if task.state is State.joining:
            # Not searched again in the midst of the graph's steps, which all tasks would wait for.
            if details.asked is not None or runs_code_when_searched((details.joined,), {}):
                return details.asked or ()
            return returned_futures(str(task), details.joined)
        if details.asked is not None:
            return details.asked
        return () if runs_code_when_searched(task.args, task.kwargs) else self._arguments.futures(task)

    def named(self, futures: Sequence[Future[Any]]) -> list[int]:
        """Return the ids of the tasks whose futures some are, each once."""
        return list({tid: None for tid in map(tid_of, futures) if tid is not None})

    def whole(self, foreign: Sequence[Future[Any]]) -> list[Task]:
        """Return the unfinished tasks of this kernel of whose results some futures are parts."""
        tasks = (_task_of(_whole(future)) for future in foreign if isinstance(future, DerivedFuture))
        return [task for task in tasks if task is not None and task.home is self._home]

    def watch(self, task: Task, foreign: Sequence[Future[Any]]) -> None:
        """Have an event posted to the graph when each of these foreign futures is done."""
        reactor = self._reactor

        def ended(future: Future[Any]) -> None:
            reactor.post(reactor.core.foreign_done, (task, _failure_of(future)))

        for future in foreign:
            try:
                when_done(future, ended)
            except BaseException as error:  # of a class of the user's: no callback will say when it is done
                pass_signal(error)
                reactor.post(reactor.core.foreign_done, (task, (_who(future), error, future)))


def _settle(found: Future[Found], sources: Found | None = None, error: BaseException | None = None) -> None:
    """Settle a search, unless it was given up or has come back already."""
    with suppress(InvalidStateError):
        if sources is not None:
            found.set_result(sources)
        else:
            found.set_exception(error)


def _shares(task: Task, common: SharedArguments) -> bool:
    """Let a call share arguments if its own, or its inputs beside plain values, are the same; return whether so."""
    kwargs = task.kwargs
    if not kwargs:
        if _same(common, task.args):
            task.args = common
            return True
        return False
    inputs = kwargs.get("inputs")
    if type(inputs) is not list or not _same(common, inputs):
        return False
    if all(type(value) in ATOMS for value in (*task.args, *kwargs.values()) if value is not inputs):
        task.kwargs = {**kwargs, "inputs": common}
        return True
    return False


def _same(common: SharedArguments, values: Sequence[object]) -> bool:
    """Return whether values are the very same futures; what else they may be is never asked for its equality."""
    return len(common) == len(values) and all(map(is_, common, values))


def _whole(future: Future[Any]) -> Future[Any]:
    """Return the future that one is a part of, at whatever depth; itself once that is done."""
    while isinstance(future, DerivedFuture) and future._parent is not None:
        future = future._parent
    return future


def _awaited(future: Future[Any]) -> Awaited:
    task = _task_of(future)
    if task is not None:
        return Awaited(str(task), task.state.name, task.tid)
    tid = tid_of(future)
    who = f"a {type(future).__name__} that is none of this run's tasks" if tid is None else f"task {tid}"
    return Awaited(who, "running" if future.running() else "pending", tid)


def _task_of(future: Future[Any]) -> Task | None:
    """Return the unfinished task that settles a future, if there is one."""
    if isinstance(future, DataFuture) and isinstance(future._parent, AppFuture):
        future = future._parent
    if isinstance(future, AppFuture) and not future.done() and isinstance(future._handle, Task):
        return future._handle
    return None


def _failure_of(future: Future[Any]) -> Failure | None:
    """Return how a future that is done failed. A class of the user's may raise when it is asked, which is a failure."""
    who = _who(future)
    try:
        error = cancellation(who) if future.cancelled() else failure_of(future)
    except BaseException as failure:
        pass_signal(failure)
        error = failure
    return None if error is None else (who, error, future)


def _who(future: Future[Any]) -> str:
    tid = tid_of(future)
    return f"task {tid}" if tid is not None else "a future given as an argument"
