"""Guards against objects of the user's: their methods may do anything, and hooks may raise anything.

Everything here takes an object of the user's and never raises because of it: not for an ``__str__`` that raises, nor
for one that calls ``sys.exit()``. The one exception that passes is that of a signal (Ctrl-C), which is not the object's
doing: see ``from_signal``. Standard library only, since workers use it too. All functions may be called by any thread.
"""

from __future__ import annotations

# Not imported from typing: workers load this module, and not typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import TypeGuard, TypeVar

    T = TypeVar("T")

_LONGEST_REPR = 200  # characters; a repr may show a whole array
_LONGEST_CHAIN = 16  # exceptions; contexts may form a circle, and one of a signal is near its end


def is_a(value: object, kind: type[T]) -> TypeGuard[T]:
    """Return whether an object is of a type. ``isinstance`` also asks its ``__class__``, which may lie or raise."""
    return issubclass(type(value), kind)


def name_of(value: object) -> str:
    """Return the name of an object's type."""
    return _type_name(type(value))


def text_of(error: object) -> str:
    """Return ``str()`` of an object as plain text, or what that raised."""
    try:
        return str.__str__(str(error))  # plain, also where str() gave a subclass of it
    except BaseException as failure:
        pass_signal(failure)
        return f"<its text cannot be shown: str() raised {name_of(failure)}>"


def shown(value: object) -> str:
    """Return ``repr()`` of an object, shortened, or what that raised."""
    try:
        text = str.__str__(repr(value))
    except BaseException as failure:
        pass_signal(failure)
        return f"<{name_of(value)}, whose repr() raised {name_of(failure)}>"
    return text if len(text) <= _LONGEST_REPR else f"{text[:_LONGEST_REPR]}..."


def one_line(error: BaseException) -> str:
    """Return an exception as a line: its type and the first line of its text."""
    lines = text_of(error).strip().splitlines()
    return f"{name_of(error)}: {lines[0]}" if lines else name_of(error)


def named(error: BaseException) -> str:
    """Return the type and the whole text of an exception."""
    text = text_of(error).strip()
    return f"{name_of(error)}: {text}" if text else name_of(error)


def called(hook: object) -> str:
    """Return the name of a hook: that of a function, or that of the type of another object."""
    try:
        name = hook.__qualname__  # type: ignore[attr-defined]  # functions and classes have one
    except BaseException as failure:
        pass_signal(failure)
        return name_of(hook)
    return name if type(name) is str else name_of(hook)


def attribute(value: object, name: str, otherwise: object = None) -> object:
    """Return an attribute of an object, or ``otherwise`` where it has none or looking it up raises."""
    try:
        return getattr(value, name, otherwise)
    except BaseException as failure:
        pass_signal(failure)
        return otherwise


def traceback_of(error: BaseException) -> str:
    """Return the formatted traceback of an exception with its causes."""
    import traceback

    try:
        return "".join(traceback.format_exception(error))
    except BaseException as failure:
        pass_signal(failure)
        return f"<the traceback cannot be shown: {name_of(failure)}>\n{one_line(error)}\n"


def pass_signal(error: BaseException) -> None:
    """Raise an exception again if it is that of a signal. For ``except BaseException`` around what is the user's."""
    if from_signal(error):
        raise error


def from_signal(error: BaseException) -> bool:
    """Return whether an exception is that of a signal (Ctrl-C, SIGTERM), not one that the interrupted code raised.

    Signal handlers run on the main thread only. What a handler raises has its frame in the traceback; that of Python's
    own handler of SIGINT, written in C, has none, so a KeyboardInterrupt on the main thread counts where that one is
    in place. An exception raised while one of a signal was handled counts too: a callback may turn Ctrl-C into an exit.
    """
    if is_a(error, Exception):
        return False
    import threading

    # Elsewhere a KeyboardInterrupt can only have been raised by the code that was called.
    if threading.current_thread() is not threading.main_thread():
        return False
    import signal

    # All handlers of now, the user's own included: what was raised in one of them is the exception of a signal.
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {code for handler in handlers if (code := _code_of(handler)) is not None}
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    each: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if each is None:
            return False
        if (default and is_a(each, KeyboardInterrupt)) or _came_through(each, codes):
            return True
        each = each.__context__
    return False


def _code_of(handler: object) -> CodeType | None:
    function = getattr(handler, "__func__", handler)
    return getattr(function, "__code__", None)


def _came_through(error: BaseException, codes: set[CodeType]) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _type_name(kind: type) -> str:
    name: str = type.__dict__["__name__"].__get__(kind)  # not that of a metaclass of the user's
    return name
