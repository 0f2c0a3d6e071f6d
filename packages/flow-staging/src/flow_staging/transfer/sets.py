"""Sets of files (directories, patterns), moved file by file by a mover of single files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from flow_core.files import File, Glob
from flow_core.interfaces.staging import Brought, Transfer
from flow_core.interfaces.versions import version_of_files
from flow_core.remote.output_sets import below, is_match, matching
from flow_core.remote.same_names import are_one, first_pair
from flow_staging.transfer.failures import OtherVersion, PermanentTransferError, TransientTransferError
from flow_staging.transfer.handle import Handle
from flow_staging.transfer.pool import TransferJob, TransferPool
from flow_staging.transfer.retry import Control

_TRIES = 3  # times that a directory is brought whose files change meanwhile
_MOST_NAMES = 1_000_000  # names of files in directories that are remembered for a run; only the magnitude matters
SET_THREADS = 4
"""Threads that move the files of one directory: few, since a method moves several directories at once."""


@runtime_checkable
class Lister(Protocol):
    """A mover that knows which files there are on the other side below a directory.

    Where it has an attribute ``lists_as_brought`` that is true, versions in lists are those of what is brought then.
    """

    def names(self, file: File, control: Control) -> dict[str, str]:
        """Return the version of each file below a directory, or the one before a pattern, by its path from there.

        Raises TransientTransferError or PermanentTransferError.
        """
        ...


def look(mover: Lister, file: File, control: Control) -> str:
    """Return the version of what is there; empty where nothing is.

    Raises TransientTransferError or PermanentTransferError.
    """
    return version(file, mover.names(file, control))


def version(file: File, there: Mapping[str, str]) -> str:
    """Return the version of a directory, or of what matches a pattern, of those of the files there by their paths."""
    if isinstance(file, Glob):
        return version_of_files({name: version for name, version in there.items() if is_match(name, file.pattern)})
    return version_of_files(there, whole=True) if there else ""


class Listings:
    """The directories that tasks of a run have been given, with the versions of their files. Any thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, str]] = {}
        self._lock = threading.Lock()

    def known(self, run: str, url: str) -> dict[str, str] | None:
        """Return the files of a directory as tasks of a run have seen it; None where none has."""
        return self._known.get((run, url))

    def note(self, run: str, url: str, names: dict[str, str]) -> None:
        """Note what a directory has for all tasks of a run that come. What was noted first goes when it is too much."""
        with self._lock:
            self._known[run, url] = names
            while len(self._known) > 1 and sum(map(len, self._known.values())) > _MOST_NAMES:
                del self._known[next(iter(self._known))]

    def clear(self) -> None:
        """Forget what tasks have seen: the next of them lists each directory again."""
        with self._lock:
            self._known.clear()


def receive(
    receive_one: Callable[[Transfer, Control], str],
    mover: Lister,
    transfer: Transfer,
    control: Control,
    listings: Listings | None = None,
) -> Brought:
    """Bring in all files of a directory.

    Args:
        receive_one: Brings one of them in.
        mover: Lists them.
        transfer: The directory. Where its version is prescribed it must be that of the listing.
        control: Deadline and stop.
        listings: What tasks of this run have seen, where they are to see the same; None where each sees its own.

    Returns:
        The version of what came, as ``look`` says it, where those of all files are known.

    Raises:
        OtherVersion: the directory has other files than other tasks of the run were given, or one of them has changed
            and is not kept.
        TransientTransferError, PermanentTransferError: the listing failed, or a file changes all the while; else what
            ``receive_one`` raises.
    """
    tries = _TRIES
    while True:
        before = None if listings is None else listings.known(transfer.run, transfer.file.url)
        names = mover.names(transfer.file, control) if before is None else before
        if not names:
            raise PermanentTransferError("there is nothing below this directory: check the URL")
        listed = version_of_files(names, whole=True)
        if transfer.version and listed != transfer.version:
            raise OtherVersion(
                f"there is {listed!r} below it by now, and other tasks of the run were given {transfer.version!r}: "
                "tasks see one version in a run; CachePolicy(refresh='task') lets each see its own"
            )
        versions = _brought(receive_one, transfer, list(names), control)
        # Those that both sides of the comparison know; where an older one is kept for the run, that came.
        changed = [name for name, version in versions.items() if names[name] and version != names[name]]
        if not getattr(mover, "lists_as_brought", False):
            changed = []
        if not changed:
            break
        tries -= 1
        if before is not None or transfer.version:
            raise OtherVersion(
                f"{changed[0]!r} in it has the version {versions[changed[0]]!r} by now, and other tasks of the run "
                f"were given {names[changed[0]]!r}, which is not kept here"
            )
        if not tries:
            raise TransientTransferError(f"{changed[0]!r} in it changes while it is brought")
    if listings is not None and before is None:
        listings.note(transfer.run, transfer.file.url, names)
    whole = version_of_files(versions, whole=True) if len(versions) == len(names) else ""
    return Brought("", whole, listed if transfer.pin else "")


