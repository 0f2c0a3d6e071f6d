"""Run loggers mark lines with their run, so that each run's log holds its own where a process has several kernels."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_run: ContextVar[str | None] = ContextVar("flow_log_run", default=None)


class RunLogger(logging.Logger):
    """The logger of a name, for one run: what it logs goes through the logger of that name, marked with the run.

    It is known to nobody by name. Levels and handlers are those of ``logging.getLogger(name)``.

    Attributes:
        run_id: The run.
    """

    def __init__(self, name: str, run_id: str) -> None:
        super().__init__(name)
        self.run_id = run_id
        self._named = logging.getLogger(name)
        # So that getEffectiveLevel() finds the level that was set for the name.
        self.parent = self._named
        # What the logger of the name takes; its own method, since each report of results asks it.
        self.isEnabledFor = self._named.isEnabledFor  # type: ignore[method-assign]

    def handle(self, record: logging.LogRecord) -> None:
        """Mark a record and hand it to handlers."""
        record.flow_run = self.run_id
        self._named.handle(record)

    def getChild(self, suffix: str) -> RunLogger:  # noqa: N802  (the same)
        """Return the logger of a name below this one, for the same run."""
        return RunLogger(f"{self.name}.{suffix}", self.run_id)


@contextmanager
def lines_of(run_id: str) -> Iterator[None]:
    """Count what this thread logs meanwhile by any of Flow's loggers as the run's."""
    token = _run.set(run_id)
    try:
        yield
    finally:
        _run.reset(token)


class OnlyRun(logging.Filter):
    """Lets lines of one run pass, and those that belong to none."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be written; called on the thread that logs it."""
        # The mark first: a thread of one run may log for another, with that one's logger.
        run_id = getattr(record, "flow_run", None) or _run.get()
        return run_id is None or run_id == self._run_id
