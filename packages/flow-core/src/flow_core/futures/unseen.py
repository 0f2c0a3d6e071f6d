"""Unseen failures, counted by kind.

What is kept of a failure is a mark that its future holds, and a text for the first few of each kind: a million of them
take no more memory than their futures do. A mark knows whether its failure was seen; what of a task that was not run,
since others failed, holds their marks.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future as StdFuture
from dataclasses import dataclass, field
from typing import Any

from flow_core.fork_locks import renewed_after_fork
from flow_core.futures.lean import Future
from flow_core.interfaces.waiting import EndedState

_MOST_KINDS = 100  # a bound on memory; failures of further kinds are counted together
_SAMPLES = 5  # failures of a kind that get a text: one of them stays when the first ones are looked at
_OTHERS = "others"

_lock = renewed_after_fork(threading.RLock())  # a finalizer may look at a future while this thread counts


@dataclass(slots=True)
class FailureKind:
    """Unseen failures with the same type of exception.

    Attributes:
        name: Name of the type.
        count: Number of failures of this kind.
        samples: Some of them, the first ones: lines of text by task, empty until there is one.
    """

    name: str
    count: int = 0
    samples: dict[int, str] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The first of those that are known, empty if none is."""
        return next(filter(None, self.samples.values()), "")


class FailureLedger:
    """The unseen failures of one run.

    Attributes:
        kinds: By the name of the exception's type.
        dependents: Number of tasks that were not run, or joined in vain, because of unseen failures.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, FailureKind] = {}
        self.dependents = 0

    @property
    def count(self) -> int:
        """Number of tasks that failed unseen."""
        return sum(kind.count for kind in list(self.kinds.values()))

    def failed(self, task_id: int, kind: str) -> LookedAt:
        """Count a failure; if it is among the first of its kind, ``describe`` is to give a line about it."""
        with _lock:
            known = self.kinds.get(kind)
            if known is None:
                kind = kind if len(self.kinds) < _MOST_KINDS else _OTHERS
                known = self.kinds.setdefault(kind, FailureKind(kind))
            known.count += 1
            if len(known.samples) < _SAMPLES:
                known.samples[task_id] = ""
        return LookedAt(self, known, task_id)

    def depends(self, marks: Sequence[LookedAt]) -> None:
        """Count a task that was not run because of failures; the first of them is the one that it is counted with."""
        with _lock:
            if not marks[0].seen:
                # With one alone, else looking at each of its causes would count it off again.
                marks[0].dependents += 1
                self.dependents += 1

    def shown(self) -> list[FailureKind]:
        """Return the kinds of which there are any, the largest first."""
        with _lock:
            return sorted((kind for kind in self.kinds.values() if kind.count), key=lambda kind: -kind.count)


class LookedAt:
    """One failure.

    Attributes:
        seen: Whether somebody looked at it.
        dependents: Number of tasks that were not run and are counted with it.
    """

    __slots__ = ("_kind", "_ledger", "_task_id", "dependents", "seen")

    def __init__(self, ledger: FailureLedger, kind: FailureKind, task_id: int) -> None:
        self._ledger = ledger
        self._kind = kind
        self._task_id = task_id
        self.seen = False
        self.dependents = 0

    @property
    def kind(self) -> str:
        """Name of the kind that it is counted with."""
        return self._kind.name

    def wants_text(self, task_id: int) -> bool:
        """Return whether this is the failure of that task, and one of those that are to be shown."""
        return task_id == self._task_id and task_id in self._kind.samples

    def describe(self, line: str) -> None:
        """Give a line about it, unless it was seen meanwhile."""
        with _lock:
            if self._task_id in self._kind.samples:
                self._kind.samples[self._task_id] = line

    def see(self) -> None:
        """Note that it was looked at. Any thread."""
        with _lock:
            if self.seen:
                return
            self.seen = True
            self._kind.count -= 1
            # A failure that was looked at is no example of one that was not.
            self._kind.samples.pop(self._task_id, None)
            self._ledger.dependents -= self.dependents


class Ended(EndedState):
    """The name of the state of a task that failed, with the marks of the failures that it stands for."""

    marks: tuple[LookedAt, ...]

    @classmethod
    def of(cls, state: str, app: str, marks: Sequence[LookedAt]) -> Ended:
        """Return the name of a state in which a task of an app ended, with the marks of the failures it stands for."""
        ended = cls.of_app(state, app)
        ended.marks = tuple(marks)
        return ended

    def see(self) -> None:
        """Note that these failures were looked at."""
        for mark in self.marks:
            mark.see()


def marks_of(future: StdFuture[Any] | None) -> tuple[LookedAt, ...]:
    """Return the marks of a failed future, those of its task for files and parts of the result too, if it has any."""
    while isinstance(future, Future):
        handle = getattr(future, "_handle", None)
        if isinstance(handle, Ended):
            return handle.marks
        # Futures of files and of parts of results have no handle: the task is that of their parent.
        future = getattr(future, "_parent", None)
    return ()
