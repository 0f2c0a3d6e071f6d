"""Versions of files of tasks where these are now, here or on the other side: whether they are there, and which."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol, TypeVar

from flow_core.files import File, Glob
from flow_core.futures.callbacks import Describe, Limit, hook_calls
from flow_core.guard import attribute, is_a, one_line, pass_signal
from flow_core.hooks import Noted, hook_name, is_own
from flow_core.interfaces.staging import Versions
from flow_core.interfaces.versions import version_of_files
from flow_core.remote.output_sets import below, matching

_logger = logging.getLogger("flow.staging")

L = TypeVar("L")


def local_version(path: str, *, may_change: bool = False) -> str:
    """Return size and time of change of a file, the kind of anything else; empty if it is not there.

    For a file that may change by right this is only whether it is there.
    """
    try:
        # stat and not lstat: the version is that of what a link leads to.
        there = os.stat(path)
    except OSError:
        return ""
    if may_change or not stat.S_ISREG(there.st_mode):
        return "there"
    return f"{there.st_size} {there.st_mtime_ns}"


def _version_here(file: File, directory: str) -> str:
    """Return the version of what is here, or would be."""
    path = os.path.join(directory, file.path)
    if isinstance(file, Glob):
        base = path[: -len(file.pattern)]
        names = matching(base, file.pattern)
        return version_of_files(
            {name: local_version(os.path.join(base, name), may_change=file.update) for name in names}
        )
    if file.kind == "file" or file.update or not os.path.isdir(path):
        return local_version(path, may_change=file.update)
    return version_of_files(
        {name: local_version(os.path.join(path, name)) or "link" for name in below(path)}, whole=True
    )


class Looker(Protocol):
    """Looks at some files, as staging methods do."""

    def look(self, files: Sequence[File]) -> Future[Versions] | None:
        """Return a future of the versions of files, or None, as ``Staging.look`` does. Must not block."""
        ...


class VersionLooks:
    """One look at several files, some here, others on the other side of staging methods. Ended by any thread.

    Attributes:
        future: Ends with all versions, in the order of the files. Never fails.
    """

    def __init__(
        self,
        files: Sequence[File],
        directory: str,
        method: Callable[[File], Looker | None],
        who: str = "a task",
        here: Looker | None = None,
        hook_timeout_s: float | None = None,
    ) -> None:
        """Begin to look. Methods of the user's own are asked by the thread of hooks.

        Args:
            files: The files.
            directory: What relative paths are relative to.
            method: Gives the method that moves a file; what it raises leaves that file's version unknown.
            who: Whose files they are, for messages.
            here: Looks at local files that tasks are given; None for those that they make, of which size and time of
                change are the version.
            hook_timeout_s: How long a method of the user's own may be at it before it gives a future; then the versions
                of its files stay unknown.
        """
        self.future: Future[Versions] = Future()
        self._lock = threading.Lock()
        self._versions: list[str | None] = [None] * len(files)
        self._files = files
        self._who = who
        self._made = here is None  # what tasks may change by right counts as it is only where they read it
        # All files of one method in one question, since a method may answer for many at once.
        groups: dict[int, tuple[Looker, list[int]]] = {}
        for index, file in enumerate(files):
            if file.scheme == "file" and here is None:
                self._versions[index] = _version_here(file, directory)
                continue
            chosen = here if file.scheme == "file" else or_none(method, file)
            if chosen is not None:
                groups.setdefault(id(chosen), (chosen, []))[1].append(index)
        # 0 stands for the files that need no method; the future ends when no group is left.
        self._left: set[int] = {0, *groups}
        for asked, indices in groups.values():
            if is_own(asked):
                self._ask(asked, indices)
            else:
                name = hook_name("staging method", asked, "look")
                ended = partial(self._ended, id(asked))
                limit = None if hook_timeout_s is None else Limit(hook_timeout_s, lambda *_, ended=ended: ended())
                describe: Describe = lambda *_, name=name: f"{name}, called for {who},"  # noqa: E731
                hook_calls.soon(partial(self._ask, asked), indices, describe, limit)
        self._ended(0)

    def _ask(self, method: Looker, indices: Sequence[int]) -> None:
        look = attribute(method, "look")
        looking: object = None
        try:
            # A method need not have ``look``.
            if callable(look):
                with Noted(self._who, "staging method", method, "look"):
                    looking = look([self._files[index] for index in indices])
        except BaseException as error:
            pass_signal(error)
            _logger.error("%s raised %s", hook_name("staging method", method, "look"), one_line(error))
        if is_a(looking, Future):
            looking.add_done_callback(partial(self._take_versions, id(method), indices))
        else:
            self._ended(id(method))

    def _take_versions(self, group: int, indices: Sequence[int], looked: Future[Versions]) -> None:
        try:
            versions = [version if isinstance(version, str) else None for version in looked.result(timeout=0)]
        except BaseException as error:  # its own, or of a class of the user's
            pass_signal(error)
            versions = []
        if len(versions) == len(indices):
            for index, version in zip(indices, versions, strict=True):
                self._versions[index] = version and ("there" if self._files[index].update and self._made else version)
        self._ended(group)

    def _ended(self, group: int) -> None:
        """Take it that the files of one method, or (0) those of none, are known; what comes later is dropped."""
        with self._lock:
            # A method that answers after its time limit finds its group gone, and changes nothing.
            last = self._left == {group}
            self._left.discard(group)
        if last:
            self.future.set_result(tuple(self._versions))


def or_none(method: Callable[[File], L | None], file: File) -> L | None:
    """Return the method that moves a file; None if there is none, or if asking raises."""
    try:
        return method(file)
    except Exception:
        return None
