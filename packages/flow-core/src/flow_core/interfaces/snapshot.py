"""What a function is at a call: one picture of it that serves the key of a cached call and what travels to workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a key: its name for people, and the bytes that stand for it."""

    name: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """What a function is, as far as it counts for keys.

    Attributes:
        parts: The code, then each thing it names.
        source: Digest of the sources of the user's functions and the data they name, for another Python minor version;
            None where a source is not at hand.
        defaults: By name of the parameter the bytes that stand for its default, or why there are none.
    """

    parts: tuple[Part, ...]
    source: bytes | None
    defaults: tuple[tuple[str, bytes | Exception], ...] = ()


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

    def changes(self) -> tuple[str, ...]:
        """Return the names of what is not as it was; empty while this still is what the function is."""
        ...
