"""Cache entry: one kept URL of one user, with its versions and the part that has come of the next one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import stat
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from flow_core.remote.staged import of_a_task
from flow_staging.transfer.cache_record import Begun, Record, Signature, Version, boot
from flow_staging.transfer.failures import NotAsStated, PermanentTransferError, redacted
from flow_staging.transfer.limits import NoRoom, TooLarge
from flow_staging.transfer.publish import Partial, duplicate
from flow_staging.transfer.retry import PROGRESS_BYTES, Control
from flow_staging.transfer.stated import check, digits_of
from flow_staging.transfer.verify import Remote

_NOWHERE = Path()
_BLOCK = 4096  # what a small file takes on disk
_PAST_NS = 3_000_000_000  # longer than the coarsest clock of a file system ticks


class Entry:
    """The versions of one URL. Used by one thread, which holds the lock of its record.

    Attributes:
        trusted: Users whose entries may be used, by number; none, or None for all.
        added: Bytes that were kept.
    """

    def __init__(self, root: Path, key: str, fd: int, size: int, *, private: bool) -> None:
        self.trusted: frozenset[int] | None = frozenset()
        self.added = 0
        self._root = str(root)  # joined as text: for small files paths would take a good part of the time
        self._key = key
        self._fd = fd
        self._mode = 0o600 if private else 0o644
        self._record = Record.read(fd, size)
        self._part = f"{root}/{key}.part"
        self._fresh = ""
        self._unwritten = False

    @cached_property
    def foreign(self) -> Foreign | None:
        """Version of another user, if that user is trusted; looked for when it is first needed."""
        nobody = self.trusted is not None and not self.trusted
        return None if nobody else Foreign.find(Path(self._root), self._key, self.trusted)

    @property
    def holds_something(self) -> bool:
        """Whether anything would be lost with the entry."""
        return bool(self._record.versions) or os.path.exists(self._part)

    def pinned(self, pin: str) -> Version | None:
        """Return the version that a run or task has seen, if it is here whole and unchanged."""
        return self._checked(self._record.pinned(pin)) if pin else None

    def newest(self) -> Version | None:
        """Return the newest version that is here whole and unchanged."""
        return self._checked(self._record.newest)

    def of_version(self, validator: str) -> Version | None:
        """Return the version that the other side calls so, if it is here whole and unchanged."""
        found = next((one for one in self._record.versions[::-1] if one.validator == validator), None)
        return self._checked(found)

    def of_digest(self, stated: str, control: Control) -> Version | None:
        """Return a version with the digest that is stated: one that is known to have it, or the newest if it has.

        Raises:
            PermanentTransferError: the deadline passed, or the transfer is to stop.
        """
        digits = digits_of(stated)
        # Newest first: it is the likeliest one to be there unchanged.
        for version in self._record.versions[::-1]:
            if version.digest == digits and self._checked(version) is not None:
                return version
        newest = self.newest()
        if newest is None:
            return None
        try:
            check(f"{self._root}/{newest.name}", stated, control)
        except (OSError, NotAsStated):
            return None
        # Noted, so that the next task need not read the file to know it.
        known = replace(newest, digest=digits)
        self._record.replace(newest, known)
        self._write()
        return known

    def place(self, version: Version, path: Path, pin: str) -> bool:
        """Put a version at a path, and pin it for a run or task; False if it is gone or was changed.

        Raises:
            PermanentTransferError: the file cannot be written there.
        """
        if not self._placed(version, path):
            self._checked(version)
            return False
        # The user may write into a path of their own; a lent version is never linked into directories of tasks.
        if not version.lent and not of_a_task(path) and _is_file(f"{self._root}/{version.name}", path):
            lent = replace(version, lent=True)
            self._record.replace(version, lent)
            version, self._unwritten = lent, True
        self._note(version, pin)
        return True

    def _checked(self, version: Version | None) -> Version | None:
        """Return a version, or None if it was removed or written to, which is noted."""
        if version is None:
            return None
        try:
            if version.signature.fits(self._now(version)):
                return version
        except OSError:
            pass
        # First the record, then the file: a process killed in between leaves a file that goes with its entry.
        self._record.replace(version, None)
        self._write()
        self._remove(version)
        return None

    def _placed(self, version: Version, path: Path) -> bool:
        """Leave a path that has the content; else give it the content's own file, or a copy.

        It gets the file itself if no other path has it, or if it is one of a task's and only such have it: what the
        user may write into is no task's.
        """
        data = f"{self._root}/{version.name}"
        shared = of_a_task(path) and not version.lent
        if shared and _linked_anew(data, path):  # elsewhere killed ones may have left parts to be taken over
            return True
        try:
            with open(data, "rb") as source:
                state = os.fstat(source.fileno())
                with contextlib.suppress(FileNotFoundError):
                    # The path has this very file already, of an earlier try or another task.
                    if os.path.samestat(state, path.lstat()):
                        return version.signature.fits(Signature.of(source.fileno()))
                with Partial(path) as part:
                    if (state.st_nlink == 1 or shared) and _linked(data, part):
                        return True
                    duplicate(source, part)
                    if not version.signature.fits(Signature.of(source.fileno())):  # written to while it was copied
                        return False
                    part.publish()
        except FileNotFoundError:
            return False
        return True

    def _note(self, version: Version, pin: str) -> None:
        """Note the state of a version, which may have a further link, and the run or task that has seen it."""
        with contextlib.suppress(OSError):
            now = self._now(version)
            changed = now != version.signature
            same = (now.size, now.mtime_ns) == (version.signature.size, version.signature.mtime_ns)
            # A further link changes the time of the status only: the content is the same. That of one made just now
            # is, too: file systems keep times less exactly than they are given.
            if changed and (same or self._fresh == version.name):
                new = replace(version, signature=now)
                self._record.replace(version, new)
            if self._record.pin(pin, version.name) or changed or self._unwritten:
                self._record.write(self._fd)
                self._unwritten = False
            else:
                os.utime(self._fd)  # the time of the last use

    def _now(self, version: Version) -> Signature:
        path = f"{self._root}/{version.name}"
        if self._fresh == version.name:  # made just now by this very process, which knows it as it is
            return Signature.in_state(os.lstat(path))
        return Signature.at(path)

    # -- versions on their way

    def has_room(self, size: int) -> bool:
        """Return whether the disk has room for a version of this size."""
        try:
            free = os.statvfs(self._root)
        except OSError:
            return False
        return free.f_bavail * free.f_frsize >= size

    def part(self) -> EntryPart:
        """Return the file in which the next version is made, with what an earlier process left of it."""
        return EntryPart(self, self._part, self._mode)

    def left_over(self) -> Remote | None:
        """Return which version the part is of, if it can be gone on with."""
        begun = self._record.begun
        # After a crash of the machine blocks of the part may be missing, though its size is right.
        if begun is None or begun.boot != boot():
            return None
        return Remote(validator=begun.validator)

    def begins(self, url: str, remote: Remote) -> None:
        """Note what is on its way, so that others can go on with it."""
        lasts = bool(remote.validator) and remote.resumable
        begun = Begun(remote.validator, boot()) if lasts else None
        # Unchanged for each further try of the same version: no write then.
        if begun != self._record.begun:
            self._record.begun = begun
            self._record.url = redacted(url)
            self._write()

    def keep(self, part: EntryPart, url: str, remote: Remote) -> Version | None:
        """Make a version of a part that is whole; None if that cannot be. It has a name of its own then.

        Raises:
            OSError: what was written could not be stored.
        """
        name = f"{self._key}.{_new_name()}.data"
        # A time of change in the past shows every later write, also within one tick of the file system's clock.
        past = time.time_ns() - _PAST_NS
        part.end(past)
        try:
            part.become(f"{self._root}/{name}")
            self._fresh, self._unwritten = name, True
        except OSError:
            return None
        # Its further state is noted when it is at its place, which changes that once more.
        version = Version(name, remote.validator, remote.digits, Signature(part.size, past, 0, 0))
        # Small files take a block of the disk each.
        self.added += max(version.signature.size, _BLOCK)
        self._record.url, self._record.begun = redacted(url), None
        for old in self._record.add(version):
            self._remove(old)
        return version

    def let_go(self) -> None:
        """Note that the part is closed; what was kept of it is written down with its place, or here."""
        self._fresh = ""
        if self._unwritten:
            self._write()

    def drop_part(self) -> None:
        """Forget what was on its way."""
        if self._record.begun is not None:
            self._record.begun = None
            self._write()

    def _remove(self, version: Version) -> None:
        with contextlib.suppress(OSError):
            os.unlink(f"{self._root}/{version.name}")

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            self._record.write(self._fd)
            self._unwritten = False


class EntryPart(Partial):
    """A version in the making. What is there of it stays for the next process if it can be gone on with."""

    def __init__(self, entry: Entry, path: str, mode: int) -> None:
        super().__init__(_NOWHERE)
        self.path = self._begun_as = path
        self._entry = entry
        self._mode = mode

    def __enter__(self) -> EntryPart:
        """Open the file, at its end; raises OSError."""
        # What is no part of a version that can be resumed is cut off.
        goes_on = self._entry.left_over() is not None
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags if goes_on else flags | os.O_TRUNC, self._mode)
        if goes_on:
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A part smaller than the progress that counts is quicker fetched anew.
        useful = error is not None and self.size >= PROGRESS_BYTES and self._entry.left_over() and not _useless(error)
        if self.path == self._begun_as and not useful:
            self._entry.drop_part()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        self._entry.let_go()
        self._close()

    def end(self, mtime_ns: int) -> None:
        """Close the file, which is whole, with a time of change; raises OSError, which may come as late as here."""
        with contextlib.suppress(OSError):
            os.utime(self._fd, ns=(mtime_ns, mtime_ns))
        fd, self._fd = self._fd, -1
        # Closed once, without a copy of the descriptor: each call releases the interpreter, which costs more than
        # itself.
        os.close(fd)

    def move_to(self, path: Path) -> None:
        """Bring the file, which is not to be kept, to its place; raises PermanentTransferError."""
        with Partial(path) as part:
            if not _moved(self.path, part):
                with open(self.path, "rb") as source:
                    duplicate(source, part)
                part.publish()

    def become(self, data: str) -> None:
        """Give the file another name, under which it stays; raises OSError."""
        os.rename(self.path, data)
        self.path = data


class _Names:
    """Names that no other process gives. Any thread."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Take a random name for this process; a forked child takes one of its own."""
        self._process, self._numbers = os.urandom(6).hex(), itertools.count()

    def next(self) -> str:
        """Return a name that was not given before."""
        return f"{self._process}{next(self._numbers):x}"


