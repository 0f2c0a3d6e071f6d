"""Join apps: the futures that a body returns, and their results in their place."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from flow_core.active import current_join
from flow_core.errors import NotFutureError
from flow_core.graph.resolver import DEEP
from flow_core.guard import shown
from flow_core.interfaces.call import NodeContext


class JoinBody:
    """The step around the body of a join app: tasks made inside are known as its children."""

    __slots__ = ("tid",)

    def __init__(self, tid: int) -> None:
        self.tid = tid

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Run the body with its task as the parent of all tasks that it makes; return and raise what the body does."""
        token = current_join.set(self.tid)
        try:
            return inner()
        finally:
            current_join.reset(token)


def returned_futures(who: str, value: object) -> list[Future[Any]]:
    """Return all futures in what a join body returned, at any depth of lists, tuples, dicts and sets.

    Raises:
        NotFutureError: it returned neither a future nor a container.
    """
    found: list[Future[Any]] = []

    def collect(future: Future[Any]) -> object:
        found.append(future)
        return future

    DEEP(value, collect)
    if not found and not issubclass(type(value), (list, tuple, dict, set, frozenset)):
        raise NotFutureError(
            f"{who}: a join app must return a future, or a list, tuple or dict of futures, not {shown(value)}"
        )
    return found


def unwrapped(value: object) -> object:
    """Return what a join body returned with results in the place of its futures, all of which are done."""
    return DEEP(value, lambda future: future.result(timeout=0))
