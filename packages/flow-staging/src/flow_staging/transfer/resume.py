"""Bring a file in, whatever breaks on the way: resume, start over, give up in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flow_staging.transfer.cache import CachePolicy, ContentCache, Entry
from flow_staging.transfer.failures import Dropped, WrongContent
from flow_staging.transfer.publish import Partial
from flow_staging.transfer.retry import Control, RetryPolicy, Tries
from flow_staging.transfer.verify import Checker, Remote


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream of a file's bytes, as a source opened it.

    Attributes:
        remote: What the other side says of the whole file; of a resumed stream only its size counts, which may have
            been unknown before.
        offset: Where the stream begins: the offset asked for, or 0 when the source could not or should not resume.
        read: Gives the next bytes, at most about 1 MiB; empty at the end. May raise Dropped or Refused.
        close: Releases the connection; must not raise.
    """

    remote: Remote
    offset: int
    read: Callable[[], bytes | memoryview]
    close: Callable[[], None]


class Source(Protocol):
    """Where a file comes from. Used by one thread at a time."""

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
            Dropped: trying again may help.
            Refused: it cannot help.
        """
        ...


def fetch(
    source: Source,
    path: Path,
    policy: RetryPolicy,
    control: Control,
    *,
    url: str = "",
    cache: CachePolicy | None = None,
) -> str:
    """Bring one file to a path; it appears there only when it is whole and verified.

    Args:
        source: Where it comes from.
        path: Where it goes; directories are made.
        policy: How often to try again.
        control: Deadline and stop.
        url: Name of the content in the cache.
        cache: Bounds of the cache beside the file, or None for none.

    Returns:
        The digest of the content, hexadecimal, where the other side stated one (now, or when it came into the cache).

    Raises:
        Dropped: it broke too often.
        Refused: it cannot succeed; the message says why.
    """
    if cache is None:
        return _receive_into(source, path, policy, control, None)
    with ContentCache(path.parent, cache).entry(url, control) as entry:
        return _receive_into(source, path, policy, control, entry)


def _receive_into(source: Source, path: Path, policy: RetryPolicy, control: Control, entry: Entry | None) -> str:
    known = "" if entry is None else entry.validator
    with Partial(path) as part:
        remote = _receive(source, part, policy, control, known)
        if remote is not None:
            digest = "" if remote.digest is None else remote.digest.value.hex()
            if entry is not None and remote.validator:
                entry.keep(part.path, remote.validator, digest)
            part.publish()
            if entry is not None:
                entry.published()
            return digest
    assert entry is not None
    if entry.place(path):
        return entry.digest
    return _receive_into(source, path, policy, control, entry)  # changed or removed by someone since we asked


def _receive(source: Source, part: Partial, policy: RetryPolicy, control: Control, known: str) -> Remote | None:
    tries, checker, remote = Tries(policy, control), Checker(), Remote()
    reached = 0  # the furthest byte of any try: getting there again is no progress
    while True:
        control.check()
        try:
            resumed = bool(remote.validator) and remote.resumable
            opened = source.open(part.size if resumed else 0, remote.validator if resumed else "", known)
            if opened is None:
                return None
            try:
                if opened.offset == 0 or opened.offset != part.size:
                    _begin(opened, part, checker)
                    remote = opened.remote
                else:
                    checker.learn(opened.remote.size)
                _pour(opened, part, checker, control)
            finally:
                opened.close()
            if opened.offset and remote.checked:
                checker.again(part.path)
            checker.finish()
            return remote
        except WrongContent as error:
            remote = Remote()
            tries.failed(error)
        except Dropped as error:
            tries.failed(error, part.size - reached)
            reached = max(reached, part.size)


def _begin(opened: Opened, part: Partial, checker: Checker) -> None:
    if opened.offset != 0:
        raise WrongContent(f"the stream begins at byte {opened.offset} where {part.size} was asked for")
    part.truncate()
    checker.restart(opened.remote)


def _pour(opened: Opened, part: Partial, checker: Checker, control: Control) -> None:
    while data := opened.read():
        part.write(data)
        checker.update(data)
        control.check()
    if checker.missing:
        raise Dropped(f"the connection ended {checker.missing} bytes before the end of the file")
