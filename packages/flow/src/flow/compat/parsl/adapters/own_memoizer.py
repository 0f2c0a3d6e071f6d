"""Memoizers of the user's own in Parsl's style, for Flow's kernel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from flow.compat.parsl.adapters.tasks import record_of
from flow_core.errors import Unhashable
from flow_core.futures.lean import when_done
from flow_core.graph.task import Task
from flow_core.interfaces.memoizer import AppIdentity, MemoEntry, Memoizer, MemoKey, MissReason
from flow_core.memo.key import memo_key

if TYPE_CHECKING:
    from pathlib import Path

    from flow_core.interfaces.call import Call


class _Found:
    """What ``check_memo`` gave back."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def result(self) -> object:
        """Return the remembered result."""
        return self._future.result()


class OwnMemoizer(Memoizer):
    """Asks a memoizer of Parsl's kind for each call, and tells it how its tasks end.

    Attributes:
        own: The user's memoizer.
    """

    def __init__(self, own: Any) -> None:
        self.own = own

    def key(self, app: AppIdentity, call: Call) -> MemoKey:
        """Return a key by which identical calls in flight are one; each is one of its own where there is none."""
        try:
            return memo_key(app, call)
        except Unhashable:
            return MemoKey(f"call {id(call)}".encode(), app.name)  # the user's memoizer may well know it

    def lookup(self, key: MemoKey) -> _Found | None:
        """Return nothing: it decides by the call."""
        return None

    def lookup_call(self, key: MemoKey, call: Call) -> _Found | None:
        """Return what the user's memoizer remembers of a task. A remembered failure is not used: the task is run."""
        assert isinstance(call, Task)
        future: Future[Any] | None = self.own.check_memo(record_of(call))
        if future is None or future.exception() is not None:
            record = record_of(call)
            when_done(call.future, lambda done: self._ended(record, done))
            return None
        return _Found(future)

    def _ended(self, record: Any, future: Future[Any]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self.own.update_memo_exception(record, error)
        else:
            self.own.update_memo_result(record, future.result())

    def store(self, entries: Sequence[MemoEntry]) -> None:
        """Do nothing: the user's memoizer is told when the future is done."""

    def checkpoint(self, tasks: Sequence[int] | None = None) -> Path | None:
        """Write what the user's memoizer has to write, where it has a ``checkpoint``."""
        write = getattr(self.own, "checkpoint", None)
        if write is not None:
            write()
        return None

    def explain(self, key: MemoKey) -> MissReason:
        """Say who decides."""
        return MissReason(f"{type(self.own).__name__} found nothing")

    def close(self) -> None:
        """Close the user's memoizer."""
        self.own.close()
