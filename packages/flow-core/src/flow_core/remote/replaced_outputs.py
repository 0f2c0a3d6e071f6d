"""Older files at the places of outputs: moved aside for a try, put back if it fails, removed if it succeeds.

Beside the output lies meanwhile a hidden file, ``.NAME.flow-TASK-TRY.old``: what lay there, or ``.absent`` where
nothing did. A try takes over the one of an earlier try of its task that was killed, and whoever finds its own gone
knows that its task has another try by now, and touches nothing. Names of tasks (TASK) are those of one run only.

Where all tries of a task are in this process, that nothing lay there is remembered in it and not in a file: who could
read the file has ended with the process, and to make and remove it took as long as all else around such a task.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from hashlib import blake2b

from flow_core.remote.links import seen

_LONGEST_NAME = 150  # bytes of an output's name; with task and number the hidden name stays below the usual 255
_OLD, _ABSENT = "old", "absent"
_absent_here: set[str] = set()
"""Names of such files that were not made. No lock: each step is one call of the set's."""


@dataclass(slots=True)
class OutputPlace:
    """The place of one output during one try.

    Attributes:
        path: Where the output is to be: absolute, and no link.
        beside: The hidden file, empty where there is none: directories and devices stay, and what cannot be moved.
        before: What the system says of a file that could not be moved.
    """

    path: str
    beside: str = ""
    before: tuple[int, ...] | None = None

    @property
    def moved(self) -> bool:
        """Whether something that lay there was moved aside."""
        return self.beside.endswith(_OLD)

    def made(self) -> bool:
        """Tell whether this try has made the output."""
        try:
            now = os.stat(self.path)
        except OSError:
            return False
        return self.before is None or _signature(now) != self.before

    def succeeded(self) -> None:
        """Forget what lay there before. Never raises."""
        if self.beside:
            _forgotten(self.beside)

    def failed(self) -> None:
        """Put back what lay there before; a half output is removed. Never raises."""
        if self.beside:
            _put_back(self.path, self.beside)


def clear_for(path: str, task: str, number: int, there: os.stat_result | None, *, stays: bool = False) -> OutputPlace:
    """Make the place of an output free for a try.

    Args:
        path: The output.
        task: Name of the task, that no other task has.
        number: Of the try, from 1. What earlier ones have left there is removed.
        there: What the system says of what lies there, of a link itself; None if nothing does.
        stays: Whether all tries of the task are in this process.
    """
    path, there = _followed(path, there)
    for kind in (_OLD, _ABSENT):
        # The same file is made below; and where all tries are in this process, the first one finds nothing of others.
        if there is None and number == 1 and (stays or kind is _ABSENT):
            break
        mine = _beside(path, task, number, kind)
        # Renamed and not copied: that is one step, and an earlier try that still runs finds its file gone.
        for earlier in range(number, 0, -1):
            if _taken_over(_beside(path, task, earlier, kind), mine):
                remove_output(path)
                return OutputPlace(path, mine)
    if there is None:
        mine = _beside(path, task, number, _ABSENT)
        if stays:
            _absent_here.add(mine)
        return OutputPlace(path, mine if stays or _touched(mine) else "")
    # Directories may hold more than this output, and devices cannot be moved.
    if not stat.S_ISREG(there.st_mode):
        return OutputPlace(path)
    mine = _beside(path, task, number, _OLD)
    # Where the directory does not let names be changed, the file is known by what the system says of it.
    return OutputPlace(path, mine) if _renamed(path, mine) else OutputPlace(path, before=_signature(there))


def put_back(path: str, task: str, tries: int) -> None:
    """Put back what lay at the place of an output before the tries of a task that was killed. Never raises."""
    path, _ = _followed(path, seen(path))
    for number in range(1, tries + 1):
        for kind in (_OLD, _ABSENT):
            _put_back(path, _beside(path, task, number, kind))


def remove_output(path: str) -> None:
    """Remove a file, or a directory with all that is in it. Never raises."""
    try:
        os.unlink(path)
    except OSError:
        if os.path.isdir(path) and not os.path.islink(path):
            from flow_core.remote.staged import remove

            remove(path)


def unshared(path: str) -> None:
    """Give a file that is to be written to content of its own, if it shares that with links of other names.

    Raises:
        OSError: that cannot be done.
    """
    from shutil import copyfile, copymode

    try:
        if os.stat(path).st_nlink < 2:
            return
    except OSError:
        return
    twin = _beside(path, "copy", os.getpid(), "part")
    try:
        copyfile(path, twin)
        copymode(path, twin)
        os.replace(twin, path)
    finally:
        _unlink(twin)


def _followed(path: str, there: os.stat_result | None) -> tuple[str, os.stat_result | None]:
    """Return where a path leads, if it is a link, and what the system says of that; None if nothing is there.

    Links of directories on the way stay: what lies beside the output is reached through them as well.
    """
    given = path
    # Joined once and without realpath(): each question to the system lets go of the interpreter's lock, which costs
    # more than the question where tasks run in threads.
    if not os.path.isabs(path):
        path = os.path.join(os.getcwd(), path)  # the task may go elsewhere
    if os.path.basename(path) in ("", ".", ".."):
        path = os.path.realpath(path)
    if there is not None and stat.S_ISLNK(there.st_mode):
        path = os.path.realpath(path)
    return path, there if path == given else seen(path)


def _put_back(path: str, beside: str) -> None:
    if beside.endswith(_ABSENT):
        if _forgotten(beside):
            remove_output(path)
        return
    try:
        os.replace(beside, path)
    except FileNotFoundError:
        pass
    except OSError:  # a directory where a file was
        if os.path.lexists(beside):
            remove_output(path)
            _renamed(beside, path)


def _beside(path: str, task: str, number: int, kind: str) -> str:
    folder, name = os.path.split(path)
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = blake2b(os.fsencode(name), digest_size=8).hexdigest()
    return os.path.join(folder, f".{name}.flow-{task}-{number}.{kind}")


def _signature(state: os.stat_result) -> tuple[int, ...]:
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _taken_over(earlier: str, mine: str) -> bool:
    """Have what an earlier try has left beside an output be that of another one; tell whether there was something."""
    try:
        _absent_here.remove(earlier)
    except KeyError:
        return _renamed(earlier, mine)
    _absent_here.add(mine)
    return True


def _forgotten(beside: str) -> bool:
    """Remove what lies beside an output; tell whether it was still there."""
    try:
        _absent_here.remove(beside)
    except KeyError:
        return _unlink(beside)
    return True


def _renamed(path: str, name: str) -> bool:
    try:
        os.rename(path, name)
    except OSError:
        return False
    return True


def _touched(path: str) -> bool:
    try:
        # O_NOFOLLOW: at a name that anybody can foresee another user may have put a link.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666))
    except OSError:
        return False
    return True


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
