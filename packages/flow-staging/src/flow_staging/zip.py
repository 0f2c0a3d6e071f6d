"""Zip staging: members of zip archives as files, taken out of an archive and put into one, under a lock."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from flow_core.errors import ConfigurationError
from flow_core.files import File, Glob
from flow_core.interfaces.staging import Digests, Direction, Staging, Transfer, Versions
from flow_core.remote.links import foreign_link
from flow_staging.transfer import sets
from flow_staging.transfer.expression import call_of
from flow_staging.transfer.failures import Final, PermanentTransferError, local_failure, staging_error
from flow_staging.transfer.handle import Handle
from flow_staging.transfer.limits import DEFAULT_LIMITS, Bound, SizeLimits
from flow_staging.transfer.looking import look_at
from flow_staging.transfer.pool import TransferJob, TransferPool
from flow_staging.transfer.publish import Partial
from flow_staging.transfer.retry import Control, LeastSpeed, Pace
from flow_staging.zip_archives import OpenArchives, opened
from flow_staging.zip_journal import Journal, locked_archive

_CHUNK = 256 << 10  # bytes a read; only the magnitude matters: a deadline is looked at after each
_HUGE = 1 << 31  # bytes; from here on sizes are written as ZIP64 at once, since they cannot be widened later


@dataclass(frozen=True, slots=True)
class Member:
    """Archive and member of a URL ``zip:/path/archive.zip/path/in/it`` or ``zip:/path/archive!/path/in/it``.

    Attributes:
        archive: The archive; relative ones are meant from where the script was when it called the app.
        name: Name of the member.
    """

    archive: Path
    name: str

    @classmethod
    def of(cls, url: str, directory: str = "", *, whole: bool = False) -> Member:
        """Take a URL apart: the archive ends at the first ``!/``, or else at the first ``.zip/`` of no directory.

        Where all that is below a name may be meant (``whole``), the name may be empty, or end with a slash.

        Raises:
            Final: it names no member, or one that would lie outside of the archive's own tree.
        """
        rest = re.sub(r"^zip:(//(?=/))?", "", url, flags=re.IGNORECASE)
        if rest.startswith("//"):
            raise Final("a zip URL has no host: zip:///path/archive.zip/member")
        rest = f"{rest.rstrip('/')}/" if whole else rest
        archive, mark, member = rest.partition("!/")
        if not mark:
            archive, member = _apart(rest, directory)
        member = member.rstrip("/") if whole else member
        if not archive or not (member or whole):
            raise Final(
                "a zip URL has the form zip:/path/archive.zip/member, or zip:/path/archive!/member for an archive of "
                "any other name"
            )
        try:
            name = unquote(member, errors="strict")
        except UnicodeDecodeError:
            raise Final(f"member {member!r} is not UTF-8") from None
        # Checked after unquoting: %2e%2e is ".." as well.
        if name or not whole:
            _check_member(name)
        path = os.path.join(directory, unquote(archive, errors="surrogateescape"))
        return cls(Path(os.path.abspath(path)), name)

    @property
    def folder(self) -> str:
        """Prefix of the names of all members below it; empty for the whole archive."""
        return f"{self.name}/" if self.name else ""

    @classmethod
    def of_file(cls, file: File) -> Member:
        """Return the member of a file, of a directory, or of the directory before a pattern; raises Final."""
        url = file.base if isinstance(file, Glob) else file.url
        return cls.of(url, file.directory, whole=file.kind != "file")


@dataclass(frozen=True, slots=True)
class _Limits:
    """Limits of members: their sizes, and the least speed."""

    sizes: SizeLimits
    speed: LeastSpeed


def _apart(rest: str, directory: str) -> tuple[str, str]:
    """Return archive and member where ``.zip/`` ends the archive; both empty if it does nowhere."""
    for written in (r"\.zip/", r"(?:\.|%2E)zip/"):  # a quoted dot counts where no other does
        for match in re.finditer(written, rest, re.IGNORECASE):
            path = os.path.join(directory, unquote(rest[: match.end()], errors="surrogateescape"))
            # A directory may be called "x.zip", and the archive lie in it.
            if not os.path.isdir(path):
                return rest[: match.end() - 1], rest[match.end() :]
    return "", ""


def _check_member(name: str) -> None:
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise Final(f"member {name!r}: absolute names are not allowed")
    if "\\" in name or "\0" in name:
        raise Final(f"member {name!r}: backslashes and zero bytes are not allowed")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise Final(f"member {name!r}: empty parts, '.' and '..' are not allowed; name a file below the archive")


class ZipFileStaging(Staging):
    """Takes ``zip:`` URLs out of archives and puts them in, on the submit side.

    Directories (``zip:/path/archive.zip/path/in/it``, or ``zip:/path/archive.zip/`` for all of it) and patterns are
    moved, too.

    Any number of tasks and processes may use one archive: it is locked while it is read or written. All members that
    one task brings out of it go in together or not at all, also when the process is killed meanwhile: the next who
    uses the archive through Flow takes back what was not finished.

    Args:
        compression: Method of compression of new members, as in ``zipfile``.
        timeout_s: Longest time for the files of one task and one archive, waiting for the lock included.
        threads: Archives used at once.
        limits: How large a member may be that is taken out.
        least_speed: Bytes a second of a member below which its transfer fails; 0 for any speed.
        least_speed_window_s: The time over which that is measured, in seconds.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    moves = ("file", "directory", "pattern")

    def __init__(
        self,
        *,
        compression: int = zipfile.ZIP_DEFLATED,
        timeout_s: float = 3600.0,
        threads: int = 4,
        limits: SizeLimits = DEFAULT_LIMITS,
        least_speed: float = 100.0,
        least_speed_window_s: float = 300.0,
    ) -> None:
        if threads < 1 or timeout_s <= 0:
            raise ConfigurationError(
                f"ZipFileStaging(threads={threads!r}, timeout_s={timeout_s!r}): both must be above 0"
            )
        self._compression = compression
        self._timeout_s = timeout_s
        self._pool = TransferPool(threads, "zip", in_all=threads)
        self._archives = OpenArchives()
        self._limits = limits
        self._speed = LeastSpeed("ZipFileStaging", least_speed, least_speed_window_s)
        self._call = call_of(
            self,
            compression=compression,
            timeout_s=timeout_s,
            threads=threads,
            limits=limits,
            least_speed=least_speed,
            least_speed_window_s=least_speed_window_s,
        )

    def can_stage_in(self, file: File) -> bool:
        """Return whether the scheme of the URL is one that this method fetches."""
        return file.url[:4].lower() == "zip:"

    def can_stage_out(self, file: File) -> bool:
        """Return whether the scheme of the URL is one that this method sends to."""
        return self.can_stage_in(file)

    def wrong_with(self, file: File, direction: Direction) -> str:
        """Return what is wrong with the name of a file, empty if nothing is; asks no server."""
        try:
            Member.of_file(file)
        except Final as error:
            return str(error)
        return ""

    def stage(self, transfers: Sequence[Transfer]) -> Future[Digests]:
        """Move the members; does not block. Files of one archive are moved under one lock."""
        groups: dict[tuple[Path, Direction], list[tuple[Transfer, Member]]] = {}
        for transfer in transfers:
            try:
                member = Member.of_file(transfer.file)
            except PermanentTransferError as error:
                failed: Future[Digests] = Future()
                failed.set_exception(staging_error(transfer, error))
                return failed
            groups.setdefault((member.archive, transfer.direction), []).append((transfer, member))
        jobs = [
            # The archive is the key: of two groups that use it the second waits without a thread.
            TransferJob(str(archive), partial(self._run, direction, work), str(archive))
            for (archive, direction), work in groups.items()
        ]
        return self._pool.submit(jobs)

    def look(self, files: Sequence[File]) -> Future[Versions]:
        """Look at members; does not block."""
        return look_at(self._pool, self._look, files, [_archive_of(file) for file in files])

    def _look(self, file: File, control: Control) -> str:
        """Return size and checksum of a member, empty if it is not there; raises PermanentTransferError."""
        member = Member.of_file(file)
        try:
            with (
                locked_archive(member.archive, control, write=False) as stream,
                self._archives.reading(member.archive, stream) as archive,
            ):
                found = _version(archive, file, member)
        # No archive and no such member are the same: the file is not there, which is no error of a look.
        except (FileNotFoundError, KeyError):
            return ""
        except (OSError, zipfile.BadZipFile) as error:
            raise PermanentTransferError(str(error)) from error
        return found

    def close(self) -> None:
        """Stop what is still going; archives are left as they were before it."""
        self._pool.close()
        self._archives.close()

    def _run(self, direction: Direction, work: Sequence[tuple[Transfer, Member]], stop: Handle) -> None:
        control = Control(self._timeout_s, stop)
        if direction is Direction.IN:
            _extract(work, self._archives, control, _Limits(self._limits, self._speed))
        else:
            _add(work, self._compression, control, self._speed)

    def __repr__(self) -> str:
        return self._call


