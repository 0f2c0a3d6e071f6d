"""Members of zip archives as files: brought in from an archive, and out into one, under a lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from flow_core.errors import ConfigurationError
from flow_core.files import File
from flow_core.interfaces.staging import Digests, Direction, Staging, Transfer
from flow_staging.transfer.expression import call_of
from flow_staging.transfer.failures import Refused, Stopped, local_failure, staging_error
from flow_staging.transfer.pool import Job, TransferPool
from flow_staging.transfer.publish import Partial
from flow_staging.transfer.retry import Control
from flow_staging.zip_archives import OpenArchives, opened

_CHUNK = 256 << 10
_POLL_FIRST_S, _POLL_LAST_S = 0.002, 0.1
_HUGE = 1 << 31


@dataclass(frozen=True, slots=True)
class Member:
    """What a URL of the form ``zip:/path/archive.zip/path/in/it`` says.

    Attributes:
        archive: The archive; relative ones are meant from the current directory of the submit side.
        name: Name of the member.
    """

    archive: Path
    name: str

    @classmethod
    def of(cls, url: str) -> Member:
        """Take a URL apart; the archive ends at the first ``.zip/``.

        Raises:
            Refused: it names no member, or one that would lie outside of the archive's own tree.
        """
        rest = unquote(re.sub(r"^zip:(//(?=/))?", "", url, flags=re.IGNORECASE))
        if rest.startswith("//"):
            raise Refused("a zip URL has no host: zip:///path/archive.zip/member")
        match = re.fullmatch(r"(.*?\.zip)/(.+)", rest, re.IGNORECASE | re.DOTALL)
        if match is None:
            raise Refused("a zip URL has the form zip:/path/archive.zip/member")
        archive, name = match.groups()
        _check_member(name)
        return cls(Path(os.path.abspath(archive)), name)


def _check_member(name: str) -> None:
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise Refused(f"member {name!r}: absolute names are not allowed")
    if "\\" in name or "\0" in name:
        raise Refused(f"member {name!r}: backslashes and zero bytes are not allowed")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise Refused(f"member {name!r}: empty parts, '.' and '..' are not allowed; name a file below the archive")


class ZipFileStaging(Staging):
    """Takes ``zip:`` URLs out of archives and puts them in, on the submit side.

    Any number of tasks and processes may use one archive: it is locked while it is read or written. All members that
    one task brings out of it go in together or not at all, also when the process is killed meanwhile: the next who
    uses the archive through Flow takes back what was not finished.

    Args:
        compression: Method of compression of new members, as in ``zipfile``.
        timeout_s: Longest time for the files of one task and one archive, waiting for the lock included.
        threads: Archives used at once.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    def __init__(self, *, compression: int = zipfile.ZIP_DEFLATED, timeout_s: float = 3600.0, threads: int = 4) -> None:
        if threads < 1 or timeout_s <= 0:
            raise ConfigurationError(
                f"ZipFileStaging(threads={threads!r}, timeout_s={timeout_s!r}): both must be above 0"
            )
        self._compression = compression
        self._timeout_s = timeout_s
        self._pool = TransferPool(threads, "zip")
        self._archives = OpenArchives()
        self._call = call_of(self, compression=compression, timeout_s=timeout_s, threads=threads)

    def can_stage_in(self, file: File) -> bool:
        """Tell by the scheme."""
        return file.url[:4].lower() == "zip:"

    def can_stage_out(self, file: File) -> bool:
        """Tell by the scheme."""
        return self.can_stage_in(file)

    def stage(self, transfers: Sequence[Transfer]) -> Future[Digests]:
        """Move the members; does not block. Files of one archive are moved under one lock."""
        groups: dict[tuple[Path, Direction], list[tuple[Transfer, Member]]] = {}
        for transfer in transfers:
            try:
                member = Member.of(transfer.file.url)
            except Refused as error:
                failed: Future[Digests] = Future()
                failed.set_exception(staging_error(transfer, error))
                return failed
            groups.setdefault((member.archive, transfer.direction), []).append((transfer, member))
        jobs = [Job(str(archive), partial(self._run, direction, work)) for (archive, direction), work in groups.items()]
        return self._pool.submit(jobs)

    def close(self) -> None:
        """Stop what is still going; archives are left as they were before it."""
        self._pool.close()
        self._archives.close()

    def _run(self, direction: Direction, work: Sequence[tuple[Transfer, Member]], stop: threading.Event) -> None:
        control = Control(self._timeout_s, stop)
        if direction is Direction.IN:
            _extract(work, self._archives, control)
        else:
            _add(work, self._compression, control)

    def __repr__(self) -> str:
        return self._call


# -- members in


def _extract(work: Sequence[tuple[Transfer, Member]], archives: OpenArchives, control: Control) -> None:
    path = work[0][1].archive
    with (
        _named(work[0][0]),
        _opened(path, control, write=False) as stream,
        archives.reading(path, stream) as archive,
    ):
        for transfer, member in work:
            with _named(transfer):
                _extract_one(archive, member.name, transfer.local_path, control)


