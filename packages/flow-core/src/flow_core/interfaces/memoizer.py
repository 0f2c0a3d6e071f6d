"""Memoizer interface: keys, look-up, storage and explanation of results. Single flight is the kernel's, not here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from flow_core.errors import ConfigurationError
from flow_core.interfaces.call import Call

if TYPE_CHECKING:  # pathlib costs a node that loads a module with apps several milliseconds
    from os import PathLike
    from pathlib import Path

    from flow_core.files import File
    from flow_core.interfaces.snapshot import Part


@dataclass(frozen=True, slots=True)
class AppIdentity:
    """The identity of an app in keys: what of it makes two calls the same call.

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
    """The key of a call: one digest over all parts, and the parts for explanation as (name, short digest).

    Attributes:
        digest: Two calls are the same if it is the same.
        app: Name of the app.
        parts: What the call is made of.
        files: Files that count in it by their names alone: the kernel makes of it a key in which their contents count.
            A memoizer of the user's own may leave them out.
        unknown: Names of functions among its code that take globals by names which show only as they run: what these
            mean is no part of it, so the kernel remembers no result under it unless the app says so.
        details: Parts of which more is known than that they differ, for messages. They may be left out, too.
    """

    digest: bytes
    app: str = ""
    parts: tuple[tuple[str, bytes], ...] = ()
    # Not compared: two keys are the same call where their digests are equal, whatever else is known of it.
    files: tuple[File, ...] = field(default=(), compare=False, repr=False)
    details: tuple[Part, ...] = field(default=(), compare=False, repr=False)
    unknown: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(slots=True)
class Inputs:
    """Files whose contents count in the key of a call.

    Attributes:
        named: The key in which they count by their names alone.
        files: The files.
        versions: What they held when the key was made; None where that is not known, and the name alone counts.
        read: Which versions of files from elsewhere were brought to the task, by their URLs; empty text where one was
            brought and its version is not known.
        changed: What of them was not so any more when the task had ended, in words; empty while nothing is known of it.
        instead: Then the key of what the task has read, if that is known of all files.
    """

    named: MemoKey
    files: Sequence[File]
    versions: Sequence[str | None] = ()
    read: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    instead: MemoKey | None = None


class Stored(Protocol):
    """A remembered result, perhaps still in a file. Any thread."""

    def result(self) -> object:
        """Return the result; may read a file. Raises BadCheckpoint if it cannot be read back."""
        ...


@dataclass(frozen=True, slots=True)
class MemoEntry:
    """A result to remember: the key, the task that made it, its value and its times in ns UTC.

    And why it was made though there was one of that key, as a kind and after a colon what it was in this case.
    """

    key: MemoKey
    task_id: int
    value: object
    started_ns: int = 0
    ended_ns: int = 0
    again: str = ""


ARGUMENT = "argument "
"""Begin of the names of those parts of keys that are arguments."""


@dataclass(frozen=True, slots=True)
class MissReason:
    """Why a call was not found: the nearest entry, if any, and the parts in which it differs.

    Attributes:
        summary: The whole in words.
        nearest: Which call is the nearest.
        changed: The parts in which it differs.
        how: For each of these in what, as far as that is known; else empty text.
        again: Why it was run though nothing had changed, as far as that is known, as ``MemoEntry.again``.
        failed: How the nearest call had failed, in a line: failures are not remembered. Empty where it ended well.
    """

    summary: str
    nearest: str | None = None
    changed: tuple[str, ...] = ()
    failed: str = ""
    how: tuple[str, ...] = ()
    again: str = ""

    @property
    def other_call(self) -> bool:
        """Whether the nearest one has other arguments, so that it is no earlier call of the same."""
        return any(name.startswith(ARGUMENT) for name in self.changed)

    @property
    def changes(self) -> str:
        """The parts in which it differs, and how, in words."""
        how = self.how or ("",) * len(self.changed)
        return ", ".join(f"{name} ({told})" if told else name for name, told in zip(self.changed, how, strict=True))


class Memoizer(ABC):
    """Remembers results of calls. Methods are called by any thread of the kernel; they must be thread-safe."""

    @abstractmethod
    def key(self, app: AppIdentity, call: Call) -> MemoKey:
        """Return the key of a call whose arguments are resolved. Raises Unhashable naming the argument."""

    @abstractmethod
    def lookup(self, key: MemoKey) -> Stored | None:
        """Return the newest entry of this key, or None."""

    def lookup_call(self, key: MemoKey, call: Call) -> Stored | None:
        """Return what is remembered of a call of this key, or None; the call has its ``args`` and ``kwargs``.

        The kernel asks this. By default ``lookup``: a memoizer that decides by more than the key has its own.
        """
        return self.lookup(key)

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
        # Not abstract, so that a memoizer without checkpoints need not say so.
        raise ConfigurationError(f"a {type(self).__name__} reads no checkpoints")

    def file_versions(self) -> Iterable[str]:
        """Yield versions of local files that keys of earlier runs hold, so that the files need not be read again.

        By default none. May read files; asked once, by a thread that does nothing else.
        """
        return ()

    @abstractmethod
    def explain(self, key: MemoKey) -> MissReason:
        """Say why a key is not found: which part differs from the nearest entry of the same app."""

    @abstractmethod
    def close(self) -> None:
        """Write what the mode asks for and release files. Idempotent."""
