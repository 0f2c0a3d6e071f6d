"""fsspec staging: files of clouds, sftp, hdfs, webdav and other systems. Needs the extra ``fsspec`` (fsspec)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from flow_core.errors import ConfigurationError
from flow_core.files import File, Glob
from flow_core.interfaces.staging import Transfer
from flow_staging.fsspec_systems import Place, systems, translated
from flow_staging.transfer.cache import DEFAULT_CACHE, CachePolicy
from flow_staging.transfer.either_side import EitherSide
from flow_staging.transfer.expression import call_of, without_values
from flow_staging.transfer.failures import Final, PermanentTransferError, TransientTransferError, local_failure
from flow_staging.transfer.handle import tidying
from flow_staging.transfer.limits import DEFAULT_LIMITS, SizeLimits
from flow_staging.transfer.method import PendingUpload
from flow_staging.transfer.resume import Opened, Use, fetch, pin_of
from flow_staging.transfer.retry import DEFAULT_RETRY, Control, Pace, RetryPolicy, again
from flow_staging.transfer.verify import Remote

_THREADS = 8
PROTOCOLS = ("abfs", "az", "gcs", "gs", "hdfs", "memory", "oci", "sftp", "smb", "ssh", "webdav", "webhdfs")
"""Schemes that are staged by default: those that no other staging method of Flow moves."""
_CHUNK = 1 << 20  # bytes a read; only the magnitude matters
_WHOLE_BY_THEMSELVES = frozenset(("abfs", "abfss", "az", "gcs", "gs"))
"""Stores that show an object when all of it is there; elsewhere files get their names when they are whole."""

_WEBDAV = ("webdav", "dav")
_BUCKETS = frozenset(("abfs", "abfss", "az", "gcs", "gs", "s3", "s3a"))
"""Schemes whose URLs begin with a bucket or container."""
_HOSTS = frozenset(("sftp", "smb", "ssh"))
"""Schemes of servers that nothing but the URL, or the option ``host``, names."""

_GOOGLE = ("gs", "gcs")
_GENERATION = re.compile(r"(#|[?&]generation=)[+-]?[0-9_]+$")

Options = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class FsspecMover:
    """Moves by fsspec's file systems, one of a process for one server: resumed by offset, cached by version."""

    protocols: tuple[str, ...]
    options: dict[str, dict[str, object]] = field(repr=False)
    retry: RetryPolicy
    cache: CachePolicy | None
    limits: SizeLimits = DEFAULT_LIMITS

    @property
    def schemes_in(self) -> tuple[str, ...]:
        """Return the schemes of URLs that can be fetched."""
        return self.protocols

    @property
    def schemes_out(self) -> tuple[str, ...]:
        """Return the schemes of URLs that can be sent to."""
        return self.protocols

    @property
    def timeout_s(self) -> float:
        """Return the longest time for one file."""
        return self.retry.timeout_s

    def pin(self, file: File) -> str:
        """Return the URL with what else decides what is brought, unless each task sees its own version."""
        return pin_of(file, self.cache, self._tag(file))

    def bring_in(self, transfer: Transfer, control: Control) -> str:
        """Fetch one file; raises TransientTransferError or PermanentTransferError."""
        url = transfer.file.url
        self.check_name(transfer.file)
        source = FsspecSource(self, transfer.file)
        # Private: it may have been fetched with credentials of the user's own.
        use = Use.of(transfer, control, private=True)
        name = f"fsspec {self._tag(transfer.file)} {url}"
        return fetch(
            source,
            transfer.local_path,
            self.retry,
            control,
            url=name,
            cache=self.cache,
            use=use,
            limits=self.limits,
            named=lambda validator, _size: validator,
        )

    def check_name(self, file: File) -> None:
        """Raise Final for a URL that names no file, and for names that webdav4 or gcsfs would make others of.

        All else is for fsspec to say, which need not be here.
        """
        form = self._missing_in(file)
        if form:
            raise Final(f"this names no file: {file.scheme}: URLs have the form {file.scheme}://{form}")
        if file.scheme in _GOOGLE and _GENERATION.search(file.path):
            raise Final(
                "gcsfs takes '#' and '?generation=' with digits at the end of a name for a version of another object, "
                "so an object of that name cannot be moved: give it another one"
            )
        if file.scheme in _WEBDAV and any(mark in file.path for mark in "%?#"):
            raise Final("webdav4 cannot write names with '%', '?' or '#': give the file another one")

    def _missing_in(self, file: File) -> str:
        """Return the form that a URL should have where it names no file, or for directories no place; else nothing."""
        path = file.path.strip("/")
        # Of directories the root may be meant, where a bucket or host says of what.
        whole = bool(path) or file.kind != "file"
        if file.scheme in _BUCKETS:
            return "" if file.netloc and whole else "bucket/path"
        if file.scheme in _HOSTS:
            known = file.netloc or "host" in self.options.get(file.scheme, {})
            return "" if known and whole else "host/path"
        return "" if file.netloc or whole else "path"

    def look(self, file: File, control: Control) -> str | None:
        """Return the version of a file; raises TransientTransferError or PermanentTransferError."""
        control.check()
        with self.place(file) as place:
            info = place.info()
        return "" if info is None else _version_of(info)

    def names(self, file: File, control: Control) -> dict[str, str]:
        """Return the version of each file below a directory.

        Raises TransientTransferError or PermanentTransferError.
        """
        base = File(file.base) if isinstance(file, Glob) else file

        def seen(names: int) -> None:
            """End the walk at the limit, or when the transfer is to end."""
            control.check()
            self.limits.check_count(names)

        def listed() -> dict[str, str]:
            """Ask once; ``again`` repeats it after a transient error."""
            with self.place(base) as place:
                found = place.below(seen)
                return {name: _version_of(info) for name, info in found.items()}

        return again(self.retry, control, listed)

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> PendingUpload:
        """Send one file under a temporary name, or promise to where a store shows whole files only."""
        self.check_name(transfer.file)
        upload = _FsspecUpload(self, transfer, control)
        upload.send()
        return upload

    def close(self) -> None:
        """Close the connected file systems that no transfer uses."""
        systems.close()

    @contextmanager
    def place(self, file: File) -> Iterator[Place]:
        """Give a file where it is; what fsspec raises comes out as TransientTransferError or PermanentTransferError."""
        with translated(file.scheme):
            place = self.taken(file)
            with _spared(place):
                yield place
            systems.give(place.system)

    def taken(self, file: File) -> Place:
        """Return the place of a file; the caller gives its file system back or closes it. Raises what fsspec raises."""
        system = systems.take(file.url, file.scheme, self._options(file), self.retry)
        try:
            return system.place(file.url)
        except BaseException:
            system.close()
            raise

    def _tag(self, file: File) -> str:
        """Return a digest of the options, which may mean another server, or are secrets."""
        options = repr(sorted(self._options(file).items()))
        return blake2b(options.encode(), digest_size=16).hexdigest()

    def _options(self, file: File) -> dict[str, object]:
        return self.options.get(file.scheme, {})


