"""Objects of a user that do what nobody expects of them. A module of its own, so that workers can import it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import NoReturn

RELEASE = threading.Event()
"""Ends what hangs, when a test is over."""
REACHED: set[str] = set()
"""Places that were reached, so that a test that reaches none does not pass."""


def exits(*_args: object, **_named: object) -> NoReturn:
    """Exit, whatever it is called as."""
    sys.exit("hostile")


class Odd:
    """What no hook should return; it exits when anything is asked of it."""

    __str__ = __repr__ = __bool__ = __len__ = __iter__ = __int__ = __float__ = __index__ = exits  # type: ignore[assignment]
    __eq__ = __hash__ = __getattr__ = exits  # type: ignore[assignment]
    __class__ = property(exits)  # type: ignore[assignment]


def act(how: str, place: str) -> object:
    """Do what a hostile hook does: ``raises``, ``odd`` (it returns nonsense) or ``hangs``."""
    REACHED.add(place)
    if how == "raises":
        exits()
    if how == "odd":
        return Odd()
    RELEASE.wait(60)
    return None


ARMED = threading.Event()
"""Lets values hang from then on."""


class HangsSearched(list):  # type: ignore[type-arg]
    """A list that does not yield its items, once it is armed."""

    def __iter__(self) -> Iterator[object]:
        if ARMED.is_set():
            act("hangs", "searched")
        return super().__iter__()


class HangsAsFuture(Future):  # type: ignore[type-arg]
    """A future of the user's own that does not give its result, once it is armed."""

    def result(self, timeout: float | None = None) -> object:
        if ARMED.is_set():
            act("hangs", "searched")
        return super().result(timeout)


class HangsPacked:
    """A value whose pickling does not return."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        act("hangs", "packed")
        return HangsPacked, ()


class HangsUnpacked:
    """A value that can be unpickled where it was made only; elsewhere that does not return."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return _made_again, (os.getpid(),)


def _made_again(made_in: int) -> HangsUnpacked:
    if os.getpid() != made_in:
        act("hangs", "unpacked")
    return HangsUnpacked()


class HangsFreed:
    """A value whose freeing does not return in one process: that of the script."""

    def __init__(self, in_process: int, what: str) -> None:
        self._in_process = in_process
        self._what = what

    def __del__(self) -> None:
        if os.getpid() == self._in_process:
            act("hangs", f"freed: {self._what}")


class Base(Exception):
    """An exception, or a value, of the user's."""


def _kind(name: str, attribute: str, value: object) -> type[Base]:
    kind = type(name, (Base,), {attribute: value, "__module__": __name__})
    globals()[name] = kind
    return kind


def _short(_self: object) -> int:
    return 0


def _number(_self: object) -> int:
    return 3


KINDS: dict[str, type[Base]] = {
    attribute: _kind(f"Hostile{number}", attribute.partition(" ")[0], value)
    for number, (attribute, value) in enumerate(
        (
            ("__str__", exits),
            ("__str__ of a number", _number),
            ("__repr__", exits),
            ("__bool__", exits),
            ("__len__ of 0", _short),
            ("__eq__", exits),
            ("__hash__", exits),
            ("__class__", property(exits)),
            ("__setattr__", exits),
            ("__getattribute__", exits),
            ("__reduce__", exits),
            ("__reduce_ex__", exits),
            ("__cause__", property(exits)),
            ("__context__", property(exits)),
            ("__notes__", property(exits)),
            ("__format__", exits),
        )
    )
}
"""Classes by what of theirs is hostile."""


class Sampler:
    """A NodeSampler of which one method is hostile."""

    def __init__(self, method: str, how: str) -> None:
        self._method = method
        self._how = how

    def _answer(self, method: str) -> object:
        return act(self._how, f"NodeSampler.{method}") if method == self._method else ()

    def sample(self, running: object, now_ns: int) -> object:
        from flow_core.interfaces.call import TryKey
        from flow_core.interfaces.sampler import Sample

        if self._method == "sample":
            return self._answer("sample")
        return [Sample(now_ns, TryKey(key), 1, 1, 0.0, 0.0, 0.0, 0, 0.0, 0, 0) for key in dict(running).values()]  # type: ignore[call-overload]

    def ended(self, ended: object, now_ns: int) -> object:
        return self._answer("ended")

    def close(self) -> object:
        return self._answer("close")


class HangsTold(Exception):
    """An exception that does not say what it is."""

    def __str__(self) -> str:
        act("hangs", "told")
        return ""


class HangsAsked:
    """A value that does not say of what class it is."""

    __class__ = property(lambda _self: act("hangs", "asked"))  # type: ignore[assignment]
