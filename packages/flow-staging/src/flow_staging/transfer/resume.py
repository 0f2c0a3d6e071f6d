"""Fetching a file with resumption: goes on after a break, starts over for another version, gives up in time."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from flow_core.files import File
from flow_core.interfaces.staging import Brought, Transfer
from flow_core.remote.digests import digest_of
from flow_staging.transfer.cache import CachePolicy, ContentCache
from flow_staging.transfer.cache_entry import Entry, EntryPart, Foreign, is_full
from flow_staging.transfer.cache_place import cache_root
from flow_staging.transfer.cache_record import Version
from flow_staging.transfer.failures import (
    ChecksumMismatch,
    NotAsStated,
    OtherVersion,
    PermanentTransferError,
    TransientTransferError,
)
from flow_staging.transfer.limits import DEFAULT_LIMITS, Bound, NoRoom, SizeLimits
from flow_staging.transfer.publish import Partial
from flow_staging.transfer.retry import PROGRESS_BYTES, Control, Pace, RetryPolicy, Tries
from flow_staging.transfer.stated import check
from flow_staging.transfer.verify import Checker, Digest, Remote

_HOLDING = "holding "
"""Begins the version of a file that the other side has no name for; its digest follows."""
_ALGORITHM = "sha256"


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream of a file's bytes, as a source opened it.

    Attributes:
        remote: What the other side says of the whole file; of a resumed stream only its size counts, which may have
            been unknown before.
        offset: Where the stream begins: the offset asked for, or 0 when the source could not or should not resume.
        read: Gives the next bytes, at most about 1 MiB; empty at the end. May raise TransientTransferError or
            PermanentTransferError.
        close: Releases the connection; must not raise.
    """

    remote: Remote
    offset: int
    read: Callable[[], bytes | memoryview]
    close: Callable[[], None]


class Source(Protocol):
    """Source of a file's bytes. Used by one thread at a time."""

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        """Open the file for reading.

        Args:
            offset: First byte wanted; above 0 only with a validator.
            validator: Version of the content of which ``offset`` bytes are here; if the other side has another
                version by now, the stream must begin at 0.
            known: Version of the content that the cache holds, or empty.

        Returns:
            The stream, or None when the content is still the known version.

        Raises:
            TransientTransferError: trying again may help.
            PermanentTransferError: it cannot help.
        """
        ...


@dataclass(frozen=True, slots=True)
class Use:
    """Use of a file, as far as the cache must know it: which run, task and method it is for.

    Attributes:
        run: Name of the run, so that its tasks see one version; empty if it is none.
        task_id: The task.
        method: Names the use of a method outside of a run, as ``Control.run`` does.
        working_dir: That of the executor, if it has one.
        refresh: When the other side is asked for another version, as in ``CachePolicy``; None means as that says.
        private: The file is for this user's eyes only.
        digest: What the content must have, as ``algorithm:digits``; None if that is not said.
        version: The version that tasks of the run were given elsewhere: this one, or none; empty if any will do.
        told: The version is told to the run's other tasks.
    """

    run: str = ""
    task_id: int = 0
    method: str = ""
    working_dir: str | None = None
    refresh: str | None = None
    private: bool = False
    digest: str | None = None
    version: str = ""
    told: bool = False

    @classmethod
    def of(cls, transfer: Transfer, control: Control, *, private: bool) -> Use:
        """Return the use that a transfer makes of its file."""
        file = transfer.file
        return cls(
            transfer.run,
            transfer.task_id,
            control.run,
            transfer.working_dir,
            file.refresh,
            private,
            file.digest,
            transfer.version,
            bool(transfer.pin),
        )

    @property
    def content(self) -> str | None:
        """The digest of the version that tasks of the run were given, if it is known by what it holds."""
        return content_of(self.version)

    def pins(self, cache: CachePolicy) -> list[str]:
        """Return the names under which a version that was seen may have been noted."""
        task = [f"{self.run}:{self.task_id}"] if self.run else []
        if (self.refresh or cache.refresh) == "task":
            return task
        return [*([self.run] if self.run else []), *([self.method] if self.method and not self.run else []), *task]

    def pin(self, cache: CachePolicy, remote: Remote) -> str:
        """Return the name under which it is to be noted that a version was seen; empty for none."""
        asks_each = (self.refresh or cache.refresh) == "task"
        # Neither a version nor leave to keep it: tasks of a run may then see several versions, as the server wants.
        if not remote.validator and not remote.lasting:
            asks_each = True  # so the other side says
        if asks_each:
            return f"{self.run}:{self.task_id}" if self.run else ""
        # Outside of a run only content without a validator is noted: for any other the server is asked by its
        # validator.
        return self.run or ("" if remote.validator else self.method)


