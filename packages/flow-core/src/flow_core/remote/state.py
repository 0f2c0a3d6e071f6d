"""Process-wide state that a task leaves behind is put back before the next task of the same process.

Three ways lead to a look at it, so that a task that changes nothing pays less than a microsecond. What the interpreter
holds is compared after every task. What the operating system holds costs calls: it is compared after tasks of five
milliseconds or more, which may have changed it in C, and after those that called one of the functions that change it;
so is what of the interpreter is changed by calls alone.
Environment variables tell when they are set.

What is set while a module is loaded stays, since that happens once in a process: variables and what functions set
exactly; additions to ``sys.path`` and to the warning filters, the precision of decimals, ``logging.disable`` and the
timeout of sockets in a task that loaded a package.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from operator import is_
from types import FrameType
from typing import Any

from flow_core.remote.state_parts import (
    CALLED,
    DECIMALS,
    FILTERS,
    LOGGING,
    OF_THE_INTERPRETER,
    OF_THE_SYSTEM,
    PATH,
    SOCKETS,
    STREAMS,
    TEMPORARY,
    Part,
    described_decimals,
)

_LONG_NS = 5_000_000
_LOADING = "<frozen importlib._bootstrap>"
_CHANGERS = (
    (("os", "posix"), ("chdir", "fchdir", "umask", "nice", "setpriority", "sched_setaffinity", "dup2")),
    (("signal", "_signal"), ("signal", "setitimer", "alarm", "pthread_sigmask")),
    (("resource",), ("setrlimit", "prlimit")),
    (("locale", "_locale"), ("setlocale",)),
    (("sys",), ("setrecursionlimit", "setswitchinterval", "settrace", "setprofile")),
    (("gc",), ("enable", "disable")),
)


class ProcessState:
    """The state of this process as a task is to find it. One for each process; its main thread only.

    Making it takes what is there now as the right state, and puts thin wrappers around the functions of ``_CHANGERS``.
    """

    def __init__(self) -> None:
        self._touched = False
        self._variables: dict[Any, Any] = {}
        self._modules: set[str] = set()
        self._known: dict[str, Any] = {}
        _watch_functions(self)
        _watch_environment(self)
        self.take()

    def take(self) -> None:
        """Take what is there now as the right state."""
        self._touched = False
        self._environment = os.environ
        self._variables = dict(_data(os.environ))
        self._modules = set(sys.modules)
        self._known = {part.name: part.read() for part in (*OF_THE_SYSTEM, *OF_THE_INTERPRETER)}
        self._remember()

    def take_changes(self) -> None:
        """Take the state anew if it seems to have been changed since."""
        if self._touched or not self._seems_right():
            self.take()

    def restore(self, took_ns: int) -> str:
        """Put back what the last task, which took so many ns, has changed.

        Returns:
            What could not be put back, in words; empty if all could. Such a process should run no more tasks.
        """
        try:
            packages = len(sys.modules) != self._module_count and self._packages_loaded()
            if took_ns < _LONG_NS and not self._touched and self._seems_right():
                return ""
        except Exception:  # what a task has put there cannot even be compared
            packages = False
        return self._put_back(packages)

    # -- comparing

    def _remember(self) -> None:
        """Keep what is compared after each task where it is found fast."""
        known, modules = self._known, sys.modules
        self._entries, self._filters = known[PATH.name][1], known[FILTERS.name]
        self._module_count = len(modules)
        decimal = modules.get("_decimal")
        if decimal is not None:
            known[DECIMALS.name] = known[DECIMALS.name] or described_decimals(decimal.DefaultContext)
        self._seems_right = _comparison(known, self._environment)

    def _packages_loaded(self) -> bool:
        """Tell whether modules beside the standard library were loaded since the last time."""
        new = sys.modules.keys() - self._modules
        self._modules |= new
        self._remember()
        return any(name.partition(".")[0] not in sys.stdlib_module_names for name in new)

    # -- putting back

    def _put_back(self, packages: bool) -> str:
        failed = [part.name for part in OF_THE_SYSTEM if not self._right(part)]
        variables_changed = self._put_variables_back()
        if packages:
            self._keep_additions()
        self._keep_temporary(variables_changed)
        failed += [part.name for part in OF_THE_INTERPRETER if not self._right(part)]
        self._known[STREAMS.name] = STREAMS.read()
        self._remember()
        self._touched = False
        return ", ".join(failed)

    def _right(self, part: Part) -> bool:
        """Make one part right; tell whether it is."""
        right = self._known[part.name]
        try:
            if part is not STREAMS and _same(part.read(), right):
                return True
            part.write(right)
            return part is STREAMS or _same(part.read(), right)
        except Exception:  # it could not be read or put back, or what the task has put there is odd
            return False

    def _put_variables_back(self) -> bool:
        """Put the environment back; tell whether it was changed."""
        os.environ = self._environment  # noqa: B003  (it is the same object, if a task has put another one there)
        now, right = _data(os.environ), self._variables
        if now == right:
            return False
        decode = self._environment.decodekey
        value_of = self._environment.decodevalue
        for name in now.keys() - right.keys():
            del os.environ[decode(name)]
        for name, value in right.items():
            if now.get(name) != value:
                os.environ[decode(name)] = value_of(value)
        return True

    def _keep_additions(self) -> None:
        if set(self._entries) <= set(sys.path):
            self._known[PATH.name] = PATH.read()
        if all(kept in warnings.filters for kept in self._filters):
            self._known[FILTERS.name] = FILTERS.read()
        for part in (DECIMALS, LOGGING, SOCKETS):
            self._known[part.name] = part.read()

    def _keep_temporary(self, variables_changed: bool) -> None:
        """Let tempfile keep the directory that it has found, unless the task has led it there."""
        found = TEMPORARY.read()
        if self._known[TEMPORARY.name] is None and found is not None and not variables_changed:
            candidates = sys.modules["tempfile"]._candidate_tempdir_list()
            if found in candidates:
                self._known[TEMPORARY.name] = found

    # -- told by what was called

    def function_called(self) -> None:
        """One of ``_CHANGERS`` was called."""
        if _is_loading():
            for part in (*OF_THE_SYSTEM, *CALLED):
                self._known[part.name] = part.read()
        else:
            self._touched = True

    def variable_set(self, name: Any) -> None:
        """A variable of the environment was set or removed; ``name`` is as the environment keeps it."""
        if not _is_loading():
            self._touched = True
        elif name in _data(self._environment):
            self._variables[name] = _data(self._environment)[name]
        else:
            self._variables.pop(name, None)


class _Absent:
    """Stands for streams and modules that are not there, so that nobody has to ask whether they are."""

    closed = False

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def _comparison(known: dict[str, Any], environment: object) -> Callable[[], bool]:
    """Return a function that compares with what is known all that needs no call of the operating system.

    A function of its own, since names of a function are found faster than attributes.
    """
    path, entries = known[PATH.name]
    stdin, stdout, stderr = known[STREAMS.name]
    out, err = (_Absent() if stream is None else stream for stream in (stdout, stderr))
    arguments, filters = known["sys.argv"][1], known[FILTERS.name]
    disabled, timeout, temporary = known[LOGGING.name], known[SOCKETS.name], known[TEMPORARY.name]
    modules = sys.modules
    logging, socket = modules.get("logging"), modules.get("_socket")
    manager: Any = _Absent(disable=disabled) if logging is None else logging.root.manager
    timeout_now = (lambda: timeout) if socket is None else socket.getdefaulttimeout
    tempfile: Any = modules.get("tempfile") or _Absent(tempdir=temporary)
    decimal = modules.get("_decimal")
    right = known[DECIMALS.name]

    def seems_right() -> bool:
        return (
            sys.path is path
            and path == entries
            and sys.stdout is stdout
            and sys.stderr is stderr
            and sys.stdin is stdin
            and not out.closed
            and not err.closed
            and os.environ is environment
            and sys.argv == arguments
            and warnings.filters == filters
            and manager.disable == disabled
            and tempfile.tempdir == temporary
            and timeout_now() == timeout
            and (decimal is None or _same_decimals(decimal.getcontext(), right))
        )

    return seems_right


def _same_decimals(context: Any, right: dict[str, Any]) -> bool:
    return bool(context.prec == right["prec"] and context.rounding == right["rounding"])


def _same(one: Any, other: Any) -> bool:
    """Compare by identity first, so that objects of the user's are not asked."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return all(map(is_, one, other)) or all(map(_same, one, other))
    return one is other or (type(one) is type(other) and bool(one == other))


