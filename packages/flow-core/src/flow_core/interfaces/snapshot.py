"""Snapshot of a function at a call: one picture for the key of a cached call and for what travels to workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flow_core.files import File


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a key: its name for people, and the bytes that stand for it.

    Attributes:
        name: What it is called in messages.
        encoded: What stands for it.
        about: Details of it for messages when it has changed: code objects and plain immutable values,
            each with what it is in the part; an empty name for the part itself.
    """

    name: str
    encoded: bytes
    # Not compared: it explains a difference, and the bytes decide whether there is one.
    about: tuple[tuple[str, object], ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of a function, as far as it counts for keys.

    Attributes:
        parts: The code, then each thing it names.
        source: Digest of the sources of the user's functions and the data they name, for another Python minor version;
            None where a source is not at hand.
        defaults: By name of the parameter the bytes that stand for its default, or why there are none.
        attributes: All attributes that its code takes, of whatever: these count of modules that are arguments.
        joined: All parts in one, so that no call need join them again.
        shown: The parts as (name, short digest), as they are in keys.
        unknown: Names of functions among its code that take globals by names which show only as they run: what these
            mean is no part of it.
        mains: Names of functions among its code that take ``__main__`` as a module: in another process that is another
            one.
        files: The Files that it names, each with the parameter of which it is (or is in) the default; empty for none.
    """

    parts: tuple[Part, ...]
    source: bytes | None
    defaults: tuple[tuple[str, bytes | Exception], ...] = ()
    attributes: frozenset[str] = frozenset()
    files: tuple[tuple[str, File], ...] = ()
    joined: bytes = b""
    shown: tuple[tuple[str, bytes], ...] = ()
    unknown: tuple[str, ...] = ()
    mains: tuple[str, ...] = ()


class Snapshot(Protocol):
    """A function as it was when its app was called. Immutable, any thread; calls between changes share one."""

    @property
    def digest(self) -> bytes:
        """Name of ``blob``, 16 bytes. Raises as ``blob``."""
        ...

    @property
    def blob(self) -> bytes:
        """The function for ``flow_core.remote.functions.load_function``, packed at the call.

        Raises:
            SerializationError: it could not be packed; the message names what cannot travel.
        """
        ...

    def identity(self) -> Identity:
        """Return what the function was. Raises CannotDigest (of ``flow_core.memo``) where that has no digest."""
        ...

    def begins(self, call: object) -> Callable[..., object]:
        """Return the function to run for a call that begins on the objects of this process. Its thread asks."""
        ...

    def changes(self) -> tuple[str, ...]:
        """Return the names of what is not as it was; empty while this still is what the function is."""
        ...