@contextmanager
def _spared(place: Place) -> Iterator[None]:
    """If something is raised, give the file system back where that says nothing against it, else close it."""
    try:
        yield
    except (FileNotFoundError, PermissionError, PermanentTransferError):
        systems.give(place.system)
        raise
    except BaseException:
        place.system.close()  # its connection may be broken
        raise


class FsspecSource:
    """One file as a source of bytes."""

    def __init__(self, mover: FsspecMover, file: File) -> None:
        self._mover = mover
        self._file = file

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        """Ask for the file, or its rest; see ``Source``."""
        with translated(self._file.scheme):
            place = self._mover.taken(self._file)
            with _spared(place):
                opened = self._opened(place, offset, validator, known)
            if opened is None:
                systems.give(place.system)
            return opened

    def _opened(self, place: Place, offset: int, validator: str, known: str) -> Opened | None:
        info = place.info()
        if info is None:
            raise Final("there is no such file: check the URL")
        if info.get("type") == "directory":
            raise Final("it is a directory: name it by Directory")
        lasts = _version_of(info) if _names_content(info) else ""
        if known and not offset and lasts == known:
            return None
        size = info.get("size")
        # Another version by now, or none that is named: from the beginning.
        start = offset if lasts and lasts == validator else 0
        stream = place.reader()
        if start:
            stream.seek(start)
        reader = _FsspecReader(place, self._file.scheme, stream)
        return Opened(Remote(size if isinstance(size, int) else None, validator=lasts), start, reader, reader.close)