def _version(archive: zipfile.ZipFile, file: File, member: Member) -> str:
    """Return the version of a member, or of the members of a directory or a pattern; raises KeyError."""
    if file.kind == "file":
        return _version_of(archive.getinfo(member.name))
    names = {name: _version_of(archive.NameToInfo[member.folder + name]) for name in _names_below(archive, member)}
    return sets.version(file, names)


def _version_of(info: zipfile.ZipInfo) -> str:
    return f"{info.file_size} {info.CRC:08x}"


def _archive_of(file: File) -> str:
    try:
        return str(Member.of_file(file).archive)
    except PermanentTransferError:
        return ""


# -- members in


def _extract(
    work: Sequence[tuple[Transfer, Member]], archives: OpenArchives, control: Control, limits: _Limits
) -> None:
    path = work[0][1].archive
    with (
        _named(work[0][0]),
        locked_archive(path, control, write=False) as stream,
        archives.reading(path, stream) as archive,
    ):
        size = os.fstat(stream.fileno()).st_size
        wanted = [one for each in work for one in _members_of(each, archive, size, limits.sizes)]
        sizes = [archive.NameToInfo[name].file_size for _, name in wanted if name in archive.NameToInfo]
        # As the archive says; a member that is larger is found by the bound while it is unpacked.
        control.stop.meter.stand(0, sum(sizes))
        for transfer, name in wanted:
            with _named(transfer):
                _extract_one(archive, size, name, transfer.local_path, control, limits)


