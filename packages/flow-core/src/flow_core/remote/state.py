"""State of the process that a task leaves behind is put back before the next task of the same process.

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

import _locale
import _signal  # type: ignore[import-not-found]  # not in the stubs; without enumerations it is faster
import functools
import gc
import os
import resource
import signal
import sys
import warnings
from _locale import setlocale
from _signal import pthread_sigmask, setitimer, signal as set_handler
from collections.abc import Callable
from gc import disable, enable
from operator import eq, is_
from os import chdir, sched_setaffinity, setpriority, umask
from resource import getrlimit, setrlimit
from types import FrameType
from typing import Any, NamedTuple

# As they are here: ``flow_core.remote.state`` puts wrappers in their places.

# Standard signals; real-time ones are left alone.
_SIGNALS = range(1, 32)
_TIMERS = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)
_STREAMS = ("stdin", "stdout", "stderr")


def same(one: Any, other: Any) -> bool:
    """Compare by identity first, so that objects of the user's are not asked."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return all(map(is_, one, other)) or all(map(same, one, other))
    return one is other or (type(one) is type(other) and bool(one == other))


class StatePart(NamedTuple):
    """One part of the state. ``read`` gives what ``write`` takes; that raises OSError or ValueError where it cannot.

    ``same`` compares two readings: where they hold no objects of the user's they are simply equal.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    same: Callable[[Any, Any], bool] = same


# -- of the operating system: a call each to read


def _pending_timers() -> tuple[bool, ...]:
    return tuple([_signal.getitimer(which)[0] != 0.0 for which in _TIMERS])


def _stop_timers(pending: tuple[bool, ...]) -> None:
    for which, was_pending in zip(_TIMERS, pending, strict=True):
        if not was_pending:
            setitimer(which, 0.0)


def _handlers() -> list[object]:
    return list(map(_signal.getsignal, _SIGNALS))


def _set_handlers(handlers: list[Any]) -> None:
    for number, handler in zip(_SIGNALS, handlers, strict=True):
        if handler is not None and _signal.getsignal(number) is not handler:
            set_handler(number, handler)


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # it was removed


def _umask() -> int:
    # It can be read by being set alone; with 077 whatever another thread makes meanwhile is private.
    mask = umask(0o077)
    umask(mask)
    return mask


def _limits() -> list[tuple[int, int]]:
    return list(map(getrlimit, LIMITS))


def _set_limits(limits: list[tuple[int, int]]) -> None:
    for which, both in zip(LIMITS, limits, strict=True):
        if getrlimit(which) != both:
            setrlimit(which, both)


LIMITS = tuple({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
"""Resources that can be limited here."""


def _locale_name() -> str:
    return str(setlocale(_locale.LC_ALL))


def _set_locale(name: str) -> None:
    setlocale(_locale.LC_ALL, name)


def _descriptors() -> list[tuple[int, int] | None]:
    return [_file_behind(number) for number in (0, 1, 2)]


def _file_behind(number: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _cannot(value: object) -> None:
    raise OSError("this cannot be undone")


OF_THE_SYSTEM = (
    # Timers first, else they fire while the rest is put back.
    StatePart("timers", _pending_timers, _stop_timers, eq),
    StatePart("signal handlers", _handlers, _set_handlers),
    StatePart("blocked signals", lambda: pthread_sigmask(0, ()), lambda mask: pthread_sigmask(2, mask), eq),
    StatePart("working directory", _directory, chdir, eq),
    StatePart("umask", _umask, umask, eq),
    StatePart("resource limits", _limits, _set_limits, eq),
    StatePart("CPU affinity", lambda: os.sched_getaffinity(0), lambda cpus: sched_setaffinity(0, cpus), eq),
    StatePart("niceness", lambda: os.getpriority(os.PRIO_PROCESS, 0), lambda n: setpriority(os.PRIO_PROCESS, 0, n), eq),
    StatePart("locale", _locale_name, _set_locale, eq),
    StatePart("standard streams (descriptors 0 to 2)", _descriptors, _cannot, eq),
)
assert (signal.SIG_BLOCK, signal.SIG_SETMASK) == (0, 2)


# -- of the interpreter: cheap to read


def _path() -> tuple[list[str], list[str]]:
    return sys.path, list(sys.path)


def _set_path(value: tuple[list[str], list[str]]) -> None:
    sys.path, entries = value
    sys.path[:] = entries


def _arguments() -> tuple[list[str], list[str]]:
    return sys.argv, list(sys.argv)


def _set_arguments(value: tuple[list[str], list[str]]) -> None:
    sys.argv, arguments = value
    sys.argv[:] = arguments


def _streams() -> list[Any]:
    return [getattr(sys, name) for name in _STREAMS]


def _set_streams(streams: list[Any]) -> None:
    for number, (name, stream) in enumerate(zip(_STREAMS, streams, strict=True)):
        if getattr(stream, "closed", False):
            mode = "w" if number else "r"
            # A stream that a task has closed cannot be opened again, but its descriptor may be open still.
            stream = open(number, mode, buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
        setattr(sys, name, stream)


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]  # a list, whatever the stubs say
    with warnings.catch_warnings():
        pass  # has the interpreter drop what it remembers of them


def _collecting(on: bool) -> None:
    (enable if on else disable)()


def _logging_disabled() -> int:
    logging = sys.modules.get("logging")
    return 0 if logging is None else logging.root.manager.disable


def _disable_logging(level: int) -> None:
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.disable(level)


def _socket_timeout() -> float | None:
    socket = sys.modules.get("_socket")
    return None if socket is None else socket.getdefaulttimeout()


def _set_socket_timeout(seconds: float | None) -> None:
    socket = sys.modules.get("_socket")
    if socket is not None:
        socket.setdefaulttimeout(seconds)


def _temporary() -> str | None:
    tempfile = sys.modules.get("tempfile")
    return None if tempfile is None else tempfile.tempdir


def _set_temporary(directory: str | None) -> None:
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = directory  # type: ignore[attr-defined]  # the stubs leave it out


def _decimals() -> tuple[Any, ...] | None:
    decimal = sys.modules.get("_decimal")
    return None if decimal is None else described_decimals(decimal.getcontext())


def described_decimals(context: Any) -> tuple[Any, ...]:
    """Return what a context of decimal arithmetic is made from, precision and rounding first; without its flags."""
    *settings, _flags, traps = context.__reduce__()[1]
    return (*settings, [], traps)


def _set_decimals(settings: tuple[Any, ...] | None) -> None:
    decimal = sys.modules.get("_decimal")
    if decimal is not None and settings is not None:
        decimal.setcontext(decimal.Context(*settings))


DECIMALS = StatePart("decimal context", _decimals, _set_decimals, eq)
PATH = StatePart("sys.path", _path, _set_path)
FILTERS = StatePart("warning filters", lambda: list(warnings.filters), _set_filters)
TEMPORARY = StatePart("tempfile.tempdir", _temporary, _set_temporary)
STREAMS = StatePart("sys.stdin, sys.stdout, sys.stderr", _streams, _set_streams)
CALLED = (
    StatePart("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    StatePart("switch interval", sys.getswitchinterval, sys.setswitchinterval),
    StatePart("garbage collection", gc.isenabled, _collecting),
    StatePart("trace function", sys.gettrace, sys.settrace),
    StatePart("profile function", sys.getprofile, sys.setprofile),
)
"""Of the interpreter, but changed by calls alone."""
LOGGING = StatePart("logging.disable", _logging_disabled, _disable_logging)
SOCKETS = StatePart("default timeout of sockets", _socket_timeout, _set_socket_timeout)
OF_THE_INTERPRETER = (
    *CALLED,
    PATH,
    FILTERS,
    TEMPORARY,
    STREAMS,
    DECIMALS,
    StatePart("sys.argv", _arguments, _set_arguments),
    LOGGING,
    SOCKETS,
)


LONG_NS = 5_000_000
"""Nanoseconds (5 ms): after tasks of this length what costs calls is compared, too, which is little beside them."""
_REST = (*OF_THE_SYSTEM, *CALLED, DECIMALS)
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

    Attributes:
        seems_right: Tells at the least cost whether a task of less than ``LONG_NS`` has changed nothing; else, or if it
            raises, call ``restore``.
        touched: Whether something was called that changes it.
    """

    seems_right: Callable[[], bool]

    def __init__(self) -> None:
        self.touched = False
        self._variables: dict[Any, Any] = {}
        self._modules: set[str] = set()
        self._known: dict[str, Any] = {}
        _watch_functions(self)
        _watch_environment(self)
        self.take()

    def take(self) -> None:
        """Take what is there now as the right state."""
        self.touched = False
        self._environment = os.environ
        self._variables = dict(_data(os.environ))
        self._modules = set(sys.modules)
        self._known = {part.name: part.read() for part in (*OF_THE_SYSTEM, *OF_THE_INTERPRETER)}
        self._remember()

    def take_changes(self) -> None:
        """Take the state anew if it seems to have been changed since."""
        if not self.seems_right():
            self.take()

    def restore(self, took_ns: int) -> str:
        """Put back what the last task, which took ``took_ns`` nanoseconds, has changed.

        Returns:
            What could not be put back, in words; empty if all could. Such a process should run no more tasks.
        """
        try:
            packages = len(sys.modules) != self._module_count and self._packages_loaded()
            if self.seems_right() and (took_ns < LONG_NS or self._rest_is_right()):
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
        self.seems_right = _comparison(self, known, self._environment)

    def _packages_loaded(self) -> bool:
        """Tell whether modules beside the standard library were loaded since the last time."""
        new = sys.modules.keys() - self._modules
        self._modules |= new
        self._remember()
        return any(name.partition(".")[0] not in sys.stdlib_module_names for name in new)

    def _rest_is_right(self) -> bool:
        """Compare what ``seems_right`` does not look at, since it costs calls or few tasks change it."""
        known = self._known
        return _data(self._environment) == self._variables and all(
            part.same(part.read(), known[part.name]) for part in _REST
        )

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
        self.touched = False
        return ", ".join(failed)

    def _right(self, part: StatePart) -> bool:
        """Make one part right; tell whether it is."""
        right = self._known[part.name]
        try:
            if part is not STREAMS and part.same(part.read(), right):
                return True
            part.write(right)
            return part is STREAMS or part.same(part.read(), right)
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

    # -- called by the wrappers

    def function_called(self) -> None:
        """Note that one of ``_CHANGERS`` was called; what a module sets while it is loaded becomes the right state."""
        if _is_loading():
            for part in (*OF_THE_SYSTEM, *CALLED):
                self._known[part.name] = part.read()
        else:
            self.touched = True

    def variable_set(self, name: Any) -> None:
        """A variable of the environment was set or removed; ``name`` is as the environment keeps it."""
        if not _is_loading():
            self.touched = True
        elif name in _data(self._environment):
            self._variables[name] = _data(self._environment)[name]
        else:
            self._variables.pop(name, None)


