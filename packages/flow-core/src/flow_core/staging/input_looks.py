"""Versions of the inputs of tasks: of local files by what they hold, of others by what the other side says of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from flow_core.files import File
from flow_core.guard import attribute
from flow_core.interfaces.staging import Staging, Versions
from flow_core.staging.contents import Contents
from flow_core.staging.looks import VersionLooks, or_none

_NEVER = "as it was when it was first asked for"
"""The version of files that are never asked for again."""

Method = Callable[[File], Staging | None]


class InputLooks:
    """Knows which versions of files from elsewhere a run has seen, so that each is looked at once. Any thread.

    Args:
        hook_timeout_s: How long a method of the user's own may take to begin to look; None means for ever.
    """

    def __init__(self, hook_timeout_s: float | None = None) -> None:
        self._hook_timeout_s = hook_timeout_s
        self._contents = Contents()
        self._lock = threading.Lock()
        self._seen: dict[tuple[int, str], tuple[Staging, Future[Versions]]] = {}

    def ask(self, earlier: Callable[[], Iterable[str]]) -> None:
        """Take what gives versions of local files that earlier runs knew; it is called when it is first needed."""
        self._contents.ask(earlier)

    def look(
        self, files: Sequence[File], directory: str, method: Method, who: str, read: Mapping[str, str] | None
    ) -> Future[Versions]:
        """Look which versions of files there are; with ``read``, which of them a task has read.

        The future never fails. Files of which all tasks of a run see one version are looked at once before tasks. After
        them those are looked at of which ``read`` does not say which version came.
        """
        parts: list[tuple[list[int], Future[Versions]]] = []
        others: list[int] = []
        told: list[tuple[int, Staging, str]] = []
        for index, file in enumerate(files):
            chosen = or_none(method, file) if file.scheme != "file" else None
            refresh = "task" if chosen is None else file.refresh or _refresh_of(chosen)
            if refresh == "never":
                parts.append(([index], _done(_NEVER)))
            # What was really read goes before a new look: that may see a version which came after the task had read.
            elif chosen is not None and read is not None and file.url in read:
                parts.append(([index], _done(read[file.url] or None)))
                told.append((index, chosen, refresh))
            elif chosen is not None and read is None and refresh == "run":
                parts.append(([index], self._shared(chosen, file, directory, who)))
            else:
                others.append(index)
        if others:
            looks = VersionLooks(
                [files[index] for index in others], directory, method, who, self._contents, self._hook_timeout_s
            )
            parts.append((others, looks.future))
        for index, chosen, refresh in told:
            if refresh == "run" and read is not None:
                self._saw(chosen, files[index], read[files[index].url])
        return parts[0][1] if len(parts) == 1 else _together(parts, len(files))

    def close(self) -> None:
        """Wait for what is being read, for some seconds at most; forget what was seen."""
        self._contents.close()
        with self._lock:
            self._seen.clear()

    def _shared(self, method: Staging, file: File, directory: str, who: str) -> Future[Versions]:
        """Return what the run knows of a file; the first call has it looked at."""
        key = id(method), file.url
        with self._lock:
            known = self._seen.get(key)
            if known is None:
                # The promise is there before the look begins, so that a second task asks nothing.
                promise: Future[Versions] = Future()
                self._seen[key] = method, promise  # the method is kept, so that its id stays its own
        if known is not None:
            return known[1]
        # Outside of the lock: methods may answer at once, on this thread.
        looking = VersionLooks(
            [file], directory, lambda _file: method, who, self._contents, self._hook_timeout_s
        ).future
        looking.add_done_callback(lambda looked: promise.set_result(looked.result(timeout=0)))
        return promise

    def _saw(self, method: Staging, file: File, version: str) -> None:
        """Note which version a task got: all others of the run get the same."""
        if version:
            with self._lock:
                self._seen[id(method), file.url] = method, _done(version)


def _refresh_of(method: Staging) -> str:
    said = attribute(method, "refresh")
    return said if isinstance(said, str) else "task"


def _done(version: str | None) -> Future[Versions]:
    future: Future[Versions] = Future()
    future.set_result((version,))
    return future


def _together(parts: Sequence[tuple[Sequence[int], Future[Versions]]], count: int) -> Future[Versions]:
    """Return all versions, in the order of the files."""
    whole: Future[Versions] = Future()
    versions: list[str | None] = [None] * count
    lock, left = threading.Lock(), [len(parts)]

    def take(indices: Sequence[int], looked: Future[Versions]) -> None:
        """Put the versions of one look into their places; the last look ends the future. Any thread."""
        for index, version in zip(indices, looked.result(timeout=0), strict=True):
            versions[index] = version
        with lock:
            left[0] -= 1
            last = not left[0]
        if last:
            whole.set_result(versions)

    for indices, looking in parts:
        looking.add_done_callback(partial(take, indices))
    return whole
