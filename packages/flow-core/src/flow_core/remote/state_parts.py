"""The parts of a process's state that a task may leave changed: how each is read, and how it is put back."""

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

# As they are here: ``flow_core.remote.state`` puts wrappers in their places.
from _locale import setlocale
from _signal import pthread_sigmask, setitimer, signal as set_handler
from collections.abc import Callable
from gc import disable, enable
from os import chdir, sched_setaffinity, setpriority, umask
from resource import getrlimit, setrlimit
from typing import Any, NamedTuple

_SIGNALS = range(1, 32)
_TIMERS = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)
_STREAMS = ("stdin", "stdout", "stderr")


class Part(NamedTuple):
    """One part of the state. ``read`` gives what ``write`` takes; that raises OSError or ValueError where it cannot."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


# -- of the operating system: a call each to read


def _pending_timers() -> tuple[bool, ...]:
    return tuple(_signal.getitimer(which)[0] != 0.0 for which in _TIMERS)


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
    mask = umask(0o077)
    umask(mask)
    return mask


def _limits() -> dict[int, tuple[int, int]]:
    return {which: getrlimit(which) for which in _known_limits()}


def _set_limits(limits: dict[int, tuple[int, int]]) -> None:
    for which, both in limits.items():
        if getrlimit(which) != both:
            setrlimit(which, both)


@functools.cache
def _known_limits() -> tuple[int, ...]:
    return tuple({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})


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
    Part("timers", _pending_timers, _stop_timers),
    Part("signal handlers", _handlers, _set_handlers),
    Part("blocked signals", lambda: pthread_sigmask(0, ()), lambda mask: pthread_sigmask(2, mask)),
    Part("working directory", _directory, chdir),
    Part("umask", _umask, umask),
    Part("resource limits", _limits, _set_limits),
    Part("CPU affinity", lambda: os.sched_getaffinity(0), lambda cpus: sched_setaffinity(0, cpus)),
    Part("niceness", lambda: os.getpriority(os.PRIO_PROCESS, 0), lambda n: setpriority(os.PRIO_PROCESS, 0, n)),
    Part("locale", _locale_name, _set_locale),
    Part("standard streams (descriptors 0 to 2)", _descriptors, _cannot),
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


_DECIMAL = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps")


def _decimals() -> dict[str, Any] | None:
    decimal = sys.modules.get("_decimal")
    return None if decimal is None else described_decimals(decimal.getcontext())


def described_decimals(context: Any) -> dict[str, Any]:
    """Return what a context of decimal arithmetic is made from."""
    return {name: getattr(context, name) for name in _DECIMAL[:-1]} | {"traps": dict(context.traps)}


def _set_decimals(settings: dict[str, Any] | None) -> None:
    decimal = sys.modules.get("_decimal")
    if decimal is not None and settings is not None:
        decimal.setcontext(decimal.Context(**settings))


DECIMALS = Part("decimal context", _decimals, _set_decimals)
PATH = Part("sys.path", _path, _set_path)
FILTERS = Part("warning filters", lambda: list(warnings.filters), _set_filters)
TEMPORARY = Part("tempfile.tempdir", _temporary, _set_temporary)
STREAMS = Part("sys.stdin, sys.stdout, sys.stderr", _streams, _set_streams)
CALLED = (
    Part("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Part("switch interval", sys.getswitchinterval, sys.setswitchinterval),
    Part("garbage collection", gc.isenabled, _collecting),
    Part("trace function", sys.gettrace, sys.settrace),
    Part("profile function", sys.getprofile, sys.setprofile),
)
"""Of the interpreter, but changed by calls alone."""
LOGGING = Part("logging.disable", _logging_disabled, _disable_logging)
SOCKETS = Part("default timeout of sockets", _socket_timeout, _set_socket_timeout)
OF_THE_INTERPRETER = (
    *CALLED,
    PATH,
    FILTERS,
    TEMPORARY,
    STREAMS,
    DECIMALS,
    Part("sys.argv", _arguments, _set_arguments),
    LOGGING,
    SOCKETS,
)
