"""Files of the script's machine that nodes may have: those that a task names, and no others. Blocking; one thread.

What a manager says is not believed: it names files by their numbers in the script's own copy of the task's step,
members of directories come of a list that is made here, and those that it makes are checked part by part.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flow_core.errors import StagingError
from flow_core.folders import make_directory
from flow_core.remote.links import foreign_link
from flow_core.remote.output_sets import is_match
from flow_core.remote.replaced_outputs import remove_output
from flow_core.remote.script_files import FilesByConnection, ScriptFile
from flow_executors.common.file_pieces import ComingFile, LinkThere, open_plain
from flow_executors.wire.files import Entry

# Nanoseconds. A file that was changed so lately may change again without another time: its version is not sure.
_JUST_NOW_NS = 2_000_000_000
# Directories below each other; a bound for those that contain themselves by links.
_DEPTH = 64
_COPY = 1 << 20  # bytes at once
CURES = (
    "Name RSyncStaging, S3Staging or GlobusStaging in storage_access of the executor, by which large files move "
    "without this connection, or raise max_transfer_bytes"
)


class Listing:
    """What a task is given, as it is on this machine now.

    Attributes:
        entries: All of it.
        missing: Inputs that are not there, as the task names them.
        size: Bytes in all.
    """

    def __init__(self, step: FilesByConnection) -> None:
        """Look. Raises StagingError naming what cannot be served."""
        self._files = step.files
        self.entries: list[Entry] = []
        self.missing: list[str] = []
        self.size = 0
        for number, file in enumerate(self._files):
            given = number < len(step.inputs)
            if given or file.update or file.kind == "directory":
                self._look(number, file, given)

    def path(self, entry: Entry) -> str:
        """Return where an entry is."""
        path = self._files[entry.file].path
        return f"{path}/{entry.member}" if entry.member else path

    def open(self, entry: Entry) -> int:
        """Open a file of the list. Raises StagingError."""
        path = self.path(entry)
        try:
            return open_plain(path, path, through_links=not entry.member)
        except LinkThere:
            _refuse_foreign(path)
            return open_plain(path, path)

    def _look(self, number: int, file: ScriptFile, given: bool) -> None:
        try:
            state = os.stat(file.path)
        except OSError:
            if given:
                self.missing.append(file.place)
            return
        if not stat.S_ISDIR(state.st_mode):
            if given or (file.update and stat.S_ISREG(state.st_mode)):
                if not stat.S_ISREG(state.st_mode):
                    raise StagingError(f"{file.path} is neither file nor directory, and so cannot be sent", file.place)
                self._add(number, "", state)
        elif given or file.update:
            self.entries.append(Entry(number, "", "d", 0, stat.S_IMODE(state.st_mode)))
            self._walk(number, file, "", {(state.st_dev, state.st_ino)})
        elif file.kind == "directory":  # an output that is there before the task, as on this machine
            self.entries.append(Entry(number, "", "d", 0, stat.S_IMODE(state.st_mode)))

    def _walk(self, number: int, file: ScriptFile, folder: str, above: set[tuple[int, int]]) -> None:
        path = os.path.join(file.path, folder)
        try:
            found = sorted(os.scandir(path), key=lambda each: each.name)
        except OSError as error:
            text = f"{path} cannot be read on the script's machine: {error.strerror or error}"
            raise StagingError(text, file.place) from error
        for each in found:
            member = os.path.join(folder, each.name)
            if each.is_symlink():
                _refuse_foreign(each.path)
            try:
                state = each.stat()
            except OSError:
                continue  # a link to nothing, or removed meanwhile: the task does not find it either
            if stat.S_ISDIR(state.st_mode):
                where = (state.st_dev, state.st_ino)
                if where in above or len(above) > _DEPTH:
                    raise StagingError(f"{each.path} leads back into a directory above it", file.place)
                if not file.pattern:
                    self.entries.append(Entry(number, member, "d", 0, stat.S_IMODE(state.st_mode)))
                self._walk(number, file, member, above | {where})
            elif stat.S_ISREG(state.st_mode) and (not file.pattern or is_match(member, file.pattern)):
                self._add(number, member, state)

    def _add(self, number: int, member: str, state: os.stat_result) -> None:
        sure = time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > _JUST_NOW_NS
        version = (
            f"{state.st_dev}.{state.st_ino}.{state.st_size}.{state.st_mtime_ns}.{state.st_ctime_ns}" if sure else ""
        )
        self.entries.append(Entry(number, member, "f", state.st_size, stat.S_IMODE(state.st_mode), version))
        self.size += state.st_size


def _refuse_foreign(path: str) -> None:
    """Refuse what another user has put into a directory of the user's to have another file served."""
    if os.path.islink(path) and (found := foreign_link(path)):
        raise StagingError(f"{path} is not sent to a node: {found}", path)


