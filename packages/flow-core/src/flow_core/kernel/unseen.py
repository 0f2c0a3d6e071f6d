"""Unseen failures: noted as tasks end, reported when the script ends, or raised when the run does."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, cast

from flow_core.errors import DependencyError, JoinError, UnseenFailures
from flow_core.futures.unseen import Ended, FailureLedger, LookedAt, marks_of
from flow_core.graph.failures import root_cause
from flow_core.graph.states import State
from flow_core.guard import is_a, name_of, one_line, traceback_of
from flow_core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flow_core.graph.graph_core import GraphCore
    from flow_core.graph.task import Task

_MOST_RUNS = 100  # of a process that loads one Config after the other: the oldest are forgotten
_SHOWN = 10  # kinds of failures in the report
_LINE = 300  # characters of an example; a message may hold a whole file
_TRACE = 20_000  # characters of a traceback in the log: begin and end of it, which name the call and the error


class Unseen:
    """The unseen failures of one run, and what is to be done about them.

    Attributes:
        mode: ``Config.unseen_failures``.
        ledger: Counts of the unseen failures.
    """

    def __init__(self, mode: str, run_dir: Path, has_log: bool) -> None:
        self.mode = mode
        self.ledger = FailureLedger()
        self._traces: dict[str, str] = {}
        self._has_log = has_log
        self._where = str(run_dir / "flow.log") if has_log else f"{run_dir} (its Config writes no flow.log)"

    def begin(self) -> None:
        """Have the failures of this run reported at the end of the script."""
        if self.mode != "ignore":
            _runs[self] = None
            while len(_runs) > _MOST_RUNS:
                _runs.pop(next(iter(_runs)), None)
        if self.mode == "raise":
            _watch_exit()

    def note(self, task: Task, core: GraphCore) -> Ended | str:
        """Return the state of a task that failed, as its future is to hold it. Called before the future is settled."""
        assert task.error is not None
        state = task.state.name
        # A cancellation is the wish of the script, so it is none that anybody has to hear of.
        if self.mode == "ignore" or task.state is State.cancelled:
            return state
        # A task that was not run is counted with the failure that kept it, which one looks at or not.
        marks = self._causes(task, core)
        if marks:
            self.ledger.depends(marks)
        elif not is_a(root_cause(task.error), CancelledError):
            marks = [self.ledger.failed(task.tid, name_of(root_cause(task.error)))]
        return Ended.of(state, task.app.name, marks) if marks else state

    def describe(self, task: Task) -> None:
        """Keep a line about a task that failed, if it is one of those that are to be shown.

        Called without any lock: the text is the user's exception's own, and may take its time.
        """
        for mark in marks_of(task.future):
            if task.error is not None and mark.wants_text(task.tid):
                cause = root_cause(task.error)
                mark.describe(f"{task}: {one_line(cause)}"[:_LINE])
                if self._has_log and mark.kind not in self._traces:
                    self._traces[mark.kind] = f"{task} failed first with {mark.kind}:\n{_cut(traceback_of(cause))}"

    def _causes(self, task: Task, core: GraphCore) -> list[LookedAt]:
        """Return the marks of the failures because of which a task failed."""
        if not is_a(task.error, DependencyError) and not is_a(task.error, JoinError):
            return []
        futures = [] if task.details is None else [failure[2] for failure in task.details.failures]
        if not futures and core.halted is not None:
            futures = [core.halted[2]]
        found = {id(mark): mark for future in futures for mark in marks_of(cast(Any, future))}
        return list(found.values())

    def ended(self, logger: logging.Logger) -> None:
        """The run is over: no other task fails."""
        if self.mode != "ignore" and self.ledger.count:
            logger.warning("%s", self.text())
            for kind in self.ledger.shown()[:_SHOWN]:
                if kind.name in self._traces:
                    logger.info("%s", self._traces[kind.name])
        else:
            _runs.pop(self, None)

    def text(self) -> str:
        """Return the report: numbers of failures, and an example of each kind."""
        count, dependents = self.ledger.count, self.ledger.dependents
        tasks = "1 task failed" if count == 1 else f"{count} tasks failed"
        besides = f" ({dependents} more could not be run because of that)" if dependents else ""
        kinds = self.ledger.shown()
        lines = [f"{kind.count} x {kind.name}{_first(kind.first)}" for kind in kinds[:_SHOWN]]
        if len(kinds) > _SHOWN:
            lines.append(f"and {len(kinds) - _SHOWN} other kinds")
        return "\n  ".join([f"{tasks} and nobody looked{besides}; see {self._where}", *lines])

    def take_error(self) -> UnseenFailures | None:
        """Return the error to raise at the end of the run, once; these failures are not reported again."""
        if self.mode != "raise" or not self.ledger.count or self not in _runs:
            return None
        _runs.pop(self, None)
        examples = [kind.first for kind in self.ledger.shown() if kind.first]
        return UnseenFailures(self.text(), self.ledger.count, examples)


_runs: dict[Unseen, None] = {}
"""Runs whose failures may have to be reported, in the order of their begin."""


def see(future: object) -> None:
    """Note that the failure of a future was looked at."""
    for mark in marks_of(cast(Any, future)):
        mark.see()


def _cut(trace: str) -> str:
    """Return a traceback without its middle if it is very long."""
    half = _TRACE // 2
    text = trace.rstrip("\n")
    return text if len(text) <= _TRACE else f"{text[:half]}\n  ...\n{text[-half:]}"


def _first(line: str) -> str:
    return f", such as {line}" if line else ""


@atexit.register
def tell() -> int:
    """Report what is still unseen on standard error, for each run once; return how many failures that were."""
    # Cleared first: atexit and a signal may both come here, and each failure is reported once.
    runs, told = list(_runs), 0
    _runs.clear()
    for run in runs:
        count = run.ledger.count
        if not count:
            continue
        told += count
        try:
            print(printable(f"flow: {run.text()}"), file=sys.stderr, flush=True)  # noqa: T201  (a script that asked no future must learn of it)
        except (OSError, ValueError, AttributeError):
            pass  # no standard error any more; it is in the log
    return told


# -- the exit code of a script that does not leave a ``with``


def _watch_exit() -> None:
    """Let the process exit with 1 if failures that are to be raised are unseen at its end.

    Handlers of ``atexit`` cannot set an exit code. So this runs before them, as the last of what ``threading`` runs at
    the end: it calls them itself and then ends the process.
    """
    # A private list of the standard library: where it is gone, the exit code stays 0 and the report is printed.
    known: list[Any] | None = getattr(threading, "_threading_atexits", None)
    if known is not None and _fail_if_unseen not in known:
        known.insert(0, _fail_if_unseen)


def _fail_if_unseen() -> None:
    if not _must_fail(_runs):
        return
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()  # as the interpreter would: it may still look at futures
    must_fail = _must_fail(_runs)
    # All that the script and other libraries have registered: os._exit skips it.
    atexit._run_exitfuncs()
    if must_fail:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass
        os._exit(1)


def _must_fail(runs: Iterable[Unseen]) -> bool:
    return any(run.mode == "raise" and run.ledger.count for run in runs)


os.register_at_fork(after_in_child=_runs.clear)
