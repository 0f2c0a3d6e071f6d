"""Reactor: events for the graph, which any thread posts and one thread at a time handles."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flow_core.futures.freeing import Section, Sections, free
from flow_core.futures.lean import CANCELLATION, Future, Settlement, run_callbacks, settle_quietly
from flow_core.graph.resolver import ATOMS
from flow_core.graph.states import CANCELLED, EXEC_DONE
from flow_core.graph.task import PLAIN
from flow_core.guard import pass_signal
from flow_core.interfaces.waiting import EndedState
from flow_core.kernel.isolation import may_hang_when_freed
from flow_core.kernel.unpacking import Unpacking

if TYPE_CHECKING:
    from flow_core.graph.effects import Effects, Event
    from flow_core.graph.graph_core import GraphCore
    from flow_core.graph.task import Task
    from flow_core.interfaces.call import Call, FileMoved, FileProgress, TryKey
    from flow_core.interfaces.outcome import Ended, Outcome, Place
    from flow_core.kernel.output_restoring import OutputRestoring

T = TypeVar("T")

_ROUND = 512  # effects gathered at most before they are carried out


class _Work(Section):
    """The state of one thread in the reactor: while it is busy its own events wait, so that nothing recurses."""

    __slots__ = ("interrupted",)

    def __init__(self) -> None:
        super().__init__()
        self.interrupted: BaseException | None = None


class _ThreadAtWork(threading.local):
    """The work of the calling thread, in one attribute: to ask it for each would cost a dictionary each time."""

    def __init__(self, sections: Sections) -> None:
        self.work = _Work()
        sections.add(self.work)


class Reactor:
    """Feeds a Core with events from all threads and has its effects carried out.

    Events go into an inbox. A thread that finds the lock free handles all that are there, so a busy thread does the
    others' work too and none waits for the lock; a thread that finds it taken may leave, since the holder looks again.
    Futures are settled under the lock: no thread ever sees a task that has ended and whose future has not. Effects are
    carried out without the lock, and the users' callbacks last of all, when no other task waits for this thread.
    """

    def __init__(self, core: GraphCore, logger: logging.Logger) -> None:
        """Take the graph. ``perform`` and ``on_ended`` must be set before the first event."""
        self.core = core
        self.perform: Callable[[Effects], None]
        self.on_ended: Callable[[Sequence[Task]], None]
        self.on_moving: Callable[[TryKey, Sequence[FileProgress]], None] | None = None
        self.on_moved: Callable[[Call, Sequence[FileMoved]], None] | None = None
        self.settling: OutputRestoring | None = None
        """There once outputs have places where older files are moved aside."""
        self.failed_as: Callable[[Task], str] = _state_name
        self.bugs = 0
        self._logger = logger
        self._inbox: deque[Event] = deque()
        self._lock = threading.Lock()
        self._sections = Sections()
        self._here = _ThreadAtWork(self._sections)
        self._owner = 0
        self._left: list[Future[Any]] = []
        self._well: dict[str, EndedState] = {}  # what futures of tasks that ended well keep, by app
        self._unpacking = Unpacking(self.finished, lambda key: core.tries.get(key))

    # -- TryListener

    def started(self, tries: Sequence[tuple[TryKey, int, Place]]) -> None:
        """Take a report of starts. Looked at with the next event, or when somebody asks, unless sinks want it."""
        self._inbox.append((self.core.started, tries))
        # Else nothing depends on a start until somebody asks: it costs no turn of the lock.
        if self.core.verbose:
            self.pump()

    def moving(self, key: TryKey, files: Sequence[FileProgress]) -> None:
        """Take a report of files that move on a node."""
        if self.on_moving is not None:
            self.on_moving(key, files)

    def moved(self, call: Call, files: Sequence[FileMoved]) -> None:
        """Take a report of files that an executor itself has moved."""
        if self.on_moved is not None:
            self.on_moved(call, files)

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Take a report of outcomes, each of which ends a try. Any thread; unknown keys are counted and ignored."""
        # Outcomes whose outputs have to be put back first come later, by ``settled``.
        if self.settling is not None:
            outcomes = self.settling.take(outcomes)
        self._inbox.append((self.core.finished, outcomes))
        self.pump()

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes that were held back."""
        self.post(self.core.finished, outcomes)

    def ended(self, tries: Sequence[Ended]) -> None:
        """Take a report of tries that have ended whose outcomes are still to be made."""
        self._unpacking.take(tries)

    # -- for the rest of the kernel

    def post(self, handler: Callable[[T], None], given: T) -> None:
        """Queue an event and handle the inbox, unless another thread does: ``handler(given)`` runs under the lock.

        Any thread. Returns at once where another thread has the lock; raises nothing of the handler, which is logged.
        """
        self._inbox.append((handler, given))
        self.pump()

    def call(self, handler: Callable[[], T], otherwise: T) -> T:
        """Handle all events so far, then call something under the lock and return what it returns.

        Returns ``otherwise`` in a signal handler or finalizer that interrupted this very thread while it had the lock.
        """
        # A lock that this thread has already would never be free: it is not reentrant, since handlers must not nest.
        if self._owner == threading.get_ident():
            return otherwise
        here = self._here.work
        outer, here.busy = here.busy, True
        ended: list[Task] = []
        callbacks: list[Future[Any]] = []
        try:
            with self._lock:
                try:
                    self._drain()
                    answer = handler()
                    self._take(ended, callbacks)
                    # Taken under the lock, carried out without it: effects call executors, which may post events.
                    effects, self.core.effects = self.core.effects, []
                finally:
                    self._owner = 0
            self._carry_out(effects, ended, callbacks)
            effects, ended = [], []  # what was in them is let go of while the section goes on
        finally:
            here.busy = outer
            here.number += not outer
        # Callbacks last: they are the users' and may take long, or call apps, whose events then need this thread free.
        if callbacks:
            self._call_back(callbacks)
        self.pump()
        return answer

    def pump(self) -> None:
        """Handle what is in the inbox, unless another thread is at it or this one will come back to it."""
        here = self._here.work
        if here.busy:
            return
        here.busy = True
        callbacks: list[Future[Any]] = []
        try:
            self._work(here, callbacks)
        finally:
            here.busy = False
            here.number += 1
        # After ``busy`` is given back, so that calls of apps within callbacks are handled by this thread at once.
        if callbacks:
            self._call_back(callbacks)
        error = here.interrupted
        if error is not None:
            here.interrupted = None
            raise error

    def defer(self, error: BaseException) -> bool:
        """In a signal handler: keep its exception for the end of this thread's work here, but not a second one."""
        here = self._here.work
        if not here.busy or here.interrupted is not None:
            return False
        here.interrupted = error
        return True

    # -- how

    def _work(self, here: Section, callbacks: list[Future[Any]]) -> None:
        inbox, lock, core = self._inbox, self._lock, self.core
        effects: Effects = []
        ended: list[Task] = []
        while True:
            # Not acquire(False): an interrupt right after it would leave the lock taken for ever.
            while inbox and len(effects) < _ROUND and not lock.locked():
                with lock:
                    try:
                        self._drain()
                        if core.ended or self._left or core.unused:
                            self._take(ended, callbacks)
                        if core.effects:
                            effects += core.effects
                            core.effects = []
                    finally:
                        self._owner = 0
            if not effects and not ended:
                return
            self._carry_out(effects, ended, callbacks)
            effects, ended = [], []
            here.number += 1

    def _drain(self) -> None:
        """Handle the inbox; the lock is held."""
        self._owner = threading.get_ident()
        inbox = self._inbox
        while inbox:  # only the holder of the lock takes from it, so what is seen is there
            handler, given = inbox.popleft()
            try:
                handler(given)
            except BaseException as error:
                pass_signal(error)
                # A fault in one event must not stop the tasks of all others; tests require that this stays 0.
                self.bugs += 1
                self._logger.exception("An event could not be handled; this is a bug of Flow")

    def _take(self, ended: list[Task], callbacks: list[Future[Any]]) -> None:
        """Settle the futures of what ended; the lock is held."""
        core = self.core
        if core.ended:
            now, core.ended = core.ended, []
            ended += now
            callbacks += self._settle(now)
        if self._left:
            callbacks += self._left
            self._left = []
        if core.unused:
            unused, core.unused = core.unused, []
            free(unused, None, self._sections.going())

    def _settle(self, tasks: list[Task]) -> list[Future[Any]]:
        batch: list[Settlement] = []
        well = self._well
        for task in tasks:
            future = task.future
            error = CANCELLATION if task.state is CANCELLED else task.error
            if future._files is not None:
                found = task.more().found
                batch.extend(
                    (cast("Future[Any]", each), each.made(found.get(number)), error)
                    for number, each in enumerate(future._files.all())
                )
            # Futures of files stand before that of the task: after a wait for the task its files are done.
            batch.append((future, task.value, error))
            if error is None and task.state is EXEC_DONE:
                # One record for all tasks of an app that ended well: a run may keep a million such futures.
                app = task.app.name
                future._handle = well.get(app) or well.setdefault(app, EndedState.of_app("exec_done", app))
            else:
                name = task.state.name if error is None else self.failed_as(task)
                future._handle = name if isinstance(name, EndedState) else EndedState.of_app(name, task.app.name)
        return settle_quietly(batch)[1]

    def _carry_out(self, effects: Effects, ended: list[Task], callbacks: list[Future[Any]]) -> None:
        """Do what the graph asks for. If Ctrl-C interrupts it, what is left is done with the next event."""
        try:
            if effects:
                self.perform(effects)
            if ended:
                self.on_ended(ended)
                for task in ended:
                    # Asked of most tasks: only what is no plain data is freed apart.
                    if task.holds != PLAIN or type(task.value) not in ATOMS or task.error is not None:
                        self._free_apart(task)
        except BaseException:
            # As an event: the lists belong to the holder of the lock, and another thread may have it by now.
            self._inbox.append((self._put_back, (effects, callbacks)))
            raise

    def _free_apart(self, task: Task) -> None:
        """Have a task that has ended freed by another thread, unless that surely calls nothing of the user's."""
        if may_hang_when_freed(task):
            free([task], (task.tid, task.app.name), self._sections.going())

    def _call_back(self, futures: list[Future[Any]]) -> None:
        """Have callbacks called, and let go of the futures."""
        run_callbacks(futures)
        # Their owners may have let go of them by now.
        if not all(future._exception is None and type(future._result) in ATOMS for future in futures):
            free(futures)

    def _put_back(self, left: tuple[Effects, list[Future[Any]]]) -> None:
        """Take over from a thread that was interrupted; the lock is held."""
        effects, callbacks = left
        self.core.effects += effects
        self._left += callbacks

    def renew_after_fork(self) -> None:
        """Forget locks and events of threads that do not exist in this process."""
        # Threads that held the lock do not exist here, so it would never be free; events belong to the parent's tasks.
        self._lock = threading.Lock()
        self._inbox = deque()
        self._sections = Sections()
        self._here = _ThreadAtWork(self._sections)


def _state_name(task: Task) -> str:
    return task.state.name
