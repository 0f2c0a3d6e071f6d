"""Failures that nobody looked at: noted as tasks end, told when the script ends, or raised when a run does."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, cast

from flow_core.errors import DependencyError, JoinError, UnseenFailures
from flow_core.futures.unseen import Ended, Ledger, Mark, marks_of
from flow_core.graph.failures import root_cause
from flow_core.graph.states import State
from flow_core.guard import is_a, name_of, one_line, traceback_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flow_core.graph.core import Core
    from flow_core.graph.task import Task

_MOST_RUNS = 100
_SHOWN = 10
_LINE = 300
_TRACE = 20_000


class Unseen:
    """The unseen failures of one run, and what is to be done about them.

    Attributes:
        mode: ``Config.unseen_failures``.
        ledger: What is counted.
    """

    def __init__(self, mode: str, run_dir: Path, has_log: bool) -> None:
        self.mode = mode
        self.ledger = Ledger()
        self._traces: dict[str, str] = {}
        self._has_log = has_log
        self._where = str(run_dir / "flow.log") if has_log else f"{run_dir} (its Config writes no flow.log)"

    def begin(self) -> None:
        """Tell of them at the end of the script."""
        if self.mode != "ignore":
            _runs[self] = None
            while len(_runs) > _MOST_RUNS:
                _runs.pop(next(iter(_runs)), None)
        if self.mode == "raise":
            _watch_exit()

    def note(self, task: Task, core: Core) -> Ended | str:
        """Return the state of a task that failed, as its future is to hold it. Called before the future is settled."""
        assert task.error is not None
        state = task.state.name
        if self.mode == "ignore" or task.state is State.cancelled:
            return state
        marks = self._causes(task, core)
        if marks:
            self.ledger.depends(marks)
        elif not is_a(root_cause(task.error), CancelledError):
            marks = [self.ledger.failed(task.tid, name_of(root_cause(task.error)))]
        return Ended.of(state, marks) if marks else state

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

    def _causes(self, task: Task, core: Core) -> list[Mark]:
        """Return the marks of the failures because of which a task failed."""
        if not is_a(task.error, DependencyError) and not is_a(task.error, JoinError):
            return []
        futures = [] if task.rare is None else [failure[2] for failure in task.rare.failures]
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
        """Return what is told."""
        count, dependents = self.ledger.count, self.ledger.dependents
        tasks = "1 task failed" if count == 1 else f"{count} tasks failed"
        besides = f" ({dependents} more could not be run because of that)" if dependents else ""
        kinds = self.ledger.shown()
        lines = [f"{kind.count} x {kind.name}{_first(kind.first)}" for kind in kinds[:_SHOWN]]
        if len(kinds) > _SHOWN:
            lines.append(f"and {len(kinds) - _SHOWN} other kinds")
        return "\n  ".join([f"{tasks} and nobody looked{besides}; see {self._where}", *lines])

    def take_error(self) -> UnseenFailures | None:
        """Return what is to be raised at the end of the run, once; it is not told again."""
        if self.mode != "raise" or not self.ledger.count or self not in _runs:
            return None
        _runs.pop(self, None)
        examples = [kind.first for kind in self.ledger.shown() if kind.first]
        return UnseenFailures(self.text(), self.ledger.count, examples)


_runs: dict[Unseen, None] = {}
"""Runs whose failures may have to be told of, in the order of their begin."""


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
    """Tell of what is still unseen on standard error, for each run once; return how many failures that were."""
    runs, told = list(_runs), 0
    _runs.clear()
    for run in runs:
        count = run.ledger.count
        if not count:
            continue
        told += count
        try:
            print(f"flow: {run.text()}", file=sys.stderr, flush=True)  # noqa: T201  (who asked nothing must hear of it)
        except (OSError, ValueError, AttributeError):
            pass  # no standard error any more; it is in the log
    return told


# -- the exit code of a script that does not leave a ``with``


def _watch_exit() -> None:
    """Let the process exit with 1 if failures that are to be raised are unseen at its end.

    Handlers of ``atexit`` cannot set an exit code. So this runs before them, as the last of what ``threading`` runs at
    the end: it calls them itself and then ends the process.
    """
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