def _members_of(
    work: tuple[Transfer, Member], archive: zipfile.ZipFile, size: int, limits: SizeLimits
) -> list[tuple[Transfer, str]]:
    """Return the transfer of a member, or those of all members below a directory, and their names in the archive."""
    transfer, member = work
    if transfer.file.kind == "file":
        return [(transfer, member.name)]
    with _named(transfer):
        names = _names_below(archive, member)
        if not names:
            raise Final("there is no member below this directory: check the URL")
        _check_together([archive.NameToInfo[f"{member.folder}{name}"] for name in names], size, transfer, limits)
        found = [(sets.member(transfer, name), f"{member.folder}{name}") for name in names]
    return found


def _check_together(members: Sequence[zipfile.ZipInfo], size: int, transfer: Transfer, limits: SizeLimits) -> None:
    """Check the members of a directory together: each may be small enough, and all of them fill the disk.

    Raises TooLarge or NoRoom.
    """
    limits.check_count(len(members))
    unpacked = sum(member.file_size for member in members)
    # Members may share packed bytes: together they are never more than the archive has.
    limits.check_ratio(min(size, sum(member.compress_size for member in members)), unpacked)
    place = transfer.local_path.absolute()
    Bound(limits, next(path for path in (place, *place.parents) if path.exists())).together(unpacked)


def _names_below(archive: zipfile.ZipFile, member: Member) -> list[str]:
    """Return the names of members below a directory, from there; those that stand for directories are left out."""
    folder = member.folder
    return [name[len(folder) :] for name in archive.NameToInfo if name.startswith(folder) and not name.endswith("/")]


def _extract_one(archive: zipfile.ZipFile, size: int, name: str, path: Path, control: Control, limits: _Limits) -> None:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise Final(f"the archive has no member {name!r}") from None
    # A link of an archive could lead anywhere.
    if stat.S_ISLNK(info.external_attr >> 16):
        raise PermanentTransferError(f"member {name!r} is a symbolic link; only plain files are taken out")
    if info.flag_bits & 1:
        raise PermanentTransferError(f"member {name!r} is encrypted")
    packed = min(info.compress_size, size)  # the archive says both sizes, and may lie
    # Before unpacking: a bomb is refused by what its directory states, and below by what comes of it.
    limits.sizes.check_ratio(packed, info.file_size)
    with Partial(path) as part:
        bound, pace, meter = Bound(limits.sizes, part.path), Pace(limits.speed), control.stop.meter
        bound.announced(info.file_size, 0)
        try:
            with archive.open(info) as source:
                while chunk := source.read(_CHUNK):
                    part.write(chunk)
                    bound.reached(part.size, info.file_size)
                    meter.add(len(chunk))
                    control.check()
                    pace.add(len(chunk))
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise PermanentTransferError(f"member {name!r} cannot be read: {error}") from error
        part.publish()


