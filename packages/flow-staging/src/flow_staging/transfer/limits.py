"""Size limits of files that come in: against servers without end, and small files that unpack to huge ones."""

from __future__ import annotations

import os
from dataclasses import dataclass

from flow_core.errors import ConfigurationError
from flow_staging.transfer.failures import ChecksumMismatch, Final, PermanentTransferError

_LOOK_BYTES = 64 << 20
"""Bytes: the disk is looked at before a file of this size, and each time that so much has come."""
# Left free: 1 GiB, or a twentieth of a smaller disk, so that logs and other tasks can still write.
_FREE_BYTES, _FREE_SHARE = 1 << 30, 20
_UNPACKED_ALWAYS = 100 << 20
"""Bytes: content that unpacks to no more may have any ratio, since it cannot fill a disk."""


class TooLarge(Final):
    """The file is larger than the user's limits let it be: nothing of it is kept."""


class NoRoom(PermanentTransferError):
    """The file would take what is to be left free on a disk."""


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """Limits of the size of files that are brought in.

    Attributes:
        max_bytes: The longest file, in bytes, as it is when unpacked; None for any that the disk has room for.
        max_ratio: How many times longer than its packed form a file may be, where more than 100 MiB are unpacked: of
            members of zip archives, of all members of a directory together, and of what a server sends with
            ``Content-Encoding``. None for any.
        max_files: The most files of one directory, or below the directory before a pattern; None for any number.
        keep_free_bytes: What is left free on the disk by files of 64 MiB and more; None for 1 GiB, or the twentieth
            part of a disk that is smaller than 20 GiB.
    """

    max_bytes: int | None = None
    max_ratio: float | None = 250.0
    keep_free_bytes: int | None = None
    max_files: int | None = 1_000_000

    def __post_init__(self) -> None:
        """Refuse what makes no sense, naming the option."""
        for name in ("max_bytes", "keep_free_bytes", "max_files"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigurationError(f"SizeLimits({name}={value!r}): it cannot be negative")
        if self.max_ratio is not None and self.max_ratio < 1:
            raise ConfigurationError(f"SizeLimits(max_ratio={self.max_ratio!r}): give 1 or more, or None for any ratio")

    def check_size(self, size: int, what: str) -> None:
        """Raise TooLarge for a file of more than ``max_bytes``; ``what`` says how its size is known."""
        if self.max_bytes is not None and size > self.max_bytes:
            raise TooLarge(
                f"{what} {size:,} bytes, more than the limit of {self.max_bytes:,}; if it is to be so large, give the "
                "staging method SizeLimits(max_bytes=...) with a higher limit, or None for any size"
            )

    def check_count(self, files: int) -> None:
        """Raise TooLarge for a directory of more than ``max_files`` files."""
        if self.max_files is not None and files > self.max_files:
            raise TooLarge(
                f"the directory has {files:,} files or more, beyond the limit of {self.max_files:,}; if it is so, give "
                "the staging method SizeLimits(max_files=...) with a higher limit, or None for any number"
            )

    def check_ratio(self, packed: int, unpacked: int) -> None:
        """Raise TooLarge for what is unpacked to more than ``max_ratio`` times its packed size."""
        if self.max_ratio is None or unpacked <= _UNPACKED_ALWAYS or unpacked <= self.max_ratio * packed:
            return
        raise TooLarge(
            f"{packed:,} packed bytes stand for {unpacked:,} or more, beyond the limit of {self.max_ratio:g} for one, "
            "as what is made to fill disks does; if the file is so, give the staging method SizeLimits(max_ratio=...) "
            "with a higher limit, or None for any ratio"
        )

    def free_bytes(self, disk: os.statvfs_result) -> int:
        """Return the bytes that are to be left free on a disk."""
        if self.keep_free_bytes is not None:
            return self.keep_free_bytes
        return min(_FREE_BYTES, disk.f_blocks * disk.f_frsize // _FREE_SHARE)


DEFAULT_LIMITS = SizeLimits()


class Bound:
    """Holds one file that is coming in to its limits. Used by one thread."""

    def __init__(self, limits: SizeLimits, path: str | os.PathLike[str]) -> None:
        """Take the limits, and where the file is made."""
        self._limits = limits
        self._path = path
        self._looked_at = 0
        self._free_bytes = -1

    def announced(self, size: int | None, here: int) -> None:
        """Check the size of the whole that the other side states, of which so many bytes are here already.

        Raises:
            TooLarge: it is beyond the limit.
            NoRoom: the disk has no room for it.
        """
        # What an earlier try brought was looked at then.
        self._looked_at = here
        if size is not None:
            self._limits.check_size(size, "the file has")
            if size - here >= _LOOK_BYTES:
                self._check_disk(size - here)

    def together(self, size: int) -> None:
        """Check that the disk has room for all files of a directory, each of which may be too small for a look.

        Raises:
            NoRoom: it has not.
        """
        if size >= _LOOK_BYTES:
            self._check_disk(size)

    def reached(self, size: int, total: int | None) -> None:
        """Take how many bytes are here, of those announced.

        Raises:
            ChecksumMismatch: they are more than were announced.
            TooLarge: they are beyond the limit.
            NoRoom: the disk has no room for more.
        """
        if total is not None and size > total:
            raise ChecksumMismatch(f"got {size} bytes and more where {total} were announced")
        self._limits.check_size(size, "the file has at least")
        if size - self._looked_at >= _LOOK_BYTES:
            self._looked_at = size
            self._check_disk(0)

    def meanwhile(self) -> None:
        """Look at the disk where the bytes that came are not known: 64 MiB less than at the first look count.

        Raises:
            NoRoom: the disk has no room for more.
        """
        try:
            disk = os.statvfs(self._path)
        except OSError:
            return  # writing will tell
        free = disk.f_bavail * disk.f_frsize
        if self._free_bytes < 0:
            self._free_bytes = free
        elif self._free_bytes - free >= _LOOK_BYTES:
            self._looked_at = self._free_bytes - free
            self._check_disk(0)

    def _check_disk(self, wanted: int) -> None:
        try:
            disk = os.statvfs(self._path)
        except OSError:
            return  # writing will tell
        left, free = self._limits.free_bytes(disk), disk.f_bavail * disk.f_frsize
        if free - wanted < left:
            folder = os.path.dirname(self._path)
            coming = f"{wanted:,} bytes are to come" if wanted else f"after {self._looked_at:,} bytes"
            raise NoRoom(
                f"{coming}, and the disk of {folder} has {free:,} free, of which {left:,} are kept: free "
                "space, set the executor's working_dir to a larger file system, or give the staging method "
                "SizeLimits(keep_free_bytes=...)"
            )
