"""Calling what the user gave to a run: its exceptions become errors that name it, and the task concerned."""

from __future__ import annotations

from _thread import get_ident
from time import time_ns

from flow_core.errors import FlowError, HookError
from flow_core.guard import called, is_a, one_line, pass_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn, Self


_going: dict[int, Noted] = {}
"""What is called now, by thread."""


def going_on(thread: int | None) -> Noted | None:
    """Return what a thread calls now, as far as it is known. Any thread."""
    return None if thread is None else _going.get(thread)


def going_on_for(who: object) -> list[Noted]:
    """Return what is called now for a task, by whatever threads. Any thread."""
    return [call for call in [*_going.values()] if call.is_for(who)]


class Noted:
    """A ``with`` block in which something of the user's is called, so that others can say what it waits for.

    What is raised comes out of it as it is.

    Attributes:
        since_ns: When it began, int64 ns UTC; 0 before.
    """

    __slots__ = ("_hook", "_method", "_role", "_who", "since_ns")

    def __init__(self, who: object, role: str, hook: object, method: str = "") -> None:
        """Say for whom it is called (a task, or several), as what it was given (``"memoizer"``), what, which method."""
        self._who = who
        self._role = role
        self._hook = hook
        self._method = method
        self.since_ns = 0

    def __enter__(self) -> Self:
        self.since_ns = time_ns()
        _going[get_ident()] = self
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _going.pop(get_ident(), None)

    def __str__(self) -> str:
        return f"{self.name}, called for {self._first},"

    @property
    def name(self) -> str:
        """What is called, for messages."""
        return hook_name(self._role, self._hook, self._method)

    @property
    def _first(self) -> object:
        return self._who[0] if is_a(self._who, list) else self._who

    def is_for(self, who: object) -> bool:
        """Tell whether it is called for a task, given as itself or by what it is called."""
        if is_a(self._who, list):
            return who in self._who
        return self._who is who or (is_a(self._who, str) and f"{self._who},".startswith(f"{who},"))


class Calling(Noted):
    """The same, with errors that name what was called.

    Flow's own errors come out of it as they are, and so does the exception of a signal. Anything else, ``SystemExit``
    and the like included, comes out as a HookError, with what was raised as its cause.
    """

    __slots__ = ()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _going.pop(get_ident(), None)
        if error is None or is_a(error, FlowError):
            return
        pass_signal(error)
        raise HookError(f"{self._who}: {self.name} raised {one_line(error)}", self.name) from error

    def gave(self, value: object, wanted: str) -> NoReturn:
        """Refuse what it returned. Raises HookError."""
        from flow_core.guard import shown

        raise HookError(f"{self._who}: {self.name} returned {shown(value)}, which is not {wanted}", self.name)


_OWN = frozenset(("flow", "flow_core", "flow_executors", "flow_monitor", "flow_staging"))


def is_own(hook: object) -> bool:
    """Tell whether an object is of a class of Flow's own, whose methods keep to what its interface asks for."""
    return type(hook).__module__.partition(".")[0] in _OWN


def hook_name(role: str, hook: object, method: str = "") -> str:
    """Return the name of a hook, or of one of its methods, for messages: ``memoizer Mine.key()``."""
    return f"{role} {called(hook)}.{method}()" if method else f"{role} {called(hook)}()"
