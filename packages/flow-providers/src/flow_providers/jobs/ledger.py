"""The ledger of jobs: a file that knows every submitted job, so that none is left behind.

A line of JSON a record, append-only. The intent, with the job's tag, is on the disk (fsync) before the scheduler is
called, and the id (fsync) as soon as there is one; how jobs ended is written without fsync, since losing that costs
only a question to the scheduler. A torn last line, of a driver that was killed or a disk that was full, is skipped by
readers and ended by the next writer. Several processes may write to one ledger.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from flow_providers.errors import LedgerError
from flow_providers.folders import make_directory
from flow_providers.jobs.entry import EntryState, LedgerEntry, fold
from flow_providers.own_files import is_own, open_own
from flow_providers.spec import Plain


def default_ledger(directory: str | os.PathLike[str] = "runinfo") -> Path:
    """Return ``$FLOW_JOBS_LEDGER``, or the ledger of a directory with runs.

    That is ``jobs.ledger``, or ``jobs-UID.ledger`` where the other is another user's.
    """
    chosen = os.environ.get("FLOW_JOBS_LEDGER")
    if chosen:
        return Path(chosen).absolute()
    path = Path(directory).absolute() / "jobs.ledger"
    # A run directory may be shared: what another user wrote there is not used, and could not be appended to.
    return path if is_own(path) else path.with_name(f"jobs-{os.geteuid()}.ledger")


class JobLedger:
    """A ledger to write to; any thread. Nothing is kept open, so forks and many runs do no harm.

    Args:
        path: The file; made, with its directory, by the first record.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = default_ledger() if path is None else Path(path).absolute()
        self._lock = Lock()

    def intend(self, tag: str, *, run_id: str, owner: str, job_name: str, provider: dict[str, Plain]) -> None:
        """Record that a job is about to be submitted. On the disk when this returns. LedgerError: do not submit."""
        # The provider's spec goes with each job, so that the command line can end it without the script.
        intent: dict[str, Plain] = {
            "run": run_id,
            "owner": owner,
            "name": job_name,
            "provider": provider,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._append(EntryState.INTENDED, tag, intent, sync=True)

    def submitted(self, tag: str, job_id: str) -> None:
        """Record the id of a job. On the disk when this returns."""
        self._append(EntryState.SUBMITTED, tag, {"id": job_id}, sync=True)

    def refused(self, tag: str, why: str) -> None:
        """Record that a job was surely not submitted. Not synced: losing it costs one question. LedgerError."""
        self._append(EntryState.REFUSED, tag, {"detail": why})

    def ended(self, tag: str, how: str) -> None:
        """Record that a job is gone or going. Not synced: losing it costs one question. LedgerError."""
        self._append(EntryState.ENDED, tag, {"detail": how})

    def adopted(self, tag: str, by: str, job_id: str | None = None) -> None:
        """Record that a person took a job over; nothing of Flow ends it from then on. LedgerError."""
        self._append(EntryState.ADOPTED, tag, {"detail": by, "id": job_id}, sync=True)

    def entries(self) -> list[LedgerEntry]:
        """Return all entries, oldest first; none where there is no file. LedgerError: it cannot be read."""
        return list(fold(read_records(self.path)).values())

    def open_entries(self, run_id: str | None = None, owner: str | None = None) -> list[LedgerEntry]:
        """Return the entries of jobs that may still be there, of one run and one owner where given."""
        return [
            entry
            for entry in self.entries()
            if entry.state.open and run_id in (None, entry.run_id) and owner in (None, entry.owner)
        ]

    def _append(self, kind: EntryState, tag: str, values: dict[str, Plain], *, sync: bool = False) -> None:
        record = {"kind": kind.value, "tag": tag, "time": round(time.time(), 3), **values}
        # Milliseconds are enough: order in the file counts, not the times.
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            with self._lock, self._opened() as file:
                # One write call for the line, so that O_APPEND keeps lines of several processes apart even where there
                # are no locks.
                os.write(file, (b"" if _ends_whole(file) else b"\n") + line)
                if sync:
                    os.fsync(file)
        except OSError as error:
            raise LedgerError(
                f"cannot write the ledger of jobs {self.path}: {error}; jobs are not submitted without it, "
                "set FLOW_JOBS_LEDGER to a file that can be written"
            ) from error

    @contextmanager
    def _opened(self) -> Iterator[int]:
        make_directory(self.path.parent)
        file = open_own(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            with suppress(OSError):  # some shared file systems have no locks; a torn line is survived anyway
                fcntl.lockf(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


def read_records(path: Path) -> Iterator[dict[str, object]]:
    """Yield the records of a ledger, without those that are torn. LedgerError: it cannot be read, or is another's."""
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return
    except OSError as error:
        raise LedgerError(f"cannot read the ledger of jobs {path}: {error}") from error
    # A driver killed in the middle of a write leaves half a line; what is before and after it still counts.
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _ends_whole(file: int) -> bool:
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"