def content_of(version: str) -> str | None:
    """Return the digest of a version that is known by what it holds, as ``algorithm:digits``; None for all others."""
    return version.removeprefix(_HOLDING) if version.startswith(_HOLDING) else None


def by_size(validator: str, size: int) -> str:
    """Return the name of a version as most methods make it: its size and validator."""
    return f"{size} {validator}"


def pin_of(file: File, cache: CachePolicy | None, tag: str) -> str:
    """Return the name under which a run keeps the version of a file, as ``Staging.pin`` says.

    Args:
        file: The file.
        cache: What keeps it on the nodes; None for none, where each task sees its own version.
        tag: What decides what is brought, beside the URL.
    """
    if cache is None or (file.refresh or cache.refresh) == "task":
        return ""
    return f"{tag}\n{file.url}"


def fetch(
    source: Source,
    path: Path,
    policy: RetryPolicy,
    control: Control,
    *,
    url: str = "",
    cache: CachePolicy | None = None,
    use: Use = Use(),
    limits: SizeLimits = DEFAULT_LIMITS,
    named: Callable[[str, int], str] = by_size,
) -> Brought:
    """Bring one file to a path; it appears there only when it is whole and verified.

    Args:
        source: Where it comes from.
        path: Where it goes; directories are made.
        policy: How often to try again.
        control: Deadline and stop.
        url: Name of the content in the cache.
        cache: Bounds of the cache, or None for none.
        use: Who wants it.
        limits: How large it may be.
        named: What ``look`` says of a version, given its validator and size.

    Returns:
        The digest of the content, hexadecimal, where the user or the other side stated one (now, or when it came into
        the cache); and its version, where it has a validator.

    Raises:
        TransientTransferError: it broke too often.
        NotAsStated: it has another digest than the user states. What came of a cache or in several pieces is fetched
            anew once before that.
        PermanentTransferError: it cannot succeed; the message says why.
    """
    # The cache first; entry is None where it cannot be used, and then the file comes as if there were none.
    if cache is not None:
        root = cache_root(cache.directory, path, use.working_dir)
        with ContentCache(root, cache).entry(url, control, private=use.private) as entry:
            if entry is not None:
                cached = _Cached(entry, cache, use, url, path, limits)
                placed = cached.known(control) or cached.fetched(source, policy, control)
                if placed is not None:
                    return placed.brought(named, use, path, control)
    with Partial(path) as part:
        remote = _receive(
            source, part, policy, control, Bound(limits, part.path), stated=use.digest, wanted=use.version
        )
        assert remote is not None  # nothing was known
        part.publish()
        placed = _Placed(remote.digits, remote.validator, part.size, remote.lasting)
        return placed.brought(named, use, path, control)


class _Hindered(Exception):
    """Raised where the cache's own disk or bounds prevent that a file comes by way of it."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A content that is at its place.

    Attributes:
        digest: Its digest, empty where the other side states none.
        validator: What the other side calls it, empty likewise.
        size: In bytes.
        lasting: All tasks of the run are to see it, also where the other side has no name for it.
    """

    digest: str
    validator: str
    size: int
    lasting: bool

    def brought(self, named: Callable[[str, int], str], use: Use, path: Path, control: Control) -> Brought:
        """Return digest and version as a staging method reports them.

        Raises PermanentTransferError: the deadline passed, or the transfer is to stop.
        """
        if self.validator:
            return Brought(self.digest, named(self.validator, self.size), self.validator)
        # What the other side has no name for is known by what it holds.
        if use.told and self.lasting and not use.version:
            with suppress(OSError):
                return Brought(self.digest, "", f"{_HOLDING}{digest_of(path, _ALGORITHM, control.check)}")
        return Brought(self.digest)


