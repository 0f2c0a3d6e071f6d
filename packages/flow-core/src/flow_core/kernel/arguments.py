"""Futures in the arguments of a call: found at submission, replaced by their results at launch."""

from __future__ import annotations

import inspect
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from flow_core.errors import HiddenFutureError
from flow_core.files import FILE_TYPES
from flow_core.futures.app_future import AppFuture
from flow_core.futures.callbacks import packing_calls
from flow_core.graph.resolver import ATOMS, DEEP, may_hold_files, one_level, refuse_hidden, shallow
from flow_core.graph.task import FUTURES, PLAIN, UNKNOWN, SharedArguments
from flow_core.guard import is_a
from flow_core.hooks import Calling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flow_core.graph.resolver import Resolver, Result
    from flow_core.graph.task import Task

_SPECIAL = frozenset(("inputs", "outputs", "stdout", "stderr"))
_MANY = 8  # arguments from which a test of all their types at once, in C, is cheaper than one after the other
_NO_FUTURES = ATOMS.union(FILE_TYPES)
"""Types of which an object surely is no future and holds none."""
_TASKS = {AppFuture}
_SEARCHED = (Future, list, tuple, dict, set, frozenset)
"""Types of which the default resolver replaces or searches objects: it leaves all others as they are."""


def are_plain(args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    """Return whether arguments surely hold neither futures nor files."""
    # A loop and no all(): the generator of that would cost more than the few arguments of most calls.
    for value in args:
        if type(value) not in ATOMS:
            return False
    if kwargs:
        return _SPECIAL.isdisjoint(kwargs) and all(type(value) in ATOMS for value in kwargs.values())
    return True


def need_staging(args: tuple[object, ...], kwargs: dict[str, object], takes: frozenset[str]) -> bool:
    """Return whether staging must look at resolved arguments; ``takes`` are the special ones that the function gets."""
    for value in args if len(args) < _MANY or not ATOMS.issuperset(map(type, args)) else ():
        if type(value) not in ATOMS and may_hold_files(value):
            return True
    for name, value in kwargs.items():
        if name in _SPECIAL and name not in takes:
            return True
        if type(value) not in ATOMS and may_hold_files(value) and not _only(ATOMS, value):
            return True
    return False


def _only(types: frozenset[type], value: object) -> bool:
    """Tell, at the speed of C, whether a value is a list that holds nothing but objects of some types."""
    return type(value) is list and types.issuperset(map(type, value))


def _only_tasks(task: Task, inputs: list[Any]) -> bool:
    if task.holds == FUTURES:  # then all are of this type, or none
        return bool(inputs) and type(inputs[0]) is AppFuture
    return all_futures(inputs)


def all_futures(args: Sequence[object]) -> bool:
    """Tell of many arguments whether all are futures of tasks."""
    if len(args) < _MANY:
        return False
    for value in args:  # noqa: SIM110  (all() takes twice as long)
        if type(value) is not AppFuture:
            return False
    return True


class Arguments:
    """Finds and replaces futures by the resolver of a run, or the default way.

    Attributes:
        quick: Whether an argument that is a future of a task is replaced by its result, as by Flow's own resolvers.
    """

    def __init__(self, resolver: Resolver | None) -> None:
        """Take ``Config.dependency_resolver``; None stands for Flow's default, which looks at arguments alone."""
        self._resolver = resolver
        self.quick = resolver is None or resolver is DEEP

    def futures(self, task: Task) -> list[Future[Any]]:
        """Return the futures in a call's arguments.

        ``inputs`` is copied on the way: what the caller does to the list later changes nothing.

        Raises:
            HiddenFutureError: one is hidden where it would not be waited for.
        """
        found: list[Future[Any]] = []

        def collect(future: Future[Any]) -> object:
            found.append(future)
            return future

        quick, holds = self.quick, PLAIN if self.quick else UNKNOWN
        if quick and all_futures(task.args):
            found.extend(cast("tuple[AppFuture[Any], ...]", task.args))
            holds = FUTURES
        else:
            for index, value in enumerate(task.args):
                if quick and type(value) is AppFuture:
                    found.append(value)
                    holds = min(holds, FUTURES)
                elif type(value) not in ATOMS:
                    self._gather(task, index, value, collect)
                    holds = UNKNOWN
        if task.kwargs:
            holds = min(holds, self._named_futures(task, found, collect))
        task.holds = holds
        return found

    def _named_futures(self, task: Task, found: list[Future[Any]], collect: Callable[[Future[Any]], object]) -> int:
        """Find the futures in arguments that are given by name; return what these hold."""
        quick, holds = self.quick, PLAIN
        inputs = task.kwargs.get("inputs")
        if isinstance(inputs, list):
            # The task may run much later: what the caller does to the list until then must not reach it.
            task.kwargs = {**task.kwargs, "inputs": list(inputs)}
        for name, value in task.kwargs.items():
            if name in _SPECIAL and name not in task.app.takes:
                holds = min(holds, FUTURES)  # staging takes it out
            if type(value) in ATOMS:
                continue
            kinds = set(map(type, value)) if quick and type(value) is list else None
            if kinds is not None and name == "inputs" and kinds <= ATOMS:
                continue
            if kinds == _TASKS and name == "inputs":
                found.extend(cast("list[AppFuture[Any]]", value))
                holds = min(holds, FUTURES)
                continue
            holds = UNKNOWN
            if kinds is None or not kinds <= _NO_FUTURES:
                self._gather(task, name, value, collect)
        return holds

    def held(self, task: Task) -> list[Future[Any]]:
        """Return the futures in a call's arguments as they are now, and change nothing: its task may go on meanwhile.

        Of a resolver of the user's own what it found at the call: it is not asked again, since it may not return.
        """
        if not self.quick:
            asked = None if task.details is None else task.details.asked
            return [*asked] if asked is not None else []
        found: list[Future[Any]] = []

        def collect(future: Future[Any]) -> object:
            found.append(future)
            return future

        positional: list[tuple[int | str, object]] = list(enumerate(task.args))
        for where, value in [*positional, *task.kwargs.items()]:
            if is_a(value, Future):
                found.append(value)
            elif type(value) is SharedArguments:
                found.extend(value)
            elif type(value) not in ATOMS and not _only(_NO_FUTURES, value):
                try:
                    self._way(task, where, value)(value, collect)
                except Exception:
                    continue
        return found

    def resolve(self, task: Task) -> bool:
        """Put results in the place of futures; all of them are done and ended well.

        Returns:
            Whether the arguments are known to hold no files; False where nobody has looked.
        """
        if task.holds == PLAIN:
            return True
        if task.details is not None:
            task.details.asked = None  # else it would hold the results for as long as the task lives
        if type(task.args) is SharedArguments:
            # Resolved once for all calls that share them: m parents and n children are m results, not m times n.
            common = task.args
            task.args = common.resolved()
            return common.plain
        quick = self.quick
        if quick and all_futures(task.args):
            task.args = tuple([future._result for future in cast("tuple[AppFuture[Any], ...]", task.args)])
        else:
            task.args = tuple(
                [
                    value._result if quick and type(value) is AppFuture else self._resolved(task, index, value)
                    for index, value in enumerate(task.args)
                ]
            )
        kwargs = task.kwargs
        if not kwargs:
            return False
        task.kwargs = {name: self._resolved(task, name, value) for name, value in kwargs.items()}
        inputs = kwargs.get("inputs")
        if type(inputs) is SharedArguments and len(kwargs) == 1 and not task.args:
            return inputs.plain and "inputs" in task.app.takes
        return False

    def _gather(self, task: Task, where: int | str, value: object, collect: Callable[[Future[Any]], object]) -> None:
        # Most objects and containers; the note below, by which the log names what hangs, costs more than this look.
        if self._resolver is None and (not issubclass(type(value), _SEARCHED) or _holds_none(value)):
            return
        before = packing_calls.enter(partial(_searching, task, where))
        try:
            self._apply(task, where, value, collect)
            if self._resolver is None:
                _refuse(task, where, value)
        finally:
            packing_calls.leave(before)

    def _apply(self, task: Task, where: int | str, value: object, result: Result) -> object:
        way = self._way(task, where, value)
        # Flow's own resolvers raise nothing unexpected, so they need no guard around them.
        if self.quick:
            return way(value, result)
        with Calling(task, "dependency_resolver", way):
            return way(value, result)

    def _resolved(self, task: Task, where: int | str, value: object) -> object:
        if type(value) in ATOMS:
            return value
        if type(value) is SharedArguments:
            return list(value.resolved())
        if self.quick and where == "inputs" and type(value) is list and _only_tasks(task, value):
            return [future._result for future in value]
        if self.quick and _only(_NO_FUTURES, value):
            return value
        if self._resolver is None and not issubclass(type(value), _SEARCHED):
            return value
        return self._apply(task, where, value, _result)

    def _way(self, task: Task, where: int | str, value: object) -> Callable[[object, Result], object]:
        if self._resolver is not None:
            return self._resolver
        if issubclass(type(value), (list, tuple, dict)) and _name(task, where) == "inputs":
            return one_level
        return shallow


def _result(future: Future[Any]) -> object:
    # All that were found at the call are done: so this one came into a list of the caller's later.
    if not future.done():
        raise HiddenFutureError(
            f"an argument was changed after the call: it holds {future!r} now, which was not waited for. Give each "
            "call a list of its own."
        )
    return future.result(timeout=0)


def _refuse(task: Task, where: int | str, value: object) -> None:
    if is_a(value, Future):
        return
    name = _name(task, where)
    if name != "inputs":
        refuse_hidden(name, value)
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        if may_hold_files(item):  # a container
            refuse_hidden(f"{name}[{key!r}]", item)


def _holds_none(value: object) -> bool:
    """Tell, at the speed of C, whether a value is a container of Python's own that surely holds no future."""
    kind = type(value)
    if kind is list or kind is tuple:
        return _NO_FUTURES.issuperset(map(type, value))  # type: ignore[call-overload]  # as was just seen
    if kind is dict:
        return _NO_FUTURES.issuperset(map(type, value)) and _NO_FUTURES.issuperset(map(type, value.values()))  # type: ignore[call-overload, attr-defined]
    return False


def _searching(task: Task, where: int | str) -> str:
    return f"the search for futures in argument {_name(task, where)!r} of {task}"


def _name(task: Task, where: int | str) -> str:
    """Return the name of the parameter that an argument fills, by position or name."""
    if isinstance(where, str):
        return where
    code = getattr(task.func, "__code__", None)
    if code is not None and where < code.co_argcount:
        return str(code.co_varnames[where])
    try:
        bound = inspect.signature(task.func).bind_partial(*task.args[: where + 1])
        return list(bound.arguments)[-1]
    except (TypeError, ValueError, IndexError):
        return f"#{where + 1}"
