"""Owners of outputs: which unfinished task makes which file. Of two that make one, the later would replace it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from flow_core.apps.definition import AppKind
from flow_core.errors import OutputConflict
from flow_core.files import File, Glob, masked
from flow_core.graph.task import SharedParents, Task
from flow_core.remote.output_sets import is_match, may_be_below
from flow_core.remote.same_names import are_one, first_pair, folded

if TYPE_CHECKING:
    from collections.abc import Callable

    from flow_core.apps.definition import CallOptions

_PORTS = {"http": ":80", "https": ":443", "ftp": ":21", "ftpes": ":21", "ftps": ":990"}
_MOST_LOOKED_AT = 10_000  # tasks searched for a dependency, under the graph's lock: some milliseconds at most
_FOLDERS_MAX = 1024  # directories whose real paths are known; each system call releases the interpreter's lock


class _Output(NamedTuple):
    """An output of an unfinished task."""

    task: Task
    file: File


_Index = dict[str, dict[str, _Output]]
"""Outputs by a directory, and then by their places."""


class OutputOwners:
    """Knows the outputs of unfinished tasks. Any thread.

    Files are found by their places. From the first directory or pattern of a run on, all outputs are known by the
    directories above them, too, and the directories and patterns by theirs.

    Args:
        mode: ``Config.output_conflicts``.
        waits: Tells whether one of some parents is, or waits for, a task.
        warn: Logs a message about an app, once.
    """

    def __init__(
        self,
        mode: str,
        waits: Callable[[Task, Sequence[Task | SharedParents]], bool],
        warn: Callable[..., None],
    ) -> None:
        self._mode = mode
        self._waits = waits
        self._warn = warn
        self._lock = threading.Lock()
        self._owners: dict[str, _Output] = {}
        self._spellings: dict[str, list[str]] = {}  # places in ``_owners`` by what ``folded`` makes of them
        self.places: dict[int, tuple[str, ...]] = {}
        """The places of the outputs of unfinished tasks that have some, by task. To be read only."""
        self._sets: _Index | None = None
        self._below: _Index = {}

    def claim(
        self, task: Task, directory: str, parents: Sequence[Task | SharedParents], *, shared_disk: bool = True
    ) -> None:
        """Note the outputs of a call that waits for some parents.

        Args:
            task: The call.
            directory: Its directory.
            parents: The tasks that it waits for.
            shared_disk: Whether relative paths of it surely mean the script's disk; else they are not looked at.

        Raises:
            OutputConflict: an unfinished task that the call does not wait for makes one of them, too, and the Config
                refuses that. Nothing is noted then.
        """
        if task.app.kind is AppKind.JOIN:  # whose outputs the tasks of its body make
            return
        wanted: dict[str, File] = {}
        for file in outputs_of(task.options):
            place = place_of(file, directory, shared_disk=shared_disk)
            if place in wanted:
                self._report_twice(task, masked(file.url))
            elif place:
                wanted[place] = file
        pair = first_pair(wanted) if len(wanted) > 1 else None
        if pair is not None and _are_one(*pair, wanted[pair[0]], wanted[pair[1]]):
            self._report_twice(task, _said(wanted[pair[1]], wanted[pair[0]]))
        for place, file in wanted.items():
            for other, said in self._others(place, file):
                if not self._waits(other, parents):
                    self._tell(task, other, said)
                    # What one finds there may be what the other has just made.
                    task.more().contested = other.more().contested = True
        # After all checks: a call that is refused owns nothing.
        with self._lock:
            self.places[task.tid] = tuple(wanted)
            for place, file in wanted.items():
                if place not in self._owners:
                    self._spellings.setdefault(folded(place), []).append(place)
                self._owners[place] = output = _Output(task, file)
                self._note(place, output)

    def ended(self, tasks: Sequence[Task]) -> None:
        """Forget the outputs of tasks that have ended."""
        with self._lock:
            for task in tasks:
                for place in self.places.pop(task.tid, ()):
                    output = self._owners.get(place)
                    if output is not None and output.task is task:  # and not a later one
                        del self._owners[place]
                        self._forget_spelling(place)
                        self._forget(place, output)

    def _others(self, place: str, file: File) -> list[tuple[Task, str]]:
        """Return the unfinished tasks that make an output, or what is in it, or what it is in, and how to say that.

        Those are left out that only change it, where this one does so, too.
        """
        with self._lock:
            same = self._owners.get(place)
            found = [] if same is None else [same]
            alike = [(each, self._owners[each]) for each in self._spellings.get(folded(place), ()) if each != place]
            if file.kind != "file" and self._sets is None:
                self._sets = {}
                for each, output in self._owners.items():
                    self._note(each, output)
            if self._sets is not None:
                found += self._nested(place, file)
        # Without the lock: the file system is asked.
        found += [output for each, output in alike if _are_one(place, each, file, output.file)]
        others: dict[Task, str] = {}
        for output in found:
            only_change = file.update and output.file.update
            if not output.task.state.final and not only_change:
                others.setdefault(output.task, _said(file, output.file))
        return list(others.items())

    def _forget_spelling(self, place: str) -> None:
        alike = self._spellings[folded(place)]
        alike.remove(place)
        if not alike:
            del self._spellings[folded(place)]

    # -- directories and patterns; the lock is held

    def _nested(self, place: str, file: File) -> list[_Output]:
        """Return the outputs in a directory or pattern, and the directories and patterns that an output is in."""
        found: list[_Output] = []
        for above in _folders_above(place):
            for other_place, output in (self._sets or {}).get(above, {}).items():
                other = output.file
                if other_place != place and (not isinstance(other, Glob) or _may_meet(file, place, above, other)):
                    found.append(output)
        base = _base_of(place, file)
        for other_place, output in self._below.get(base, {}).items() if file.kind != "file" else ():
            if other_place != place and (not isinstance(file, Glob) or _may_meet(output.file, other_place, base, file)):
                found.append(output)
        return found

    def _note(self, place: str, output: _Output) -> None:
        for index, key in self._keys(place, output):
            index.setdefault(key, {})[place] = output

    def _forget(self, place: str, output: _Output) -> None:
        for index, key in self._keys(place, output):
            there = index.get(key, {})
            there.pop(place, None)
            if not there:
                index.pop(key, None)

    def _keys(self, place: str, output: _Output) -> Iterator[tuple[_Index, str]]:
        """Return where an output is known, beside its place."""
        if self._sets is not None:
            for above in _folders_above(place):
                yield self._below, above
            if output.file.kind != "file":
                yield self._sets, _base_of(place, output.file)

    # -- messages

    def _report_twice(self, task: Task, output: str) -> None:
        if self._mode == "refuse":
            raise OutputConflict(
                f"{task} declares the output {output} twice: give each of its outputs a name of its own, or declare "
                "this one once"
            )
        if self._mode == "allow":
            return
        self._warn(
            task.app,
            "%s declares the output %s twice, perhaps by two ways of writing it: what it makes or brings out last "
            "is there in the end. Declare it once. Config(output_conflicts='refuse') makes this an error. "
            "Further ones of this app are not mentioned",
            task,
            output,
        )

    def _tell(self, task: Task, other: Task, output: str) -> None:
        if self._mode == "refuse":
            raise OutputConflict(
                f"{task} declares the output {output}, which {other} makes and has not finished: give them different "
                "ones, or give this call that output as an input, so that it waits for it"
            )
        if self._mode == "allow":
            return
        self._warn(
            task.app,
            "%s and %s do not wait for each other and declare one output, %s: what ends last replaces what the other "
            "has made. Give them different ones, or one of them the other's as an input. "
            "Config(output_conflicts='refuse') makes this an error. Further ones of this app are not mentioned",
            other,
            task,
            output,
        )


def outputs_of(options: CallOptions) -> list[File]:
    """Return all files that a call makes: its outputs, and standard streams that are staged out."""
    return [*options.outputs, *(each for each in (options.stdout, options.stderr) if isinstance(each, File))]


def place_of(file: File, directory: str, *, shared_disk: bool = True) -> str:
    """Return one name for all ways of writing a path or URL; empty where it cannot be told what it means."""
    if file.scheme == "file":
        if not shared_disk and not os.path.isabs(file.path):
            return ""
        return _real(os.path.join(directory, file.path))
    if file.scheme == "zip":
        return "zip:" + os.path.realpath(os.path.join(directory, unquote(file.path)))
    scheme, _, rest = file.url.partition("://")
    host, slash, path = rest.partition("/")
    user, at, server = host.rpartition("@")
    server = server.lower().removesuffix(_PORTS.get(scheme.lower(), "/"))
    place = f"{scheme.lower()}://{user}{at}{server}{slash}{path if file.scheme == 's3' else unquote(path)}"
    return place.rstrip("/") if file.kind == "directory" else place


def _are_one(place: str, other: str, file: File, other_file: File) -> bool:
    """Return whether two places that differ in capitals or accents only are one, which is so on some file systems."""
    if file.scheme != "file" or other_file.scheme != "file":
        return False  # servers tell them apart, as a rule
    above = os.path.commonpath((place, other))
    return are_one(above, os.path.relpath(place, above), os.path.relpath(other, above))


def _said(file: File, other: File) -> str:
    """Name an output, and what it shares with that of another task where that has another name."""
    name, of_other = masked(file.url), masked(other.url)
    if name != of_other and folded(name) == folded(of_other):
        return f"{name} (which is {of_other} on that file system)"
    if file.kind == other.kind == "file" or name == of_other:
        return name
    return f"{name} (which may hold, or be in, {of_other})"


def _base_of(place: str, file: File) -> str:
    """Return the place of a directory, or that of the directory before a pattern."""
    base = place.rsplit("/", file.pattern.count("/") + 1)[0] if isinstance(file, Glob) else place
    return base.rstrip("/") or "/"


def _folders_above(place: str) -> list[str]:
    """Return the places of the directories that something may be in, the nearest first."""
    found = []
    scheme, mark, _ = place.partition("://")
    least = len(scheme) + len(mark) if mark else 0
    while "/" in place[least:].rstrip("/"):
        place = place[: place.rstrip("/").rindex("/")]
        found.append(place or "/")
    return found


def _may_meet(file: File, place: str, base: str, pattern: Glob) -> bool:
    """Return whether a file surely, or a directory perhaps, is among what matches a pattern below some directory.

    Of two patterns it is not told unless they are the same: whether they meet depends on what tasks make.
    """
    if isinstance(file, Glob):
        return False
    name = place[len(base.rstrip("/")) + 1 :].rstrip("/")
    return may_be_below(name, pattern.pattern) if file.kind == "directory" else is_match(name, pattern.pattern)


_folders: dict[tuple[str, int, int], str] = {}


def _real(path: str) -> str:
    """Return a path with all links followed. Directories are known again: most calls have outputs in the same ones."""
    folder, name = os.path.split(path)
    try:
        # A path is followed only if it is a link. Each system call releases the interpreter's lock, which costs more
        # than the call itself where tasks run in threads.
        if not folder or name in ("", ".", "..") or os.path.islink(path):
            return os.path.realpath(path)
        there = os.stat(folder)
    except (OSError, ValueError):
        return os.path.realpath(path)
    # By device and inode, so that a directory that was replaced by another (or by a link) is looked at anew.
    known = folder, there.st_dev, there.st_ino
    real = _folders.get(known)
    if real is None:
        if len(_folders) >= _FOLDERS_MAX:
            _folders.clear()
        real = _folders[known] = os.path.realpath(folder)
    return os.path.join(real, name)


def waits_for(task: Task, parents: Sequence[Task | SharedParents]) -> bool:
    """Return whether one of some parents is, or waits for, a task. The graph's lock is held.

    Of very many that wait for it only some are looked at, and it is then taken for granted.
    """
    wanted = {id(parent) for parent in parents}
    seen: set[int] = set()
    ahead: list[Task | SharedParents] = [task]
    while ahead:
        one = ahead.pop()
        if id(one) in wanted:
            return True
        if id(one) not in seen:
            seen.add(id(one))
            ahead += one.children or ()
        if len(seen) > _MOST_LOOKED_AT:
            return True
    return False