def _data(environment: Any) -> dict[Any, Any]:
    data: dict[Any, Any] = environment._data
    return data


def _is_loading() -> bool:
    """Tell whether a module is being loaded by the calling thread."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != _LOADING:
        frame = frame.f_back
    return frame is not None


# -- watching


def _watch_functions(state: ProcessState) -> None:
    for places, names in _CHANGERS:
        modules = [sys.modules[place] for place in places if place in sys.modules]
        for name in names:
            for module in modules:
                original = getattr(module, name, None)
                if original is not None and not hasattr(original, "_flow_watches"):
                    _replace(modules, name, original, _watched(original, state))


def _watched(original: Any, state: ProcessState) -> Any:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        state.function_called()
        return result

    call._flow_watches = original  # type: ignore[attr-defined]  # marks it
    return call


def _replace(modules: list[Any], name: str, original: object, watched: object) -> None:
    for module in modules:
        if getattr(module, name, None) is original:
            setattr(module, name, watched)
    for able in (os.supports_fd, os.supports_follow_symlinks, os.supports_dir_fd):
        if original in able:
            able.add(watched)  # type: ignore[arg-type]  # a function


def _watch_environment(state: ProcessState) -> None:
    kind = type(os.environ)

    class Environment(kind):  # type: ignore[misc, valid-type]  # the class that os made them of
        """Variables that tell when they are changed."""

        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            state.variable_set(self.encodekey(key))

        def __delitem__(self, key: Any) -> None:
            super().__delitem__(key)
            state.variable_set(self.encodekey(key))

    Environment.__name__ = Environment.__qualname__ = kind.__name__
    Environment.__module__ = kind.__module__
    os.environ.__class__ = Environment
    if hasattr(os, "environb"):
        os.environb.__class__ = Environment
