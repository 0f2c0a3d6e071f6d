"""Futures with Parsl's attributes. They are Flow's own, with another class: nothing is wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import flow_core
from flow_core.futures.derived import DerivedFuture

if TYPE_CHECKING:
    from flow.compat.parsl.adapters.tasks import TaskRecord

R = TypeVar("R")


class DataFuture(flow_core.DataFuture):
    """The future of a file; ``filename`` is its whole path, as in Parsl."""

    __slots__ = ()

    @property
    def filename(self) -> str:
        """Path of the file, as ``filepath``."""
        return self.filepath


class AppFuture(flow_core.AppFuture[R]):
    """The future of a call."""

    __slots__ = ()

    @property
    def task_record(self) -> TaskRecord:
        """What is known of the task, with Parsl's names."""
        from flow.compat.parsl.adapters.tasks import record_of_future

        return record_of_future(self)


def as_in_parsl(future: flow_core.AppFuture[R]) -> AppFuture[R]:
    """Give a future of Flow's, which its caller alone has so far, Parsl's attributes."""
    files = future._files
    if files is not None:
        for one in files.all():
            one.__class__ = DataFuture
    future.__class__ = AppFuture
    return cast("AppFuture[R]", future)


def deferred_getattr(future: AppFuture[R], name: str) -> DerivedFuture[object]:
    """Return the future of an attribute of the result."""
    return cast("DerivedFuture[object]", getattr(future, name))


def deferred_getitem(future: AppFuture[R], key: object) -> DerivedFuture[object]:
    """Return the future of an item of the result."""
    return cast("DerivedFuture[object]", future[key])