class _FsspecReader:
    """Reads a file as it comes."""

    def __init__(self, place: Place, protocol: str, stream: Any) -> None:
        self._place = place
        self._protocol = protocol
        self._stream = stream
        self._works = True

    def __call__(self) -> bytes:
        """Return the next bytes; raises TransientTransferError or PermanentTransferError."""
        try:
            with translated(self._protocol):
                data: bytes = self._stream.read(_CHUNK)
        except BaseException:
            self._works = False
            raise
        return data

    def close(self) -> None:
        """Close the file, and let others have its file system, or leave that if it has failed; never raises."""
        try:
            self._stream.close()
        except Exception:
            self._works = False
        if self._works:
            systems.give(self._place.system)
        else:
            self._place.system.close()


_VERSIONS = (
    *("etag", "ETag", "md5Hash", "generation", "content_md5", "mtime", "modified", "LastModified", "last_modified"),
    *("updated", "modificationTime", "last_write_time", "created"),
)
"""Keys under which file systems give a file's version or time of change; the first one present counts."""


def _version_of(info: Mapping[str, object]) -> str:
    named = next((f"{name}={info[name]}" for name in _VERSIONS if info.get(name) is not None), "")
    return f"{info.get('size')} {named}".strip()


def _names_content(info: Mapping[str, object]) -> bool:
    return any(info.get(name) is not None for name in _VERSIONS)