def _extract_one(archive: zipfile.ZipFile, name: str, path: Path, control: Control) -> None:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise Refused(f"the archive has no member {name!r}") from None
    if stat.S_ISLNK(info.external_attr >> 16):
        raise Refused(f"member {name!r} is a symbolic link; only plain files are taken out")
    if info.flag_bits & 1:
        raise Refused(f"member {name!r} is encrypted")
    with Partial(path) as part:
        try:
            with archive.open(info) as source:
                while chunk := source.read(_CHUNK):
                    part.write(chunk)
                    control.check()
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise Refused(f"member {name!r} cannot be read: {error}") from error
        part.publish()


# -- members out


def _add(work: Sequence[tuple[Transfer, Member]], compression: int, control: Control) -> None:
    path = work[0][1].archive
    put = partial(_put, work, compression, control)
    with _named(work[0][0]):
        while not path.exists():
            if _create(path, put):
                return
        with _opened(path, control, write=True) as stream:
            _append(stream, path, put)


def _create(path: Path, put: Callable[[zipfile.ZipFile], None]) -> bool:
    """Make a new archive; False if another process was quicker."""
    with Partial(path) as part:
        with part.path.open("r+b") as stream, zipfile.ZipFile(stream, "w") as archive:
            put(archive)
        try:
            os.link(part.path, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            part.publish()
    return True


def _append(stream: BinaryIO, path: Path, put: Callable[[zipfile.ZipFile], None]) -> None:
    """Add members at the end, over the old directory, which is put aside so that it can be put back."""
    with opened(path) as archive:
        end: int = archive.start_dir  # where the directory begins
    journal = _journal(path)
    stream.seek(end)
    old = stream.read()
    _write_journal(journal, end, old)
    archive = zipfile.ZipFile(stream, "a")
    try:
        put(archive)
        archive.close()
        stream.flush()
    except BaseException:
        with contextlib.suppress(OSError, ValueError):
            archive.close()  # else it would write into the file when it is collected
        _put_back(stream, end, old)
        journal.unlink()
        raise
    journal.unlink()


def _put(work: Sequence[tuple[Transfer, Member]], compression: int, control: Control, archive: zipfile.ZipFile) -> None:
    for transfer, member in work:
        with _named(transfer):
            if not transfer.local_path.is_file():
                raise Refused("the app did not make this file")
            _put_one(archive, member.name, transfer.local_path, compression, control)


def _put_one(archive: zipfile.ZipFile, name: str, path: Path, compression: int, control: Control) -> None:
    old = archive.NameToInfo.pop(name, None)
    if old is not None:  # a run again: the directory names the new content only
        archive.filelist.remove(old)
    info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
    info.compress_type = compression
    with path.open("rb") as source, archive.open(info, "w", force_zip64=info.file_size >= _HUGE) as target:
        while chunk := source.read(_CHUNK):
            target.write(chunk)
            control.check()


# -- the lock and the journal


@contextlib.contextmanager
def _opened(path: Path, control: Control, *, write: bool) -> Iterator[BinaryIO]:
    """Give the archive, locked for us, as it was when the last writer finished."""
    with _locked(path, control, write=write) as stream:
        if not _journal(path).exists():
            yield stream
            return
    with _locked(path, control, write=True) as stream:
        _recover(stream, _journal(path))
        yield stream


@contextlib.contextmanager
def _locked(path: Path, control: Control, *, write: bool) -> Iterator[BinaryIO]:
    pause = _POLL_FIRST_S
    while True:
        with path.open("r+b" if write else "rb") as stream:
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
        except Stopped:
            raise
        except Refused as error:
            raise Refused(f"{error} ({path} was locked by others)") from error
        pause = min(pause * 2, _POLL_LAST_S)


def _journal(path: Path) -> Path:
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=6).hexdigest()
    return path.with_name(f".flow-{digest}-journal")


def _write_journal(journal: Path, end: int, old: bytes) -> None:
    temporary = journal.with_name(journal.name + ".new")
    temporary.write_bytes(json.dumps({"end": end}).encode() + b"\n" + old)
    os.replace(temporary, journal)


def _recover(stream: BinaryIO, journal: Path) -> None:
    try:
        content = journal.read_bytes()
    except FileNotFoundError:  # another did it while we waited for the lock
        return
    head, _, old = content.partition(b"\n")
    _put_back(stream, json.loads(head)["end"], old)
    journal.unlink()


def _put_back(stream: BinaryIO, end: int, old: bytes) -> None:
    stream.seek(end)
    stream.write(old)
    stream.truncate()
    stream.flush()


@contextlib.contextmanager
def _named(transfer: Transfer) -> Iterator[None]:
    """Make errors name the file they belong to."""
    try:
        yield
    except OSError as error:
        raise staging_error(transfer, local_failure(error, f"cannot use {error.filename or 'the archive'}")) from error
    except Exception as error:
        raise staging_error(transfer, error) from error