@dataclass(frozen=True, slots=True)
class _Cached:
    """Brings a file to a path by way of the cache."""

    entry: Entry
    cache: CachePolicy
    use: Use
    url: str
    path: Path
    limits: SizeLimits

    def known(self, control: Control) -> _Placed | None:
        """Put a version there that need not be asked for; None if there is none."""
        if self.use.digest is not None:
            return self._placed(self.entry.of_digest(self.use.digest, control), "")
        if self.use.content is not None:
            return self._placed(self.entry.of_digest(self.use.content, control))
        if self.use.version:
            return self._placed(self.entry.of_version(self.use.version))
        for pin in self.use.pins(self.cache):
            version = self.entry.pinned(pin)
            if version is not None:
                return self._placed(version, pin)
        if (self.use.refresh or self.cache.refresh) == "never":
            return self._placed(self.entry.newest())
        return None

    def fetched(self, source: Source, policy: RetryPolicy, control: Control) -> _Placed | None:
        """Ask the other side, and put there what it has; None where the cache's own disk is the hindrance."""
        while True:
            # known() has looked for these already: asking whether the newest here is still current would bring the
            # wrong one.
            certain = self.use.digest or self.use.version
            version = None if certain else self.entry.newest()  # else none that is here is the one
            # Of another user's version nothing is taken unasked: the other side must say that it is still current.
            foreign = self.entry.foreign if version is None else None
            if foreign is not None and self.use.version not in ("", foreign.version.validator):
                foreign = None
            known = "" if version is None else version.validator
            if foreign is not None:
                known = foreign.version.validator
            try:
                with self.entry.part() as part:
                    remote = self._received(source, part, policy, control, known)
                    if remote is None and foreign is not None:
                        remote, self.entry.foreign = self._copied(foreign, part, control), None
                    elif remote is None and (placed := self._placed(version)) is not None:
                        return placed
                    if remote is not None:
                        return self._kept(part, remote)
            # A full or broken disk of the cache is no reason to fail: the file then comes directly to its place.
            except (OSError, _Hindered):
                return None
            # what was known was changed or removed by someone since we asked

    def _copied(self, foreign: Foreign, part: EntryPart, control: Control) -> Remote | None:
        """Take another user's version; None if it is not there any more, or not what it should be."""
        remote = foreign.copied(part)
        try:
            return remote and _as_stated(remote, part, self.use.digest, control)
        except NotAsStated:
            return None

    def _received(
        self, source: Source, part: EntryPart, policy: RetryPolicy, control: Control, known: str
    ) -> Remote | None:
        try:
            bound = Bound(self.limits, part.path)
            return _receive(source, part, policy, control, bound, known, self, self.use.digest, self.use.version)
        except PermanentTransferError as error:
            # Where the file's own place is on the same full disk, trying there would only move all bytes once more.
            if is_full(error) and not (isinstance(error, NoRoom) and _same_disk(part.path, self.path)):
                raise _Hindered from error
            raise

    def left_over(self) -> Remote | None:
        """Return the version of which a part is here."""
        return self.entry.left_over()

    def begins(self, remote: Remote) -> None:
        """Note which version comes; raises _Hindered if it is too large for the cache."""
        size = remote.size
        if size is None or size >= PROGRESS_BYTES:  # what is smaller is begun anew, wherever it stopped
            if size is not None and (size > self.cache.max_bytes or not self.entry.has_room(size)):
                raise _Hindered
            self.entry.begins(self.url, remote)

    def _kept(self, part: EntryPart, remote: Remote) -> _Placed:
        """Keep what has come, if it is to be, and put it at the path."""
        certain = self.use.digest or self.use.content  # a run may use several digests
        pin = "" if certain else self.use.pin(self.cache, remote)
        lasts = bool(pin or remote.validator or certain)
        fits = self.cache.min_bytes <= part.size <= self.cache.max_bytes and lasts
        version = self.entry.keep(part, self.url, remote) if fits else None
        if version is None or not self.entry.place(version, self.path, pin):
            # Too small, too large, or replaced meanwhile: the file moves to its place and is not kept.
            part.move_to(self.path)
        return _Placed(remote.digits, remote.validator, part.size, remote.lasting)

    def _placed(self, version: Version | None, pin: str | None = None) -> _Placed | None:
        if version is None:
            return None
        seen = self.use.pin(self.cache, Remote(validator=version.validator)) if pin is None else pin
        if not self.entry.place(version, self.path, seen):
            return None
        lasting = seen == self.use.run  # else it was kept for this task alone
        return _Placed(version.digest, version.validator, version.signature.size, lasting)


def _same_disk(part: str | os.PathLike[str], path: Path) -> bool:
    """Return whether a file that has no room in the cache has none at its place either."""
    try:
        return os.stat(part).st_dev == os.stat(path.parent).st_dev
    except OSError:
        return False