def _brought(
    receive_one: Callable[[Transfer, Control], str], transfer: Transfer, names: Sequence[str], control: Control
) -> dict[str, str]:
    """Bring files in; return the versions of those of which they are known, by their names."""
    versions: dict[str, str] = {}

    def one(member: Transfer, of_member: Control) -> None:
        """Bring one file in, and note its version where it is known."""
        brought = receive_one(member, of_member)
        if isinstance(brought, Brought) and brought.version:
            versions[by_path[member.local_path]] = brought.version

    # Name and version of the directory are none of its files'.
    alone = replace(transfer, pin="", version="")
    members = [member(alone, name) for name in names]
    _check_names(str(transfer.local_path), names)  # none of which leads elsewhere
    by_path = {member.local_path: name for member, name in zip(members, names, strict=True)}
    each(one, members, control)
    return versions


def _check_names(folder: str, names: Sequence[str]) -> None:
    """Refuse names of which the file system here would make one file; raises PermanentTransferError."""
    pair = first_pair(names)
    if pair is not None and are_one(folder, *pair):
        raise PermanentTransferError(
            f"{pair[0]!r} and {pair[1]!r} in it are one file on the file system of {folder}, which tells no capitals "
            "from small letters, or no ways to write accents: set the executor's working_dir to another file system, "
            "or name the files one by one"
        )


def of_this_side(transfer: Transfer) -> list[Transfer]:
    """Return the transfers of all files of what is brought out; raises PermanentTransferError."""
    file, root = transfer.file, str(transfer.local_path)
    names = matching(root, file.pattern) if isinstance(file, Glob) else below(root)
    if not names:
        raise PermanentTransferError("there is no file in it, and only files can be brought there")
    return [member(transfer, name) for name in names]


def member(transfer: Transfer, name: str) -> Transfer:
    """Return the transfer of one file of a directory or pattern, by its path from there.

    Raises PermanentTransferError.
    """
    # Names come from the other side: none may lead out of the directory.
    if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise PermanentTransferError(f"{name!r} in it cannot be the name of a file here")
    return replace(transfer, file=transfer.file.member(name), local_path=Path(transfer.local_path, name))


def each(work: Callable[[Transfer, Control], object], transfers: Sequence[Transfer], control: Control) -> None:
    """Do something with each transfer, some at once; the first error stops the others and is raised."""
    if len(transfers) == 1:
        work(transfers[0], control)
        return
    pool = TransferPool(SET_THREADS, "staging-set", in_all=SET_THREADS)
    try:
        moving = pool.submit([TransferJob("", partial(_run, work, one, control)) for one in transfers])
        control.stop.cut_by(moving.cancel)
        # A bound for a broken pool only: each file ends by the deadline. 60 s are for ending.
        moving.result(control.left_s() + 60.0)
    finally:
        pool.close()
    control.check()


def _run(work: Callable[[Transfer, Control], object], transfer: Transfer, whole: Control, handle: Handle) -> None:
    whole.check()
    handle.meter.whole = whole.stop.meter
    work(transfer, _Part(whole, handle))


class _Part(Control):
    """Control of one file of a directory: also ends with the control of the directory, until the file is published."""

    def __init__(self, whole: Control, handle: Handle) -> None:
        super().__init__(max(whole.left_s(), 0.001), handle, whole.run)
        self._whole = whole

    def check(self) -> None:
        """Raise as that of the whole, or as its own would."""
        self._whole.check()
        super().check()
