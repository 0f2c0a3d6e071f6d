"""A file on its way to an ftp server: made under a temporary name, renamed when it is whole."""

from __future__ import annotations

import ftplib
import posixpath
import secrets
import socket
import time
from contextlib import suppress
from hashlib import blake2b

from flow_core.interfaces.staging import Transfer
from flow_staging.ftp_session import Address, connected, digest, size, translated
from flow_staging.transfer.failures import Dropped, local_failure
from flow_staging.transfer.retry import Control, RetryPolicy, Tries
from flow_staging.transfer.verify import Checker, Remote

_CHUNK = 256 << 10
_NO_REST = ("501", "502", "504")
_MOST_NAMES = 5_000
_AGAIN_S = 600.0
_crowded: dict[tuple[str, int, str], float] = {}
"""Directories of so many names that they are not listed again before that time."""


class FtpUpload:
    """Sends one file under a temporary name in the same directory; ``publish`` renames it.

    The temporary name says whose it is: ``.flow-<target>-<task>-<random>.part``. A later try of the same task removes
    what an earlier one left when it was killed, and anyone what is older than the longest time for one file.
    """

    def __init__(self, transfer: Transfer, address: Address, retry: RetryPolicy, control: Control) -> None:
        self._path = transfer.local_path
        self._address = address
        self._retry = retry
        self._control = control
        self._directory, name = posixpath.split(address.path)
        target = blake2b(name.encode(errors="surrogateescape"), digest_size=6).hexdigest()
        self._mine = f".flow-{target}-{transfer.task_id}-"
        self._temporary = posixpath.join(self._directory, f"{self._mine}{secrets.token_hex(6)}.part")
        self._size = self._path.stat().st_size
        self._resumes = True
        self._sized = False  # the server says sizes

    def send(self) -> None:
        """Send, and check what has arrived; raises Dropped or Refused, and nothing is left then."""
        tries, reached, first = Tries(self._retry, self._control), 0, True
        try:
            while True:
                try:
                    self._try(first)
                    return
                except Dropped as error:
                    here = self._there() if self._resumes else 0
                    tries.failed(error, here - reached)
                    reached, first = max(reached, here), False
        except BaseException:
            self.discard()
            raise

    def publish(self) -> None:
        """Give the file its name; raises Dropped or Refused, and nothing is left then."""
        tries = Tries(self._retry, self._control)
        try:
            while True:
                try:
                    with translated(), connected(self._address, self._retry) as ftp:
                        if not self._rename(ftp):
                            raise Dropped("the file has vanished from the server before it was renamed")
                    return
                except Dropped as error:
                    tries.failed(error)
                    if self._there() != self._size:
                        self.send()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was sent; never raises."""
        with suppress(*ftplib.all_errors), connected(self._address, self._retry) as ftp:
            ftp.delete(self._temporary)

    # -- sending

    def _try(self, first: bool) -> None:
        with translated(), connected(self._address, self._retry) as ftp:
            offset = 0 if first or not self._resumes else size(ftp, self._temporary) or 0
            offset = offset if offset <= self._size else 0
            with self._begin(ftp, offset) as data:
                data.settimeout(self._retry.stall_timeout_s)
                self._pour(data, offset)
            ftp.voidresp()
            self._check(ftp)
            with suppress(*ftplib.all_errors):
                self._sweep(ftp)

    def _begin(self, ftp: ftplib.FTP, offset: int) -> socket.socket:
        try:
            return ftp.transfercmd(f"STOR {self._temporary}", offset or None)
        except ftplib.error_perm as error:
            code = str(error)[:3]
            if offset and code in _NO_REST:
                self._resumes = False
                return ftp.transfercmd(f"STOR {self._temporary}")
            if code not in ("550", "553") or not _make_directories(ftp, self._temporary):
                raise
            return ftp.transfercmd(f"STOR {self._temporary}")

    def _pour(self, data: socket.socket, offset: int) -> None:
        try:
            stream = self._path.open("rb")
        except OSError as error:
            raise local_failure(error, f"cannot read {self._path}") from error
        with stream:
            stream.seek(offset)
            while chunk := stream.read(_CHUNK):
                data.sendall(chunk)
                self._control.check()

    def _check(self, ftp: ftplib.FTP) -> None:
        there = size(ftp, self._temporary)
        self._sized = there is not None
        if there is not None and there != self._size:
            raise Dropped(f"the server has {there} bytes of {self._size}")
        stated = digest(ftp, self._temporary)
        if stated is None:
            return
        checker = Checker()
        checker.restart(Remote(self._size, stated))
        with self._path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                checker.update(chunk)
        try:
            checker.finish()
        except Dropped:
            self._resumes = False
            raise

    def _there(self) -> int:
        try:
            with connected(self._address, self._retry) as ftp:
                return size(ftp, self._temporary) or 0
        except ftplib.all_errors:
            return 0

    # -- renaming

    def _rename(self, ftp: ftplib.FTP) -> bool:
        """Rename; False if the file is not there any more."""
        try:
            ftp.rename(self._temporary, self._address.path)
        except ftplib.error_perm:
            if self._sized and size(ftp, self._temporary) is None:  # renamed already, and the answer was lost; or gone
                return size(ftp, self._address.path) == self._size
            ftp.delete(self._address.path)  # a server that does not rename over an older file
            ftp.rename(self._temporary, self._address.path)
        return True

    # -- leftovers

    def _sweep(self, ftp: ftplib.FTP) -> None:
        """Remove what killed uploads have left in this directory."""
        place = (self._address.host, self._address.port, self._directory)
        if time.monotonic() < _crowded.get(place, 0.0):
            return
        names = _names(ftp, self._directory)
        if len(names) > _MOST_NAMES:
            _crowded[place] = time.monotonic() + _AGAIN_S
        own = posixpath.basename(self._temporary)
        now = names.get(own, "")
        for name, date in names.items():
            earlier_try = name.startswith(self._mine) and name != own
            if name.endswith(".part") and (earlier_try or (name.startswith(".flow-") and self._old(date, now))):
                with suppress(ftplib.error_perm):
                    ftp.delete(name)

    def _old(self, date: str, now: str) -> bool:
        """Tell whether a date of the server is longer ago than any upload may take."""
        try:
            age_s = time.mktime(time.strptime(now[:14], _DATE)) - time.mktime(time.strptime(date[:14], _DATE))
        except ValueError:
            return False
        return age_s > self._retry.timeout_s + 3600.0  # clocks are put back by an hour


_DATE = "%Y%m%d%H%M%S"


def _names(ftp: ftplib.FTP, directory: str) -> dict[str, str]:
    """Return the names in a directory, hidden ones too, with their dates where the server says them; goes there."""
    if directory:
        ftp.cwd(directory)
    names: dict[str, str] = {}
    try:
        for name, facts in ftp.mlsd():
            names[name] = facts.get("modify", "")
    except ftplib.error_perm:  # no MLSD here
        for line in ftp.nlst("-a"):
            names[posixpath.basename(line)] = ""
    return names


def _make_directories(ftp: ftplib.FTP, path: str) -> bool:
    """Make what is missing of the directories above a path; False if none was."""
    made, above = False, posixpath.dirname(path)
    steps = [step for step in above.split("/") if step]
    for count in range(1, len(steps) + 1):
        with suppress(ftplib.error_perm):
            ftp.mkd(("/" if above.startswith("/") else "") + "/".join(steps[:count]))
            made = True
    return made
