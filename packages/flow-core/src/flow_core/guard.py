"""Guards against objects of the user's: their methods may do anything, and hooks may raise anything.

Everything here takes an object of the user's and never raises because of it: not for an ``__str__`` that raises, nor
for one that calls ``sys.exit()``. Nor does it wait for ever for a text: methods of the user's own that make one are
called on a thread of their own, and have some seconds. The one exception that passes is that of a signal (Ctrl-C),
which is not the object's doing: see ``from_signal``. Standard library only, since workers use it too. All functions may
be called by any thread.
"""

from __future__ import annotations

# Not imported from typing: workers load this module, and not typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import TypeGuard, TypeVar

    T = TypeVar("T")

_LONGEST_REPR = 200  # characters; a repr may show a whole array
_LONGEST_CHAIN = 16  # exceptions; contexts may form a circle, and one of a signal is near its end
# Seconds that an object has to say what it is. Others wait meanwhile, but once for each class alone.
_PATIENCE_S = 2.0
_PLAIN = frozenset((str, int, float, bool, bytes, complex, type(None)))
"""Types whose values surely run no code of the user's when their texts are made."""
_TELLING = frozenset(
    {
        *("__str__", "__repr__", "__format__", "__getattribute__", "__getattr__", "__class__"),
        *("__cause__", "__context__", "__suppress_context__", "__traceback__", "__notes__", "__hash__", "__eq__"),
    }
)
"""Names of what is asked of an exception when its text or its traceback is made."""
_MADE_BY_PYTHON = 1 << 9  # the flag of a type that a ``class`` statement has made, Py_TPFLAGS_HEAPTYPE
# Python's own ways to these attributes, whatever a class or metaclass of the user's has in their place.
_MRO, _NAMES, _FLAGS = (type.__dict__[name].__get__ for name in ("__mro__", "__dict__", "__flags__"))
_CAUSE = BaseException.__dict__["__cause__"].__get__
_CONTEXT = BaseException.__dict__["__context__"].__get__
_OF_FLOW = ("flow_core", "flow_executors", "flow_providers", "flow_staging", "flow_monitor")
_stuck: dict[int, type] = {}
"""Classes one object of which has not said what it is, by their ids; they are not asked again."""


def is_a(value: object, kind: type[T]) -> TypeGuard[T]:
    """Return whether an object is of a type. ``isinstance`` also asks its ``__class__``, which may lie or raise."""
    return issubclass(type(value), kind)


def name_of(value: object) -> str:
    """Return the name of an object's type."""
    return _type_name(type(value))


def text_of(error: object) -> str:
    """Return ``str()`` of an object as plain text, or what that raised."""
    try:
        text = str(error) if answers(error) else _in_time(error, lambda: str(error))
        return str.__str__(text)  # plain, also where str() gave a subclass of it
    except _NoTextError:
        return f"<its text cannot be shown: str() {_STAYED_AWAY}>"
    except BaseException as failure:
        pass_signal(failure)
        return f"<its text cannot be shown: str() raised {name_of(failure)}>"


def shown(value: object) -> str:
    """Return ``repr()`` of an object, shortened, or what that raised."""
    try:
        text = str.__str__(repr(value) if answers(value) else _in_time(value, lambda: repr(value)))
    except _NoTextError:
        return f"<{name_of(value)}, whose repr() {_STAYED_AWAY}>"
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

    return traceback_by(error, lambda: "".join(traceback.format_exception(error)))


def traceback_by(error: BaseException, make: Callable[[], str]) -> str:
    """Return what ``make`` returns, a traceback of an exception; a line about it where that raises or stays away."""
    try:
        return make() if _chain_answers(error) else _in_time(error, make)
    except _NoTextError:
        return f"<the traceback cannot be shown: it {_STAYED_AWAY}>\n{one_line(error)}\n"
    except BaseException as failure:
        pass_signal(failure)
        return f"<the traceback cannot be shown: {name_of(failure)}>\n{one_line(error)}\n"


def to_log(error: BaseException) -> BaseException | None:
    """Return an exception to be given to a logger as ``exc_info``; None where its text raises or does not come.

    Handlers make the text while they hold their locks: one that did not come would hold up all that logs.
    """
    if _chain_answers(error):
        return error
    import traceback

    try:
        _in_time(error, lambda: "".join(traceback.format_exception(error)))
    except BaseException as failure:
        pass_signal(failure)
        return None
    return error


def answers(value: object) -> bool:
    """Return whether the text of an object is surely made without code of the user's own."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if not issubclass(kind, BaseException):
        return False
    for cls in _MRO(kind):
        names = _NAMES(cls)
        if _FLAGS(cls) & _MADE_BY_PYTHON and not _TELLING.isdisjoint(names):
            module = names.get("__module__")
            if not (type(module) is str and module.partition(".")[0] in _OF_FLOW):
                return False
    args = BaseException.args.__get__(value)  # type: ignore[attr-defined]  # not that of a class of the user's
    return _PLAIN.issuperset(map(type, args))


def _chain_answers(error: BaseException) -> bool:
    """Return whether the same is so of all that the traceback of an exception shows."""
    each: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if each is None:
            return True
        if issubclass(type(each), BaseExceptionGroup) or not answers(each):
            return False
        cause = _CAUSE(each)
        each = _CONTEXT(each) if cause is None else cause
    return False


class _NoTextError(Exception):
    """An object has not said what it is in time."""


_STAYED_AWAY = f"has not returned for {_PATIENCE_S:g} s"


def _in_time(value: object, make: Callable[[], str]) -> str:
    """Return what ``make`` returns, called on another thread. Raises _NoTextError, and what it raises."""
    kind = type(value)
    if id(kind) in _stuck:  # by its id: a metaclass may have a hash of its own
        raise _NoTextError
    from flow_core.bounded_calls import BoundedCall, NoAnswerError

    try:
        return BoundedCall("flow-texts", make).wait(_PATIENCE_S)
    except NoAnswerError:
        _stuck[id(kind)] = kind
        raise _NoTextError from None


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