class _FsspecUpload:
    """One file on its way. Used by one thread at a time."""

    def __init__(self, mover: FsspecMover, transfer: Transfer, control: Control) -> None:
        self._mover = mover
        self._file = transfer.file
        self._path = transfer.local_path
        self._control = control
        self._at_once = transfer.file.scheme in _WHOLE_BY_THEMSELVES
        folder, slash, name = transfer.file.url.rpartition("/")
        if not name:
            raise PermanentTransferError("this URL names no file")
        # Beside its place, so that the rename stays on one file system of the server; random, since tasks may share
        # names.
        self._temporary = File(f"{folder}{slash}.flow-{secrets.token_hex(6)}.part")

    def send(self) -> None:
        """Send it, if it gets its name later.

        Raises TransientTransferError or PermanentTransferError, and nothing is left then.
        """
        if not self._at_once:
            try:
                self._again(self._store_beside)
            except BaseException:
                self.discard()
                raise

    def publish(self) -> None:
        """Show it under its name; raises TransientTransferError or PermanentTransferError."""
        if self._at_once:
            self._again(self._store)
            return
        try:
            self._again(self._rename)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Take it away; never raises."""
        if not self._at_once:
            with tidying(), suppress(Exception), self._mover.place(self._temporary) as place:
                if place.info() is not None:
                    place.remove()

    def _again(self, work: Callable[[], None]) -> None:
        again(self._mover.retry, self._control, work)

    def _counter(self) -> Callable[[int], None]:
        """Return a counter of bytes sent, for a file that is sent from its beginning."""
        meter, pace = self._control.stop.meter, Pace(self._mover.retry)
        meter.stand(0, self._size())

        def moved(count: int) -> None:
            """Count bytes that have gone; raises where the transfer is to stop, or is too slow."""
            meter.add(count)
            self._control.check()
            pace.add(count)

        return moved

    def _store(self) -> None:
        """Have a store take the file, which shows it when all of it is there."""
        moved = self._counter()
        with self._mover.place(self._file) as place:
            place.put(self._path, moved)
        self._check(self._file)

    def _store_beside(self) -> None:
        moved = self._counter()
        with self._mover.place(self._temporary) as place, self._opened() as source:
            # Directories that are missing on the other side are made, as for local outputs.
            place.make_directories()
            with closing(place.writer()) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    moved(len(chunk))
        self._check(self._temporary)

    def _rename(self) -> None:
        with self._mover.place(self._temporary) as place:
            if place.info() is None:  # renamed already, and the answer was lost; or gone
                self._check(self._file)
                return
            place.rename_to(self._file.url)
        self._check(self._file)

    def _check(self, file: File) -> None:
        with self._mover.place(file) as place:
            info = place.info()
            there = None if info is None else info.get("size")
        # Some file systems report errors of a write nowhere: the size that the other side has is the proof.
        if info is None or (isinstance(there, int) and there != self._size()):
            raise TransientTransferError(
                f"the other side has {'nothing' if info is None else there} of {self._size()} bytes"
            )

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError as error:
            raise local_failure(error, f"cannot read {self._path}") from error

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(self._path.open("rb"))
            except OSError as error:
                raise local_failure(error, f"cannot read {self._path}") from error
            yield stream


class FsspecStaging(EitherSide):
    """Moves URLs of whatever fsspec has a file system for, both ways. Needs the extra ``fsspec``.

    Args:
        protocols: Schemes of the URLs. What fsspec needs for each is to be installed where files are moved: gcsfs for
            gs, adlfs for abfs, paramiko (extra ``sftp``) for sftp, webdav4 for webdav, smbprotocol for smb, pyarrow
            for hdfs.
        storage_options: What fsspec's file systems are made with, by protocol: ``{"sftp": {"username": "me"}}``. With
            ``in_task`` they travel with the tasks, secrets in them, too.
        in_task: Move within the task on the node instead of on the submit side.
        retry: How often and how long to try. Waits of the file systems themselves are bounded by their own options.
        cache: What to keep of what comes in; None keeps nothing.
        limits: How large a file may be that comes in.
        threads: Files moved at once of one host on the submit side; eight times as many of all hosts.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    checks_digests = True
    moves = ("file", "directory", "pattern")

    def __init__(
        self,
        protocols: Sequence[str] = PROTOCOLS,
        *,
        storage_options: Options | None = None,
        in_task: bool = False,
        retry: RetryPolicy = DEFAULT_RETRY,
        cache: CachePolicy | None = DEFAULT_CACHE,
        threads: int = _THREADS,
        limits: SizeLimits = DEFAULT_LIMITS,
    ) -> None:
        named = (protocols,) if isinstance(protocols, str) else tuple(protocols)
        options = _checked(named, storage_options)
        mover = FsspecMover(named, options, retry, cache, limits)
        shown = without_values(options)
        self._call = call_of(
            self,
            protocols=named,
            storage_options=shown,
            in_task=in_task,
            retry=retry,
            cache=cache,
            threads=threads,
            limits=limits,
        )
        super().__init__(mover, in_task=in_task, threads=threads, usual_threads=_THREADS, name="fsspec")


def _checked(protocols: tuple[str, ...], given: Options | None) -> dict[str, dict[str, object]]:
    for name in protocols:
        if name == "ftp":
            raise ConfigurationError(
                f"FsspecStaging(protocols={protocols!r}): fsspec's file system for ftp does not tell files as they are "
                "now; FTPSeparateTaskStaging and FTPInTaskStaging move ftp: URLs"
            )
        if not isinstance(name, str) or not name or "file" in (name, name.removesuffix(":")) or ":" in name:
            raise ConfigurationError(f"FsspecStaging(protocols={protocols!r}): {name!r} is no scheme of remote files")
    if given is not None and not isinstance(given, Mapping):
        raise ConfigurationError("FsspecStaging(storage_options=...): give options by protocol, as in {'sftp': {...}}")
    for name, options in (given or {}).items():
        if name not in protocols:
            raise ConfigurationError(
                f"FsspecStaging(storage_options={{{name!r}: ...}}): {name!r} is none of the protocols {protocols}: "
                "give options by protocol, as in {'sftp': {...}}"
            )
        if not isinstance(options, Mapping):
            raise ConfigurationError(f"FsspecStaging(storage_options={{{name!r}: ...}}): give a dict of options")
    return {name: dict(options) for name, options in (given or {}).items()}
