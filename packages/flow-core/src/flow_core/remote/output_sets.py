"""Outputs that are more than one file: all that matches a pattern, and directories with what is in them."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flow_core.errors import MissingOutputs
from flow_core.interfaces.call import NodeContext
from flow_core.interfaces.outcome import with_found

Tree = dict[str, tuple[int, ...]]
"""State of each file as the file system has it, by its path from a directory."""


def matching(base: str, pattern: str) -> list[str]:
    """Return the paths, from a directory, of the files in it that match a pattern, in their order."""
    import glob  # few tasks have patterns

    names = glob.glob(pattern, root_dir=base or None, recursive=True)
    # normpath: "a//b" and "a/./b" of a pattern are one file. Sorted, since the order of a directory means nothing.
    return sorted({os.path.normpath(name) for name in names if os.path.isfile(os.path.join(base, name))})


def is_match(name: str, pattern: str) -> bool:
    """Tell whether a path matches a pattern, as ``matching`` does for files that are here."""
    return _parts_match(name.split("/"), pattern.split("/"))


def may_be_below(folder: str, pattern: str) -> bool:
    """Tell whether a path below a directory may match a pattern: whether the directory matches the begin of it."""
    parts = pattern.split("/")
    for place, part in enumerate(folder.split("/")):
        if place >= len(parts) - 1:
            return "**" in parts
        if parts[place] == "**":
            return True
        if not fnmatch.fnmatchcase(part, parts[place]):
            return False
    return True


def _parts_match(name: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not name
    # At the end ** stands for all files below, as glob has it with recursive=True.
    if list(pattern) == ["**"]:
        return bool(name) and not any(part[:1] == "." for part in name)
    if pattern[0] == "**":
        deeper = bool(name) and name[0][:1] != "." and _parts_match(name[1:], pattern)
        return deeper or _parts_match(name, pattern[1:])
    # Hidden names match only patterns that begin with a dot, as in a shell.
    if not name or (name[0][:1] == "." and pattern[0][:1] != "."):
        return False
    return fnmatch.fnmatchcase(name[0], pattern[0]) and _parts_match(name[1:], pattern[1:])


def below(path: str) -> list[str]:
    """Return the paths, from a directory, of all files below it, in their order."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), path) for folder, _, names in os.walk(path) for name in names
    )


@dataclass(frozen=True, slots=True)
class OutputSet:
    """An output of several files.

    Attributes:
        number: Which of the outputs it is, from 0.
        path: The directory, or the one before the pattern.
        pattern: The pattern; empty for a directory.
        named: As the user named it, without password.
        update: What was there before counts, too.
        directory: What a relative path is relative to; empty for the directory that the task runs in.
    """

    number: int
    path: str
    pattern: str
    named: str
    update: bool = False
    directory: str = ""

    @property
    def place(self) -> str:
        """The directory from where the task runs."""
        return os.path.join(self.directory, self.path)

    def tree(self) -> Tree | None:
        """Look at its files; None for a directory that is not there."""
        if not self.pattern and not os.path.isdir(self.place):
            return None
        found: Tree = {}
        for name in matching(self.place, self.pattern) if self.pattern else below(self.place):
            try:
                state = os.stat(os.path.join(self.place, name))
            except OSError:  # removed meanwhile, or a link to nothing
                found[name] = ()
            else:
                # ctime as well: a program may set mtime back, but not the time of the change itself.
                found[name] = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        return found


@dataclass(frozen=True, slots=True)
class FindOutputs:
    """Looks which files a task has made that match patterns, and whether it made its directories.

    What is there before the try and is the same after it counts only where the task declared to update it.

    Attributes:
        app: Name of the app.
        sets: The outputs.
    """

    app: str
    sets: tuple[OutputSet, ...]

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Look, run ``inner``, look again; what it found comes with the result. Raises MissingOutputs."""
        # Within the task and on the node: nodes see their own file systems first, and a look from the script may be
        # seconds old.
        before = [each.tree() for each in self.sets]
        result = inner()
        found: dict[int, list[str]] = {}
        missing, old = [], False
        for each, was in zip(self.sets, before, strict=True):
            now = each.tree()
            if each.pattern:
                made = [name for name, state in (now or {}).items() if each.update or (was or {}).get(name) != state]
                found[each.number] = made
                is_made = bool(made)
            else:
                is_made = now is not None and (each.update or now != was)
            if not is_made:
                missing.append(each)
                old = old or bool(now)
        if missing:
            raise self._missing(missing, old, where)
        return with_found(result, found) if found else result

    def _missing(self, missing: list[OutputSet], old: bool, where: NodeContext) -> MissingOutputs:
        said = ", ".join(
            f"a file that matches {each.named}" if each.pattern else f"the directory {each.named}, or anything in it"
            for each in missing
        )
        there = ". What was there before a task is no output of it, unless update=True is given" if old else ""
        on = f" on {where.node}" if where.node else ""
        place = f" (looked for in {', '.join(dict.fromkeys(os.path.abspath(each.place) for each in missing))}{on})"
        return MissingOutputs(
            f"app {self.app!r} ended without making {said}{place}{there}", [each.named for each in missing]
        )