def _receive(
    source: Source,
    part: Partial,
    policy: RetryPolicy,
    control: Control,
    bound: Bound,
    known: str = "",
    cached: _Cached | None = None,
    stated: str | None = None,
    wanted: str = "",
) -> Remote | None:
    tries, checker, content = Tries(policy, control), Checker(), content_of(wanted)
    # A killed process may have left a part: its version is asked for with If-Range or the like.
    remote = (None if cached is None else cached.left_over()) or Remote()
    if wanted and remote.validator != wanted:
        remote = Remote()
    taken_over = part.size > 0
    reached = 0  # the furthest byte of any try: getting there again is no progress
    pieces, anew = 0, False
    while True:
        control.check()
        try:
            # Without a version two parts could be of different contents.
            resumed = bool(remote.validator) and remote.resumable and part.size > 0
            opened = source.open(part.size if resumed else 0, remote.validator if resumed else "", known)
            if opened is None:
                return None
            try:
                if opened.offset == 0 and wanted and content is None:
                    _check_version(opened.remote, wanted)
                # The other side begins anew, since it has another version or cannot resume.
                if opened.offset == 0 or opened.offset != part.size:
                    _begin(opened, part, checker)
                    pieces = 0
                    remote, taken_over = opened.remote, False
                    if cached is not None:
                        cached.begins(remote)
                elif taken_over:
                    remote, taken_over = _gone_on_with(opened, part, checker, remote), False
                else:
                    checker.learn(opened.remote.size)
                # 1 means that all came in one piece: then a wrong digest is the other side's, not that of joined parts.
                pieces += 1 if opened.offset == 0 else 2
                # Before the first byte: a file that is too large is refused without fetching it.
                bound.announced(checker.total, part.size)
                _pour(opened, part, checker, control, bound, Pace(policy))
            finally:
                opened.close()
            # The transport checked only its own piece: the joined file is read once more.
            if opened.offset and remote.checked:
                checker.again(part.path)
            checker.finish()
            return _as_stated(remote, part, stated or content, control)
        except NotAsStated as error:
            # Once more at most: what comes whole and is wrong stays wrong.
            if pieces == 1 or anew:
                if stated is None:
                    raise _other(f"{_HOLDING}{error.found}", wanted) from error
                raise
            remote, anew = Remote(), True
        except ChecksumMismatch as error:
            remote = Remote()
            tries.failed(error)
        except TransientTransferError as error:
            # Progress restores the number of tries: a large file over a bad line ends, however often it breaks.
            tries.failed(error, part.size - reached)
            reached = max(reached, part.size)


def _check_version(remote: Remote, wanted: str) -> None:
    """Refuse a version that is not the one that other tasks of the run were given."""
    if remote.validator != wanted:
        raise _other(remote.validator, wanted)


def _other(found: str, wanted: str) -> OtherVersion:
    return OtherVersion(
        f"the other side has the version {found!r} by now, and other tasks of the run were given "
        f"{wanted!r}, which is not kept here: tasks see one version in a run; File(url, refresh='task') lets each "
        "see its own"
    )


def _as_stated(remote: Remote, part: Partial, stated: str | None, control: Control) -> Remote:
    """Return the facts of a whole content after a check against the digest that the user stated.

    Raises:
        NotAsStated: it has another; nothing of it is left in the part.
    """
    if stated is None:
        return remote
    try:
        digits = check(part.path, stated, control)
    except NotAsStated:
        part.truncate()
        raise
    return replace(remote, digest=Digest(stated.partition(":")[0], bytes.fromhex(digits)))


def _gone_on_with(opened: Opened, part: Partial, checker: Checker, remote: Remote) -> Remote:
    """Take over what an earlier process has left of a version, of which the other side sends the rest."""
    remote = replace(opened.remote, validator=remote.validator, checked=False)
    checker.restart(remote)
    checker.read(part.path)
    return remote


def _begin(opened: Opened, part: Partial, checker: Checker) -> None:
    if opened.offset != 0:
        raise ChecksumMismatch(f"the stream begins at byte {opened.offset} where {part.size} was asked for")
    part.truncate()
    checker.restart(opened.remote)


def _pour(opened: Opened, part: Partial, checker: Checker, control: Control, bound: Bound, pace: Pace) -> None:
    meter = control.stop.meter
    # Bytes of an earlier process count as moved, so that the progress does not begin at 0 again.
    meter.stand(part.size, checker.total)
    while data := opened.read():
        part.write(data)
        bound.reached(part.size, checker.total)
        checker.update(data)
        meter.add(len(data))
        control.check()
        pace.add(len(data))
    control.check()  # a connection that was cut looks like the end of a file of unknown size
    if checker.missing:
        raise TransientTransferError(f"the connection ended {checker.missing} bytes before the end of the file")