class Arrival:
    """What a task has made, on its way to where it was declared: beside that, until all of it is there.

    Args:
        step: What the task declared.
        name: That of the try, which no other has; part of the names of what is not whole.
        umask: Permissions that new files do not get.
    """

    def __init__(self, step: FilesByConnection, name: str, umask: int) -> None:
        self._files = step.files
        self._first = len(step.inputs)
        self._name = name
        self._umask = umask
        self._entries: list[Entry] = []
        self._parts: dict[int, str] = {}  # entry -> where it lies until it is published
        self._folders: dict[int, str] = {}  # declared directory or pattern -> the hidden directory of its members
        self._whole: set[int] = set()
        self._new: set[int] = set()  # declared directories that were not there before
        self._coming: ComingFile | None = None
        self._entry = -1  # the one that comes just now

    def lacking(self, entries: Sequence[Entry]) -> list[tuple[int, int]] | None:
        """Return what of the list of a manager that goes on after a break is not here yet: entries, and from where on.

        None: it is another list, so that what is here is of no use.
        """
        if list(entries) != self._entries or not all(one.version for one in entries):
            return None
        open_one = [] if self._coming is None else [(self._entry, self._coming.size)]
        return open_one + [(n, 0) for n, one in enumerate(entries) if one.type == "f" and n not in self._parts]

    def listed(self, entries: Sequence[Entry]) -> int:
        """Take the list, check each entry, and return the bytes in all. Raises StagingError: one was not declared."""
        if self._entries:
            raise StagingError("a manager listed what a task has made twice")
        seen: set[tuple[int, str]] = set()
        for entry in entries:
            file = self._declared(entry)
            check_member(entry, file)
            if (entry.file, entry.member) in seen:
                raise StagingError(f"a manager sent {file.place} {entry.member} twice", file.place)
            seen.add((entry.file, entry.member))
        self._entries = list(entries)
        return sum(entry.size for entry in entries)

    def _declared(self, entry: Entry) -> ScriptFile:
        if not self._first <= entry.file < len(self._files):
            raise StagingError(f"a manager sent file {entry.file}, which is no output of the task")
        return self._files[entry.file]

    # -- bodies

    def begin(self, number: int, offset: int, length: int) -> None:
        """Begin with the content of an entry. Raises StagingError."""
        coming = self._coming
        if coming is not None and number == self._entry and offset == coming.size:
            if length != self._entries[number].size - offset:
                raise StagingError("a manager sent other bytes than it has listed")
            return
        if not 0 <= number < len(self._entries) or number in self._parts or coming is not None:
            raise StagingError("a manager sent the content of no file that it has listed")
        entry = self._entries[number]
        if entry.type != "f" or offset or length != entry.size:
            raise StagingError("a manager sent other bytes than it has listed")
        file = self._files[entry.file]
        try:
            coming = self._coming = ComingFile(self._part(number, entry, file))
        except OSError as error:
            raise _cannot(file, error) from error
        self._parts[number], self._entry = coming.path, number

    def write(self, content: memoryview) -> None:
        """Write the next bytes of it. Raises StagingError."""
        if self._coming is None:
            raise StagingError("a manager sent the content of no file that it has listed")
        try:
            self._coming.write(content)
        except OSError as error:
            raise _cannot(self._files[self._entries[self._entry].file], error) from error

    def end(self, digest: bytes) -> None:
        """All of it has come. Raises StagingError: it is not what was sent."""
        entry, coming = self._entries[self._entry], self._coming
        if coming is None or not coming.is_whole(entry.size, digest):
            raise StagingError(f"{self._files[entry.file].place} changed on its way", self._files[entry.file].place)
        self._coming = None
        coming.close(entry.mode & 0o777 & ~self._umask)
        self._whole.add(self._entry)

    def _part(self, number: int, entry: Entry, file: ScriptFile) -> str:
        if file.kind in ("file", "stream"):
            folder, name = os.path.split(_led(file))
            make_directory(folder)
            return os.path.join(folder, f".{name[:100]}.flow-{self._name}.part")
        # Flat and by number: names of a manager make no directories before all is there.
        return os.path.join(self._folder(entry.file, file), str(number))

    def _folder(self, number: int, file: ScriptFile) -> str:
        known = self._folders.get(number)
        if known is None:
            if file.kind == "directory" and not os.path.lexists(file.path):
                self._new.add(number)
                above, name = os.path.split(file.path.rstrip("/"))
                known = os.path.join(above, f".{name[:100]}.flow-{self._name}.part")
            else:
                known = os.path.join(file.path, f".flow-{self._name}-{number}.part")
            make_directory(os.path.dirname(known))
            os.mkdir(known, 0o700)
            self._folders[number] = known
        return known

    # -- the end

    def publish(self) -> None:
        """Put all at its place; only now do others see anything of it. Raises StagingError."""
        lacking = [number for number, one in enumerate(self._entries) if one.type == "f" and number not in self._whole]
        if lacking:
            raise StagingError("a manager ended before it had sent all that it had listed")
        by_file: dict[int, list[int]] = {}
        for number, entry in enumerate(self._entries):
            by_file.setdefault(entry.file, []).append(number)
        for declared, numbers in by_file.items():
            file = self._files[declared]
            try:
                self._publish(declared, file, numbers)
            except OSError as error:
                raise _cannot(file, error) from error
        self.abandon()

    def _publish(self, declared: int, file: ScriptFile, numbers: Sequence[int]) -> None:
        if file.kind == "stream":
            _to_stream(self._parts[numbers[0]], file)
        elif file.kind == "file":
            _to_file(self._parts[numbers[0]], file)
        else:
            self._publish_set(declared, file, numbers)

    def _publish_set(self, declared: int, file: ScriptFile, numbers: Sequence[int]) -> None:
        whole = declared in self._new and not os.path.lexists(file.path)
        folder = self._folder(declared, file)
        # A directory that is new is put together beside its place, and is there at once.
        base = os.path.join(folder, "whole") if whole else file.path
        make_directory(base)
        top = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for number in numbers:
                entry = self._entries[number]
                if entry.member:
                    self._put(top, number, entry, file)
        finally:
            os.close(top)
        if whole:
            os.rename(base, file.path)

    def _put(self, top: int, number: int, entry: Entry, file: ScriptFile) -> None:
        """Put a member at its place below an open directory, going through no link."""
        *folders, name = entry.member.split("/")
        at = os.dup(top)
        try:
            for folder in [*folders, name] if entry.type == "d" else folders:
                try:
                    os.mkdir(folder, dir_fd=at)
                except FileExistsError:
                    pass
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
                below = os.open(folder, flags, dir_fd=at)
                os.close(at)
                at = below
            if entry.type == "f":
                os.rename(self._parts[number], name, dst_dir_fd=at)
        except OSError as error:
            raise StagingError(
                f"{os.path.join(file.path, entry.member)} is not written: {error.strerror or error}. Where it lies are "
                "links or files that the task has not made",
                file.place,
            ) from error
        finally:
            os.close(at)

    def abandon(self) -> None:
        """Remove what is not published. Never raises."""
        if self._coming is not None:
            self._coming.close()
            self._coming = None
        for path in self._parts.values():
            try:
                os.unlink(path)
            except OSError:
                pass
        for folder in self._folders.values():
            remove_output(folder)
        self._parts.clear()
        self._folders.clear()


