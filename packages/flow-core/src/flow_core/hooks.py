"""Calling what the user gave to a run: its exceptions become errors that name it, and the task concerned."""

from __future__ import annotations

from _thread import get_ident

from flow_core.errors import FlowError, HookError
from flow_core.guard import called, is_a, one_line, pass_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import NoReturn


_going: dict[int, Calling] = {}
"""What is called now, by thread."""


def going_on(thread: int | None) -> Calling | None:
    """Return what a thread calls now, as far as it is known. Any thread."""
    return None if thread is None else _going.get(thread)


class Calling:
    """A ``with`` block in which something of the user's is called.

    Flow's own errors come out of it as they are, and so does the exception of a signal. Anything else, ``SystemExit``
    and the like included, comes out as a HookError, with what was raised as its cause.
    """

    __slots__ = ("_hook", "_method", "_role", "_who")

    def __init__(self, who: object, role: str, hook: object, method: str = "") -> None:
        """Say for whom it is called (a task), as what it was given (``"memoizer"``), what it is, and which method."""
        self._who = who
        self._role = role
        self._hook = hook
        self._method = method

    def __enter__(self) -> Calling:
        _going[get_ident()] = self
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _going.pop(get_ident(), None)
        if error is None or is_a(error, FlowError):
            return
        pass_signal(error)
        raise HookError(f"{self._who}: {self.name} raised {one_line(error)}", self.name) from error

    def __str__(self) -> str:
        return f"{self.name}, called for {self._who},"

    @property
    def name(self) -> str:
        """What is called, for messages."""
        return hook_name(self._role, self._hook, self._method)

    def gave(self, value: object, wanted: str) -> NoReturn:
        """Refuse what it returned. Raises HookError."""
        from flow_core.guard import shown

        raise HookError(f"{self._who}: {self.name} returned {shown(value)}, which is not {wanted}", self.name)


def within(timeout_s: float, call: Callable[[], object], name: str) -> bool:
    """Call something of the user's on a thread of this name, and wait for it so many seconds; tell whether it ended.

    Raises:
        BaseException: what it raised. One that has not ended goes on, on a daemon thread, and nobody waits for it.
    """
    import threading

    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        return False
    if raised:
        raise raised[0]
    return True


_OWN = frozenset(("flow", "flow_core", "flow_executors", "flow_monitor", "flow_staging"))


def is_own(hook: object) -> bool:
    """Tell whether an object is of a class of Flow's own, whose methods keep to what its interface asks for."""
    return type(hook).__module__.partition(".")[0] in _OWN


def hook_name(role: str, hook: object, method: str = "") -> str:
    """Return the name of a hook, or of one of its methods, for messages: ``memoizer Mine.key()``."""
    return f"{role} {called(hook)}.{method}()" if method else f"{role} {called(hook)}()"
