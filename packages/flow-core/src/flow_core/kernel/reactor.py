"""The one place where events meet the graph: any thread brings them, one at a time handles them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flow_core.futures.lean import CANCELLATION, Future, Settlement, run_callbacks, settle_quietly
from flow_core.graph.states import State
from flow_core.guard import pass_signal

if TYPE_CHECKING:
    from flow_core.graph.core import Core
    from flow_core.graph.effects import Effects, Event
    from flow_core.graph.task import Task
    from flow_core.interfaces.call import TryKey
    from flow_core.interfaces.outcome import Outcome, Place

T = TypeVar("T")

_ROUND = 512  # effects gathered at most before they are carried out


class _Here(threading.local):
    """Whether this thread is at work here: its events then wait for it, so that nothing recurses."""

    busy = False
    interrupted: BaseException | None = None


class Reactor:
    """Feeds a Core with events from all threads and has its effects carried out.

    Events go into an inbox. Whoever finds the lock free handles all that are there, so a busy thread does the others'
    work too and nobody waits for the lock; whoever finds it taken may leave, since the holder looks again. Futures are
    settled under the lock: nobody ever sees a task that has ended and whose future has not. Effects are carried out
    without the lock, and the users' callbacks last of all, when nothing is owed to anybody.
    """

    def __init__(self, core: Core, logger: logging.Logger) -> None:
        """Take the graph. ``perform`` and ``on_ended`` must be set before the first event."""
        self.core = core
        self.perform: Callable[[Effects], None]
        self.on_ended: Callable[[Sequence[Task]], None]
        self.failed_as: Callable[[Task], str] = _state_name
        self.bugs = 0
        self._logger = logger
        self._inbox: deque[Event] = deque()
        self._lock = threading.Lock()
        self._here = _Here()
        self._owner = 0
        self._left: list[Future[Any]] = []

    # -- TryListener

    def started(self, tries: Sequence[tuple[TryKey, int, Place]]) -> None:
        """Take a report of starts. Looked at with the next event, or when somebody asks, unless sinks want it."""
        self._inbox.append((self.core.started, tries))
        if self.core.verbose:
            self.pump()

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Take a report of outcomes."""
        self._inbox.append((self.core.finished, outcomes))
        self.pump()

    # -- for the rest of the kernel

    def post(self, handler: Callable[[Any], None], given: object) -> None:
        """Bring an event."""
        self._inbox.append((handler, given))
        self.pump()

    def call(self, handler: Callable[[], T], otherwise: T) -> T:
        """Handle all events so far, then call something under the lock and return what it returns.

        Returns ``otherwise`` in a signal handler or finalizer that interrupted this very thread while it had the lock.
        """
        if self._owner == threading.get_ident():
            return otherwise
        here = self._here
        outer, here.busy = here.busy, True
        ended: list[Task] = []
        callbacks: list[Future[Any]] = []
        try:
            with self._lock:
                try:
                    self._drain()
                    answer = handler()
                    effects = self._take(ended, callbacks)
                finally:
                    self._owner = 0
            self._carry_out(effects, ended, callbacks)
        finally:
            here.busy = outer
        run_callbacks(callbacks)
        self.pump()
        return answer

    def pump(self) -> None:
        """Handle what is in the inbox, unless another thread is at it or this one will come back to it."""
        here = self._here
        if here.busy:
            return
        here.busy = True
        callbacks: list[Future[Any]] = []
        try:
            self._work(callbacks)
        finally:
            here.busy = False
        if callbacks:
            run_callbacks(callbacks)
        error = here.interrupted
        if error is not None:
            here.interrupted = None
            raise error

    def defer(self, error: BaseException) -> bool:
        """In a signal handler: keep its exception for the end of this thread's work here, but not a second one."""
        here = self._here
        if not here.busy or here.interrupted is not None:
            return False
        here.interrupted = error
        return True

    # -- how

    def _work(self, callbacks: list[Future[Any]]) -> None:
        inbox, lock = self._inbox, self._lock
        effects: Effects = []
        ended: list[Task] = []
        while True:
            # Not acquire(False): an interrupt right after it would leave the lock taken for ever.
            while inbox and len(effects) < _ROUND and not lock.locked():
                with lock:
                    try:
                        self._drain()
                        effects += self._take(ended, callbacks)
                    finally:
                        self._owner = 0
            if not effects and not ended:
                return
            self._carry_out(effects, ended, callbacks)
            effects, ended = [], []

    def _drain(self) -> None:
        """Handle the inbox; the lock is held."""
        self._owner = threading.get_ident()
        inbox = self._inbox
        while inbox:  # nobody else takes from it, so what is seen is there
            handler, given = inbox.popleft()
            try:
                handler(given)
            except BaseException as error:
                pass_signal(error)
                self.bugs += 1
                self._logger.exception("An event could not be handled; this is a bug of Flow")

    def _take(self, ended: list[Task], callbacks: list[Future[Any]]) -> Effects:
        """Take the graph's effects and settle the futures of what ended; the lock is held."""
        core = self.core
        if core.ended:
            now, core.ended = core.ended, []
            ended += now
            callbacks += self._settle(now)
        if self._left:
            callbacks += self._left
            self._left = []
        effects, core.effects = core.effects, []
        return effects

    def _settle(self, tasks: list[Task]) -> list[Future[Any]]:
        batch: list[Settlement] = []
        for task in tasks:
            future = task.future
            error = CANCELLATION if task.state is State.cancelled else task.error
            if future._files is not None:
                batch.extend((cast("Future[Any]", f), f.file_obj, error) for f in future._files.all())
            batch.append((future, task.value, error))
            # Not .name, which is a function of the enum's.
            future._handle = task.state._name_ if error is None else self.failed_as(task)
        return settle_quietly(batch)[1]

    def _carry_out(self, effects: Effects, ended: list[Task], callbacks: list[Future[Any]]) -> None:
        """Do what the graph asks for. If Ctrl-C interrupts it, what is left is done with the next event."""
        try:
            if effects:
                self.perform(effects)
            if ended:
                self.on_ended(ended)
        except BaseException:
            self._inbox.append((self._put_back, (effects, callbacks)))
            raise

    def _put_back(self, left: tuple[Effects, list[Future[Any]]]) -> None:
        """Take over from a thread that was interrupted; the lock is held."""
        effects, callbacks = left
        self.core.effects += effects
        self._left += callbacks

    def renew_after_fork(self) -> None:
        """Forget locks and events of threads that do not exist in this process."""
        self._lock = threading.Lock()
        self._inbox = deque()
        self._here = _Here()


def _state_name(task: Task) -> str:
    return task.state.name