def check_member(entry: Entry, file: ScriptFile) -> None:
    """Check that an entry lies within what was declared.

    Raises:
        StagingError: it does not; the message names it.
    """
    if file.kind in ("file", "stream"):
        fits = not entry.member and entry.type == "f"
    elif not entry.member:
        fits = entry.type == "d" and file.kind == "directory"
    else:
        parts = entry.member.split("/")
        fits = "\0" not in entry.member and not any(part in ("", ".", "..") for part in parts)
        if file.kind == "pattern":
            fits = fits and entry.type == "f" and is_match(entry.member, file.pattern)
    if not fits:
        raise StagingError(f"a manager sent {entry.member!r} for {file.place}, which does not lie in it", file.place)


def _led(file: ScriptFile) -> str:
    """Return where a declared file is to be: where its link leads, if it is one of the user's. Raises StagingError."""
    found = foreign_link(file.path)
    if found:
        raise StagingError(f"{file.path} is not written to: {found}", file.place)
    return os.path.realpath(file.path) if os.path.islink(file.path) else file.path


def _to_file(part: str, file: ScriptFile) -> None:
    path = _led(file)
    if os.path.lexists(path) and not os.path.isfile(path):
        _copy(part, path, os.O_WRONLY)  # a device, as programs of this machine would write to it
    else:
        os.replace(part, path)


def _to_stream(part: str, file: ScriptFile) -> None:
    if not file.mode.startswith("a"):
        _to_file(part, file)
        return
    path = _led(file)
    _copy(part, path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _copy(part: str, path: str, flags: int) -> None:
    target = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        # Other runs of the same script may add to it, too: their lines must not fall into these.
        if flags & os.O_APPEND:
            _locked(lambda: fcntl.flock(target, fcntl.LOCK_EX))
        with Path(part).open("rb") as source:
            while content := source.read(_COPY):
                view = memoryview(content)
                while view:
                    view = view[os.write(target, view) :]
    finally:
        os.close(target)


def _locked(lock: Callable[[], None]) -> None:
    try:
        lock()
    except OSError:
        pass  # a file system without locks


def _cannot(file: ScriptFile, error: OSError) -> StagingError:
    return StagingError(f"{file.path} cannot be written on the script's machine: {error.strerror or error}", file.place)