# -- members out


def _add(work: Sequence[tuple[Transfer, Member]], compression: int, control: Control, speed: LeastSpeed) -> None:
    path = work[0][1].archive
    with _named(work[0][0]):
        leaving = [one for each in work for one in _files_of(each)]
    control.stop.meter.stand(0, sum(_size(transfer.local_path) for transfer, _ in leaving))
    put = partial(_put, leaving, compression, control, speed)
    with _named(work[0][0]):
        # Two processes may make the archive at once: the one that is slower appends to the other's.
        while not path.exists():
            if _create(_place_of_new(path), put):
                return
        with locked_archive(path, control, write=True) as stream:
            _append(stream, path, put)


def _place_of_new(path: Path) -> Path:
    """Return where an archive is to be made that is not there: where its link leads, if it is one.

    Raises PermanentTransferError.
    """
    if not path.is_symlink():
        return path
    if link := foreign_link(path):
        raise PermanentTransferError(f"{path} is not made: {link}. Name the file that it leads to, or remove it")
    place = Path(os.path.realpath(path))
    if place.is_symlink():
        raise PermanentTransferError(f"{path} is a link that leads in a circle")
    return place


def _create(path: Path, put: Callable[[zipfile.ZipFile], None]) -> bool:
    """Make a new archive; False if another process was quicker."""
    with Partial(path) as part:
        with open(part.path, "r+b") as stream, zipfile.ZipFile(stream, "w") as archive:
            put(archive)
        try:
            # link, not rename: it fails where another process has made the archive meanwhile, and replaces nothing.
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
    # The journal has the old directory: after a kill the next user of the archive restores it.
    with Journal(path).kept(stream, end):
        archive = zipfile.ZipFile(stream, "a")
        try:
            put(archive)
            archive.close()
            stream.flush()
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                archive.close()  # else it would write into the file when it is collected
            raise


def _files_of(work: tuple[Transfer, Member]) -> list[tuple[Transfer, str]]:
    """Return the transfer of a file, or those of all files of an output of several, and the names of their members."""
    transfer, member = work
    if transfer.file.kind == "file":
        return [(transfer, member.name)]
    with _named(transfer):
        leaving = sets.of_this_side(transfer)
        return [(one, member.folder + one.local_path.relative_to(transfer.local_path).as_posix()) for one in leaving]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the error comes when it is read
        return 0


def _put(
    work: Sequence[tuple[Transfer, str]],
    compression: int,
    control: Control,
    speed: LeastSpeed,
    archive: zipfile.ZipFile,
) -> None:
    for transfer, name in work:
        with _named(transfer):
            if not transfer.local_path.is_file():
                raise PermanentTransferError("the app did not make this file")
            _check_member(name)
            _put_one(archive, name, transfer.local_path, compression, control, speed)


def _put_one(
    archive: zipfile.ZipFile, name: str, path: Path, compression: int, control: Control, speed: LeastSpeed
) -> None:
    old = archive.NameToInfo.pop(name, None)
    if old is not None:  # a run again: the directory names the new content only
        archive.filelist.remove(old)
    info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
    info.compress_type = compression
    pace, meter = Pace(speed), control.stop.meter
    with path.open("rb") as source, archive.open(info, "w", force_zip64=info.file_size >= _HUGE) as target:
        while chunk := source.read(_CHUNK):
            target.write(chunk)
            meter.add(len(chunk))
            control.check()
            pace.add(len(chunk))


# -- errors


@contextlib.contextmanager
def _named(transfer: Transfer) -> Iterator[None]:
    """Make errors name the file they belong to."""
    try:
        yield
    except OSError as error:
        raise staging_error(transfer, local_failure(error, f"cannot use {error.filename or 'the archive'}")) from error
    except Exception as error:
        raise staging_error(transfer, error) from error