_names = _Names()
# Random per process and numbered within: os.urandom for each file was a call of the system more.
_new_name = _names.next
os.register_at_fork(after_in_child=_names.begin)


def is_full(error: BaseException | None) -> bool:
    """Return whether a failure is one of the file system written to."""
    return isinstance(error, NoRoom) or (
        isinstance(error, PermanentTransferError) and isinstance(error.__cause__, OSError)
    )


def _useless(error: BaseException | None) -> bool:
    """Return whether a part is of no use to the next try: the disk is full, or the file too large."""
    return any(is_full(one) or isinstance(one, TooLarge) for one in (error, error and error.__cause__))


def _linked_anew(data: str, path: Path) -> bool:
    """Put the content's own file at a path where nothing is; False where something is, or where there are no links."""
    try:
        os.link(data, path)
    except FileNotFoundError:
        try:
            os.makedirs(path.parent, exist_ok=True)
            os.link(data, path)
        except OSError:
            return False
    except OSError:
        return False
    return True


def _is_file(data: str, path: Path) -> bool:
    try:
        return os.path.samestat(os.lstat(data), os.lstat(path))
    except OSError:
        return False


def _linked(data: str, part: Partial) -> bool:
    """Put the content's own file at a path; False where there are no links."""
    # By a second name and rename: os.link() refuses a name that exists, rename replaces it in one step.
    link = os.fspath(part.path).removesuffix(".part") + ".link"
    try:
        os.link(data, link)
        os.replace(link, part.final)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(link)
    return True


