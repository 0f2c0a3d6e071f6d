"""The lock of a zip archive, and the journal from which a write that was killed is taken back."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flow_core.folders import plain_file
from flow_core.own_files import NotOwnFile, open_own
from flow_core.remote.links import foreign_link
from flow_staging.transfer.failures import PermanentTransferError, TransferCancelled
from flow_staging.transfer.retry import Control
from flow_staging.zip_archives import opened

# Seconds: flock has no deadline, so it is tried again; archives are locked for short times as a rule.
_POLL_FIRST_S, _POLL_LAST_S = 0.002, 0.1
_LONGEST_HEAD = 4096  # bytes of the journal's first line; a real one has some hundred
_MARK = b"PK"  # with which each record of a directory begins


@contextlib.contextmanager
def locked_archive(path: Path, control: Control, *, write: bool) -> Iterator[BinaryIO]:
    """Give an archive, locked for us, as it was when the last writer finished.

    Raises:
        PermanentTransferError: it is not as a writer of another user has left it or may leave it; the deadline passed;
            or it is to be written to, and a link of another user is in its place.
        OSError: it cannot be opened.
    """
    if write and (link := foreign_link(path)):
        raise PermanentTransferError(f"{path} is not written to: {link}. Name the file that it leads to, or remove it")
    journal = Journal(path)
    with _locked(path, control, write=write) as stream:
        if not journal.is_there():
            yield stream
            return
        if foreign := journal.of_another():
            if write:
                raise PermanentTransferError(f"{foreign}: until it is gone nothing can be written to {path}")
            _check_whole(path, foreign)
            yield stream
            return
    # A killed writer of ours: recovering needs the lock for writing, also where the caller only reads.
    with _locked(path, control, write=True) as stream:
        journal.recover(stream)
        yield stream


@contextlib.contextmanager
def _locked(path: Path, control: Control, *, write: bool) -> Iterator[BinaryIO]:
    pause = _POLL_FIRST_S
    while True:
        with open(path, "r+b" if write else "rb", opener=plain_file) as stream:
            try:
                fcntl.flock(stream, (fcntl.LOCK_EX if write else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                if os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):  # else replaced meanwhile
                    yield stream
                    return
        try:
            control.pause(pause)
        except TransferCancelled:
            raise
        except PermanentTransferError as error:
            raise PermanentTransferError(f"{error} ({path} was locked by others)") from error
        pause = min(pause * 2, _POLL_LAST_S)


def _check_whole(path: Path, foreign: str) -> None:
    """Refuse an archive which that user's writer may have left half-written."""
    try:
        opened(path).close()
    except PermanentTransferError as error:
        raise PermanentTransferError(
            f"{error}, and {foreign}: perhaps that user's process was killed while it wrote. The next use of the "
            "archive by that user, through Flow, puts it right"
        ) from error


@dataclass(frozen=True, slots=True)
class _Old:
    """Content of a journal: the directory of the archive, and its offset in bytes."""

    end: int
    directory: bytes


class Journal:
    """The journal of one archive, beside it. Used by the holder of the lock of the archive.

    It lies beside the file itself: users of a link to the archive must find the same journal.
    """

    def __init__(self, archive: Path) -> None:
        archive = Path(os.path.realpath(archive))
        digest = hashlib.blake2b(os.fsencode(archive.name), digest_size=6).hexdigest()
        self._archive = archive
        self._path = archive.with_name(f".flow-{digest}-journal")

    def is_there(self) -> bool:
        """Return whether a file or link has the name of the journal."""
        return os.path.lexists(self._path)

    def of_another(self) -> str:
        """Return a description of a journal of another user; empty for one of this user's."""
        try:
            open_own(self._path).close()
            if self._path.is_symlink():
                return f"{self._path} is a link and no journal of Flow"
        except NotOwnFile as error:
            return f"the journal {error}"
        except FileNotFoundError:
            return f"{self._path} is a link that leads nowhere" if self._path.is_symlink() else ""
        return ""

    @contextlib.contextmanager
    def kept(self, stream: BinaryIO, end: int) -> Iterator[None]:
        """Write down the directory of the locked archive, which begins at ``end``; put it back if the body raises.

        Raises:
            PermanentTransferError: another user's file is in the place of the journal.
            OSError: it cannot be written.
        """
        stream.seek(end)
        old = _Old(end, stream.read())
        # The journal before the first byte: a kill at any moment after it can be undone.
        self._write(stream, old)
        try:
            yield
        except BaseException:
            _put_back(stream, old)
            self._path.unlink()
            raise
        self._path.unlink()

    def recover(self, stream: BinaryIO) -> None:
        """Put back what a killed writer of ours has left of the archive, locked for writing; forget the journal.

        Raises:
            PermanentTransferError: the journal is damaged, and so is the archive.
            OSError: it is not our own any more, or cannot be read.
        """
        try:
            with open_own(self._path) as journal:
                head, content = journal.readline(_LONGEST_HEAD), journal.read()
        except FileNotFoundError:  # another did it while we waited for the lock
            return
        old = _checked(head, content, stream)
        if old is not None:
            _put_back(stream, old)
        else:
            try:
                opened(self._archive).close()
            except PermanentTransferError as error:
                raise PermanentTransferError(
                    f"{error}, and its journal {self._path} cannot be used, since it is damaged or is of another file: "
                    "put a copy of the archive in its place, and remove the journal"
                ) from error
        self._path.unlink()

    def _write(self, stream: BinaryIO, old: _Old) -> None:
        head = {
            "end": old.end,
            "size": len(old.directory),
            "digest": _digest(old.directory),
            "inode": os.fstat(stream.fileno()).st_ino,
        }
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            fd = _made(temporary)
        except FileExistsError:  # another user's, who will not have it removed
            temporary = self._path.with_name(f"{self._path.name}.{secrets.token_hex(6)}")
            fd = _made(temporary)
        try:
            with os.fdopen(fd, "wb") as journal:
                journal.write(json.dumps(head).encode() + b"\n" + old.directory)
            os.replace(temporary, self._path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _made(path: Path) -> int:
    """Make a file of our own, in place of what a killed process has left; raises OSError."""
    with contextlib.suppress(OSError):
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _checked(head: bytes, directory: bytes, stream: BinaryIO) -> _Old | None:
    """Return the content of a journal, if it is whole and of this very archive; else None."""
    try:
        said = json.loads(head)
        old = _Old(int(said["end"]), directory)
        fits = said["size"] == len(directory) and said["digest"] == _digest(directory)
        state = os.fstat(stream.fileno())
        if not fits or said["inode"] != state.st_ino or not 0 <= old.end <= state.st_size:
            return None
    except (ValueError, KeyError, TypeError):
        return None
    return old if directory.startswith(_MARK) else None


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _put_back(stream: BinaryIO, old: _Old) -> None:
    stream.seek(old.end)
    stream.write(old.directory)
    stream.truncate()
    stream.flush()
