"""How results are remembered: keys, look-up, storage and explanation. Single flight is the kernel's, not here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flow_core.errors import ConfigurationError
from flow_core.interfaces.call import Call

if TYPE_CHECKING:  # pathlib costs a node that loads a module with apps several milliseconds
    from os import PathLike
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class AppIdentity:
    """What of an app makes two calls the same call.

    Attributes:
        name: The app's qualified name, for people.
        func: The user's own function.
        cache_tag: Kind of app and version of the key's rules.
        ignore: Names of parameters left out of the key.
    """

    name: str
    func: Callable[..., object]
    cache_tag: str = ""
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoKey:
    """The key of a call: one digest over all parts, and the parts for explanation as (name, short digest)."""

    digest: bytes
    app: str = ""
    parts: tuple[tuple[str, bytes], ...] = ()


class Stored(Protocol):
    """A remembered result."""

    def result(self) -> object:
        """Return the result; may read a file. Raises BadCheckpoint if it cannot be read back."""
        ...


@dataclass(frozen=True, slots=True)
class MemoEntry:
    """A result to remember: the key, the task that made it, its value and its times in ns UTC."""

    key: MemoKey
    task_id: int
    value: object
    started_ns: int = 0
    ended_ns: int = 0


@dataclass(frozen=True, slots=True)
class MissReason:
    """Why a call was not found: the nearest entry, if any, and the parts in which it differs.

    Attributes:
        summary: The whole in words.
        nearest: Which call is the nearest.
        changed: The parts in which it differs.
        failed: How the nearest call had failed, in a line: failures are not remembered. Empty where it ended well.
    """

    summary: str
    nearest: str | None = None
    changed: tuple[str, ...] = ()
    failed: str = ""


class Memoizer(ABC):
    """Remembers results of calls. Methods are called by any thread of the kernel; they must be thread-safe."""

    @abstractmethod
    def key(self, app: AppIdentity, call: Call) -> MemoKey:
        """Return the key of a call whose arguments are resolved. Raises Unhashable naming the argument."""

    @abstractmethod
    def lookup(self, key: MemoKey) -> Stored | None:
        """Return the newest entry of this key, or None."""

    @abstractmethod
    def store(self, entries: Sequence[MemoEntry]) -> None:
        """Remember results. In mode ``task_exit`` it returns when write(2) of their records has returned."""

    @abstractmethod
    def checkpoint(self, tasks: Sequence[int] | None = None) -> Path | None:
        """Write entries not yet written (of the given tasks, or all); return the checkpoint's directory."""

    def load(self, checkpoints: Sequence[str | PathLike[str]]) -> Mapping[bytes, Stored]:
        """Read more checkpoints; return what was found in them, by digest.

        Raises:
            BadCheckpoint: one is not there or is none.
            ConfigurationError: this memoizer reads no checkpoints.
        """
        raise ConfigurationError(f"a {type(self).__name__} reads no checkpoints")

    @abstractmethod
    def explain(self, key: MemoKey) -> MissReason:
        """Say why a key is not found: which part differs from the nearest entry of the same app."""

    @abstractmethod
    def close(self) -> None:
        """Write what the mode asks for and release files. Idempotent."""
