"""Hooks: calls of what the user gave to a run. Exceptions become errors that name the hook and the task."""

from __future__ import annotations

import gc
import operator
import sys
from _thread import get_ident
from time import time_ns

from flow_core.errors import FlowError, HookError
from flow_core.guard import called, is_a, one_line, pass_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Any, NoReturn, Self


BEGIN = "the run cannot begin"
"""Stands in the place of a task for hooks that are called when a run begins."""
_going: dict[int, Noted] = {}
"""Calls that go on now, by thread. No lock: each thread writes its own entry, and readers take a copy."""


def going_on(thread: int | None) -> Noted | None:
    """Return the noted call that a thread is in now, if it is in one. Any thread."""
    return None if thread is None else _going.get(thread)


def going_on_for(who: object) -> list[Noted]:
    """Return the noted calls for a task that go on now, on all threads. Any thread."""
    return [call for call in [*_going.values()] if call.is_for(who)]


class Noted:
    """A ``with`` block in which something of the user's is called, so that others can say what it waits for.

    What is raised comes out of it as it is.

    Attributes:
        since_ns: When it began, int64 ns UTC; 0 before.
    """

    __slots__ = ("_hook", "_method", "_outer", "_role", "_thread", "_who", "since_ns")

    def __init__(self, who: object, role: str, hook: object, method: str = "") -> None:
        """Take the task or tasks concerned, the role of the hook (``"memoizer"``), the hook itself, and its method."""
        self._who = who
        self._role = role
        self._hook = hook
        self._method = method
        self._outer: Noted | None = None
        self._thread = 0
        self.since_ns = 0

    def __enter__(self) -> Self:
        self.since_ns = time_ns()
        me = self._thread = get_ident()
        # Hooks may call hooks: the outer one is there again when the inner one has returned.
        outer = self._outer = _going.get(me)
        if outer is None or not is_own(self._hook):  # Flow's own parts are not worth naming beside what they are for
            _going[me] = self
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        outer, self._outer = self._outer, None
        if outer is None:
            _going.pop(self._thread, None)
        else:
            _going[self._thread] = outer

    def __str__(self) -> str:
        return f"{self.name}, called at the begin of the run," if self._who is BEGIN else self._for_task

    @property
    def _for_task(self) -> str:
        return f"{self.name}, called for {self._first},"

    def clause(self, since: str) -> str:
        """Return a clause about the call for explanations of its task; ``since`` says since when it goes on."""
        return f"{self.name} is called for it {since}, and has not returned{self.where}"

    @property
    def where(self) -> str:
        """Place in the user's code where the call is now, as an addition to a clause: see ``where_in_users_code``."""
        return where_in_users_code(self._thread)

    @property
    def name(self) -> str:
        """Name of the hook that is called, for messages."""
        return hook_name(self._role, self._hook, self._method)

    @property
    def _first(self) -> object:
        return self._who[0] if is_a(self._who, list) else self._who

    def is_for(self, who: object) -> bool:
        """Return whether it is called for a task, given as itself or by what it is called."""
        if is_a(self._who, list):
            return who in self._who
        return self._who is who or (is_a(self._who, str) and f"{self._who},".startswith(f"{who},"))


class Calling(Noted):
    """A noted call whose errors name the hook that was called.

    Flow's own errors come out of it as they are, and so does the exception of a signal. Anything else, ``SystemExit``
    and the like included, comes out as a HookError, with what was raised as its cause.
    """

    __slots__ = ()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._end()
        # Errors of Flow name what is wrong by themselves: a memoizer may raise BadCheckpoint, say.
        if error is None or is_a(error, FlowError):
            return
        pass_signal(error)
        raise HookError(f"{self._who}: {self.name} raised {one_line(error)}", self.name) from error

    def gave(self, value: object, wanted: str) -> NoReturn:
        """Refuse what it returned. Raises HookError."""
        from flow_core.guard import shown

        raise HookError(f"{self._who}: {self.name} returned {shown(value)}, which is not {wanted}", self.name)


class Handling(Noted):
    """A noted piece of Flow's own work on data of a task, where methods of the user's objects may be called.

    Errors come out as they are.
    """

    __slots__ = ("_after",)

    def __init__(self, task: object, deed: str, thing: str, after: str = "") -> None:
        """Say of which task, what is done (``"the packing of"``), with what of it (``"arguments"``), and what for."""
        super().__init__(task, deed, thing)
        self._after = after

    def __str__(self) -> str:
        return f"{self._role} the {self._hook} of {self._first}{self._after}"

    @property
    def name(self) -> str:
        """Name of the work, for messages, such as ``the packing of its arguments``."""
        return f"{self._role} its {self._hook}{self._after}"

    def clause(self, since: str) -> str:
        """Return a clause about this work for explanations of its task; ``since`` says since when it goes on."""
        return f"{self.name} goes on {since}{self.where}"


_OWN = frozenset(("flow", "flow_core", "flow_executors", "flow_monitor", "flow_providers", "flow_staging"))
_LIBRARY = sys.stdlib_module_names | {"cloudpickle"}


def frame_of(thread: int) -> FrameType | None:
    """Return the innermost frame of a thread, if it lives. Any thread.

    The interpreter looks at frames under the lock of its list of threads. Up to Python 3.11 garbage may be collected
    meanwhile, and freeing a ``threading.local`` takes that lock again, for ever: so none is collected.
    """
    if not gc.isenabled():
        return sys._current_frames().get(thread)
    # In one step of the interpreter: neither a signal's handler nor another thread, which may fork, comes in between.
    steps: tuple[Callable[[], Any], ...] = (gc.disable, sys._current_frames, gc.enable)
    _, frames, _ = map(operator.call, steps)
    return frames.get(thread)  # type: ignore[no-any-return]  # what the second step returns


def where_in_users_code(thread: int) -> str:
    """Return the functions of the user's that a thread is in: ``, in Mine.__reduce__ (job.py:12), at read (job.py:7)``.

    The first is the one that Flow, or a library for it, has called, the other the innermost of those called by it.
    Empty where it is in none. Any thread.
    """
    frame, users = frame_of(thread), list[str]()
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module in _OWN:
            # Frames below are those of Flow, which called the user's code.
            if users:
                break
        elif module not in _LIBRARY:
            users.append(f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})")
        frame = frame.f_back
    if not users:
        return ""
    return f", in {users[-1]}" + (f", at {users[0]}" if len(users) > 1 else "")


def is_own(hook: object) -> bool:
    """Return whether an object is of a class of Flow's own, whose methods keep to what its interface asks for.

    A class of Flow's that calls an object of the user's in each method says ``of_users = True``: it is none.
    """
    kind = type(hook)
    return kind.__module__.partition(".")[0] in _OWN and not getattr(kind, "of_users", False)


def hook_name(role: str, hook: object, method: str = "") -> str:
    """Return the name of a hook, or of one of its methods, for messages: ``memoizer Mine.key()``."""
    return f"{role} {called(hook)}.{method}()" if method else f"{role} {called(hook)}()"