class _Absent:
    """Stands for streams and modules that are not there, so that the comparison need not ask whether they are."""

    closed = False

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def _comparison(state: ProcessState, known: dict[str, Any], environment: object) -> Callable[[], bool]:
    """Return a function that compares with what is known all that needs no call of the operating system.

    A function of its own, since names of a function are found faster than attributes.
    """
    path, entries = known[PATH.name]
    stdin, stdout, stderr = known[STREAMS.name]
    out, err = (_Absent() if stream is None else stream for stream in (stdout, stderr))
    arguments, filters = known["sys.argv"][1], known[FILTERS.name]
    disabled, timeout, temporary = known[LOGGING.name], known[SOCKETS.name], known[TEMPORARY.name]
    modules = sys.modules
    module_count = len(modules)
    logging, socket = modules.get("logging"), modules.get("_socket")
    manager: Any = _Absent(_disable=disabled) if logging is None else logging.root.manager
    timeout_now = (lambda: timeout) if socket is None else socket.getdefaulttimeout
    tempfile: Any = modules.get("tempfile") or _Absent(tempdir=temporary)
    decimal = modules.get("_decimal")
    precision, rounding = (known[DECIMALS.name] or (None, None))[:2]
    context_now: Callable[[], Any] = (lambda: None) if decimal is None else decimal.getcontext

    def seems_right() -> bool:
        """Compare all that needs no call of the operating system with what is known."""
        return (
            not state.touched
            and len(modules) == module_count
            and sys.path is path
            and path == entries
            and sys.stdout is stdout
            and sys.stderr is stderr
            and sys.stdin is stdin
            and not out.closed
            and not err.closed
            and os.environ is environment
            and sys.argv == arguments
            and warnings.filters == filters
            and manager._disable == disabled  # behind a property written in Python
            and tempfile.tempdir == temporary
            and timeout_now() == timeout
            and (decimal is None or ((context := context_now()).prec == precision and context.rounding == rounding))
        )

    return seems_right


def _data(environment: Any) -> dict[Any, Any]:
    data: dict[Any, Any] = environment._data
    return data


def _is_loading() -> bool:
    """Tell whether a module is being loaded by the calling thread."""
    # Two frames up: past this function and the method that asks.
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
                # os hands on the functions of posix: both names must lead to the wrapper.
                original = getattr(module, name, None)
                if original is not None and not hasattr(original, "_flow_watches"):
                    _replace(modules, name, original, _watched(original, state))


def _watched(original: Any, state: ProcessState) -> Any:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        """Call the original, then note that it was called: one that raises has changed nothing."""
        result = original(*args, **kwargs)
        state.function_called()
        return result

    call._flow_watches = original  # type: ignore[attr-defined]  # marks it
    return call


def _replace(modules: list[Any], name: str, original: object, watched: object) -> None:
    for module in modules:
        if getattr(module, name, None) is original:
            setattr(module, name, watched)
    # os keeps the functions themselves in these sets, and libraries ask whether theirs is among them.
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
    # The class and not the object is replaced: others hold the object already.
    os.environ.__class__ = Environment
    if hasattr(os, "environb"):
        os.environb.__class__ = Environment
