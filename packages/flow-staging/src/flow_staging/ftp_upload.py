"""A file on its way to an ftp server: made under a temporary name, renamed when it is whole."""

from __future__ import annotations

import ftplib
import posixpath
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b

from flow_core.interfaces.staging import Transfer
from flow_staging.ftp_connection import Session, finish
from flow_staging.ftp_listing import facts_of
from flow_staging.ftp_session import FtpAddress, connected, digest, size, translated
from flow_staging.transfer.failures import TransientTransferError, local_failure
from flow_staging.transfer.handle import tidying
from flow_staging.transfer.retry import Control, Pace, RetryPolicy, Tries
from flow_staging.transfer.verify import Checker, Remote

_CHUNK = 256 << 10  # bytes a read; only the magnitude matters
_NO_REST = ("501", "502", "504")  # answers of servers that cannot resume
_MOST_NAMES = 5_000  # names in a directory; listing more for each upload takes longer than a small file
_AGAIN_S = 600.0  # seconds until such a directory is listed again
_PART = re.compile(r"\.flow-[^/\r\0]*\.part")
_crowded: dict[tuple[str, int, str], float] = {}
"""Directories of so many names that they are not listed again before that time."""


class FtpUpload:
    """Sends one file under a temporary name in the same directory; ``publish`` renames it.

    The temporary name says whose it is: ``.flow-<target>-<task>-<random>.part``. A later try of the same task removes
    what an earlier one left when it was killed, and anyone what is older than the longest time for one file.
    """

    def __init__(self, transfer: Transfer, address: FtpAddress, retry: RetryPolicy, control: Control) -> None:
        self._path = transfer.local_path
        self._address = address
        self._retry = retry
        self._control = control
        self._directory, name = posixpath.split(address.path)
        target = blake2b(name.encode(errors="surrogateescape"), digest_size=6).hexdigest()
        self._mine = f".flow-{target}-{transfer.task_id}-"
        self._temporary = posixpath.join(self._directory, f"{self._mine}{secrets.token_hex(6)}.part")
        self._size = self._path.stat().st_size
        # Given up for a server that does not know REST, or whose digest of a resumed file was wrong.
        self._resumes = True
        self._sized = False  # the server says sizes
        self._unanswered = False  # it was asked to rename, and may have done so

    def send(self) -> None:
        """Send, and check what has arrived.

        Raises TransientTransferError or PermanentTransferError, and nothing is left then.
        """
        tries, reached, first = Tries(self._retry, self._control), 0, True
        try:
            while True:
                try:
                    self._try(first)
                    return
                except TransientTransferError as error:
                    # What has arrived is asked for: the bytes that were sent may never have got there.
                    here = self._there() if self._resumes else 0
                    tries.failed(error, here - reached)
                    reached, first = max(reached, here), False
        except BaseException:
            self.discard()
            raise

    def publish(self) -> None:
        """Give the file its name; raises TransientTransferError or PermanentTransferError, and nothing is left then."""
        tries = Tries(self._retry, self._control)
        try:
            while True:
                try:
                    with translated(), connected(self._address, self._retry) as ftp:
                        if not self._rename(ftp):
                            raise TransientTransferError("the file has vanished from the server before it was renamed")
                    return
                except TransientTransferError as error:
                    tries.failed(error)
                    # The temporary file may be gone with a restart of the server: it is sent again.
                    if self._there() != self._size:
                        self.send()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was sent; never raises."""
        with tidying(), suppress(*ftplib.all_errors), connected(self._address, self._retry) as ftp:
            ftp.delete(self._temporary)

    # -- sending

    def _try(self, first: bool) -> None:
        with translated(), connected(self._address, self._retry) as ftp:
            offset = 0 if first or not self._resumes else size(ftp, self._temporary) or 0
            offset = offset if offset <= self._size else 0
            with self._begin(ftp, offset) as data:
                data.settimeout(self._retry.stall_timeout_s)
                self._pour(data, offset)
                finish(data)
            ftp.voidresp()
            self._check(ftp)
            # Tidying must not fail an upload that is complete.
            with suppress(*ftplib.all_errors), _back(ftp, self._directory):
                self._sweep(ftp)

    def _begin(self, ftp: Session, offset: int) -> socket.socket:
        try:
            return ftp.transfercmd(f"STOR {self._temporary}", offset or None)
        except ftplib.error_perm as error:
            code = str(error)[:3]
            if offset and code in _NO_REST:
                self._resumes = False
                return ftp.transfercmd(f"STOR {self._temporary}")
            if code not in ("550", "553") or "/" not in self._temporary:
                raise
            _make_directories(ftp, self._temporary)  # or another upload has, just now
            return ftp.transfercmd(f"STOR {self._temporary}")

    def _pour(self, data: socket.socket, offset: int) -> None:
        try:
            stream = self._path.open("rb")
        except OSError as error:
            raise local_failure(error, f"cannot read {self._path}") from error
        with stream:
            stream.seek(offset)
            meter, pace = self._control.stop.meter, Pace(self._retry)
            meter.stand(offset, self._size)
            while chunk := memoryview(stream.read(_CHUNK)):
                while chunk:
                    sent = data.send(chunk)
                    chunk = chunk[sent:]
                    meter.add(sent)
                    self._control.check()
                    pace.add(sent)

    def _check(self, ftp: Session) -> None:
        there = size(ftp, self._temporary)
        self._sized = there is not None
        if there is not None and there != self._size:
            raise TransientTransferError(f"the server has {there} bytes of {self._size}")
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
        except TransientTransferError:
            self._resumes = False
            raise

    def _there(self) -> int:
        try:
            with connected(self._address, self._retry) as ftp:
                return size(ftp, self._temporary) or 0
        except ftplib.all_errors:
            return 0

    # -- renaming

    def _rename(self, ftp: Session) -> bool:
        """Rename; False if the file is not there any more."""
        # A rename whose answer was lost may have happened: only then a file that is gone counts as renamed.
        perhaps_renamed, self._unanswered = self._unanswered, True
        try:
            ftp.rename(self._temporary, self._address.path)
        except ftplib.error_perm:
            self._unanswered = False
            if self._sized and size(ftp, self._temporary) is None:  # else an older file of this size would do
                return perhaps_renamed and size(ftp, self._address.path) == self._size
            ftp.delete(self._address.path)  # a server that does not rename over an older file
            ftp.rename(self._temporary, self._address.path)
        return True

    # -- leftovers

    def _sweep(self, ftp: Session) -> None:
        """Remove what killed uploads have left in this directory."""
        place = (self._address.host, self._address.port, self._directory)
        if time.monotonic() < _crowded.get(place, 0.0):
            return
        _crowded[place] = time.monotonic() + _AGAIN_S  # unless it is listed now
        names, count = _parts(ftp, self._directory)
        del _crowded[place]
        if count > _MOST_NAMES:
            _crowded[place] = time.monotonic() + _AGAIN_S
        own = posixpath.basename(self._temporary)
        # Ages by the server's own clock: the new file's date is its present.
        now = names.get(own, "")
        for name, date in names.items():
            earlier_try = name.startswith(self._mine) and name != own
            if earlier_try or (name != own and self._old(date, now)):
                with suppress(ftplib.error_perm):
                    ftp.delete(name)

    def _old(self, date: str, now: str) -> bool:
        """Return whether a date of the server is longer ago than any upload may take."""
        try:
            age_s = time.mktime(time.strptime(now[:14], _DATE)) - time.mktime(time.strptime(date[:14], _DATE))
        except ValueError:
            return False
        return age_s > self._retry.timeout_s + 3600.0  # clocks are put back by an hour


_DATE = "%Y%m%d%H%M%S"


@contextmanager
def _back(ftp: Session, directory: str) -> Iterator[None]:
    """Go back to where the session was, if it leaves that: only there can it be kept for other files."""
    home = ftp.pwd() if directory else ""
    yield
    if home and not ftp.fit:
        ftp.cwd(home)
        ftp.fit = True


def _parts(ftp: Session, directory: str) -> tuple[dict[str, str], int]:
    """Return temporary names in a directory, with their dates where the server says them, and how many names there are.

    The session goes there.
    """
    if directory:
        ftp.fit = False  # a kept session would be elsewhere
        ftp.cwd(directory)
    found: dict[str, str] = {}
    count = 0

    def take(name: str, date: str) -> None:
        """Keep what an upload may have made: of the others a server may name millions."""
        nonlocal count
        count += 1
        if _PART.fullmatch(name) is not None and len(found) < _MOST_NAMES:
            found[name] = date

    try:
        ftp.retrlines("MLSD", lambda line: take(*_named(line)))
    except ftplib.error_perm:  # no MLSD here
        ftp.retrlines("NLST -a", lambda line: take(posixpath.basename(line), ""))
    return found, count


def _named(line: str) -> tuple[str, str]:
    """Return the name in a line of MLSD, and its date."""
    facts, _, name = line.partition(" ")
    return name, facts_of(facts).get("modify", "")


def _make_directories(ftp: Session, path: str) -> None:
    """Make what is missing of the directories above a path, as far as the server lets us."""
    above = posixpath.dirname(path)
    steps = [step for step in above.split("/") if step]
    for count in range(1, len(steps) + 1):
        with suppress(ftplib.error_perm):
            ftp.mkd(("/" if above.startswith("/") else "") + "/".join(steps[:count]))