def _moved(source: str | os.PathLike[str], part: Partial) -> bool:
    """Give a file another name on the same file system; False where that cannot be."""
    try:
        # As new as if it had been written there.
        os.utime(source)
        os.replace(source, part.final)
    except OSError:
        return False
    return True


class Foreign:
    """Kept version of another user of the same directory: may be read, is not linked to.

    Attributes:
        version: Its newest version.
    """

    def __init__(self, root: Path, version: Version) -> None:
        self._data = root / version.name
        self.version = version

    @classmethod
    def find(cls, root: Path, key: str, trusted: frozenset[int] | None) -> Foreign | None:
        """Look through the directories of the others, or of those trusted, for an entry; None if none has it."""
        with contextlib.suppress(OSError):
            for other in sorted(root.parent.iterdir()):
                # Directories of users are called by their numbers; others are no caches of users.
                if other == root or not re.fullmatch("[0-9]{1,10}", other.name):
                    continue
                if trusted is not None and int(other.name) not in trusted:
                    continue
                with contextlib.suppress(OSError):
                    version = _newest_of(other, key)
                    if version is not None:
                        return cls(other, version)
        return None

    def copied(self, part: Partial) -> Remote | None:
        """Write the content into a part; None if it was changed or removed meanwhile. Raises PermanentTransferError."""
        try:
            with _owned(self._data, self._data.parent) as source:
                if not self.version.signature.fits(Signature.of(source.fileno())):
                    return None
                # Looked at before and after: the owner may replace the file while it is copied.
                part.truncate()
                duplicate(source, part)
                if not self.version.signature.fits(Signature.of(source.fileno())):
                    return None
        except OSError:
            return None
        return Remote(part.size, validator=self.version.validator)


def _newest_of(root: Path, key: str) -> Version | None:
    with _owned(root / f"{key}.entry", root) as stream:
        # Without waiting: a record that is being written is not worth it, the file comes from the other side then.
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return Record.read(stream.fileno(), os.fstat(stream.fileno()).st_size).newest


def _owned(path: Path, root: Path) -> BinaryIO:
    """Open a file of the user by whose number its directory is named; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)  # a pipe would wait for its writer
    stream = os.fdopen(fd, "rb")
    status = os.fstat(fd)
    # File, directory and number must be of one user: else somebody has put the file there for another.
    owners = {status.st_uid, os.lstat(root).st_uid, int(root.name)}
    if len(owners) != 1 or not stat.S_ISREG(status.st_mode):
        stream.close()
        raise PermissionError(errno.EACCES, "it belongs to another user", str(path))
    return stream
