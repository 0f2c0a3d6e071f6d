"""The memoizer: results by key, in memory and in checkpoints.

When a checkpoint is written, and when it is safe against what:

- mode ``task_exit``: ``store`` returns when write(2) of its records has returned. They survive the death of this
  process; against the death of the machine the file is synced to disk within 5 s of a write, in the background, and at
  the end.
- ``periodic``: every ``checkpoint_period``, synced each time; and at the end.
- ``dfk_exit``: when the kernel ends.
- always: ``checkpoint()``, which returns when the file is synced.

Calls that failed are not remembered. Of the last 1,000 of them the keys go to a file of its own, with ``checkpoint()``
and at the end, so that ``flow cache why`` can say that an earlier call had failed.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flow_core.bounded_calls import start_unless_ending
from flow_core.checkpoint.log import CheckpointLog
from flow_core.checkpoint.period import period_seconds
from flow_core.checkpoint.reader import CheckpointReader, Record, checkpoint_file
from flow_core.checkpoint.record import FAILURES_NAME, FILE_NAME, PYTHON, Meta, pack
from flow_core.errors import BadCheckpoint, ConfigurationError, NotACheckpoint
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity, MemoEntry, Memoizer, MemoKey, MissReason, Stored
from flow_core.memo.details import Details
from flow_core.memo.explain import Candidate, candidate_of, explain
from flow_core.memo.key import SOURCE, memo_key, source_key
from flow_core.memo.stored import CheckpointedResult, InMemory, SharedObject, hold
from flow_core.own_files import NotOwnFile, open_own, owners
from flow_core.write_remedies import FULL, write_remedy

MODES = (None, "task_exit", "periodic", "dfk_exit", "manual")
_DEFAULT_PERIOD_S = 1800.0  # seconds; the default of checkpoint_period, as documented
_SYNC_S = 5.0  # seconds between a write and its fsync: what the death of the machine may cost; see above
_IDLE_S = 3600.0  # seconds; only a bound for the wait, nothing happens then
_KEEP_BYTES = 512  # bytes of a pickle; smaller ones stay in memory, too. Only the magnitude matters
_CANDIDATES = 1000  # calls of each app that a miss is compared with; bounds memory and the time of explain()
_FAILURES = 1000  # keys of failed calls that are kept until they are written; of more the oldest are forgotten


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """A result that is not in the checkpoint: its key, the task that made it, its times in ns UTC, and a copy of it."""

    key: MemoKey
    task_id: int
    started_ns: int
    ended_ns: int
    held: InMemory


class BasicMemoizer(Memoizer):
    """Remembers results while the run lasts, writes them to a checkpoint as its mode says, reads earlier ones.

    A result is copied when it is stored and each time it is found, so that what is found and what is written is what
    the task returned, whatever its callers do to theirs. Only what cannot be pickled is shared, which is logged.

    Thread-safe. Values that are in a checkpoint file and larger than 512 bytes are not kept in memory.

    Attributes:
        enabled: Whether anything is remembered at all.
        loaded: Number of results found in ``checkpoint_files``.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        checkpoint_mode: str | None = None,
        checkpoint_period: str | float | None = None,
        checkpoint_dir: str | os.PathLike[str],
        checkpoint_files: Sequence[str | os.PathLike[str]] = (),
        trust_owner: Sequence[str | int] = (),
        logger: logging.Logger | None = None,
    ) -> None:
        """Read the earlier checkpoints; nothing is written yet.

        Args:
            enabled: False remembers nothing, finds nothing and writes nothing (``app_cache=False``).
            checkpoint_mode: None, ``task_exit``, ``periodic``, ``dfk_exit`` or ``manual`` (the same as None).
            checkpoint_period: ``"HH:MM:SS"`` or seconds, for ``periodic``; 30 minutes if None.
            checkpoint_dir: Directory of this run's checkpoint; made when first needed.
            checkpoint_files: Earlier checkpoints: files, their directories, or runs' directories.
            trust_owner: Users, by name or number, whose checkpoints are read, too. Reading a value runs whatever its
                writer has put there, so those of others are skipped with a warning.
            logger: Where to tell of what was loaded and of failures.

        Raises:
            ConfigurationError: the mode or the period is wrong.
            BadCheckpoint: an earlier checkpoint is not there, or is of a newer version, or the file named is none. A
                torn or damaged ``tasks.log`` is reported, and what can be read of it is used.
        """
        if checkpoint_mode not in MODES:
            raise ConfigurationError(
                f"checkpoint_mode={checkpoint_mode!r} is unknown; use None, 'task_exit', 'periodic' or 'dfk_exit'"
            )
        self.enabled = enabled
        self.loaded = 0
        self._trusted = owners(trust_owner)
        self._mode = checkpoint_mode
        self._period_s = _DEFAULT_PERIOD_S if checkpoint_period is None else period_seconds(checkpoint_period)
        self._logger = logger if logger is not None else logging.getLogger("flow.memo")
        self._log = CheckpointLog(Path(checkpoint_dir).absolute())
        self._failures_log = CheckpointLog(self._log.directory, FAILURES_NAME)
        self._details = Details(self._log.directory, lambda place: open_own(place, self._trusted))
        self._failures: deque[tuple[MemoKey, int, str]] = deque(maxlen=_FAILURES)
        self._table: dict[bytes, InMemory | CheckpointedResult] = {}
        # By the key of source text: results of other minor versions of Python, whose bytecode and so whose digests
        # differ.
        self._foreign: dict[bytes, CheckpointedResult] = {}
        self._unwritten: dict[bytes, _Unwritten] = {}
        self._candidates: dict[str, deque[Candidate]] = {}
        # _lock guards the tables and is held for moments. _writing keeps writers apart and is held while files are
        # written, so that look-ups never wait for a disk.
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._work = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._complained: set[str] = set()
        if enabled:
            self.load(checkpoint_files)

    # -- the interface

    def key(self, app: AppIdentity, call: Call) -> MemoKey:
        """Return the key of a call whose arguments are resolved. Raises Unhashable naming the argument."""
        return memo_key(app, call)

    def lookup(self, key: MemoKey) -> Stored | None:
        """Return the newest entry of this key, or None."""
        # Without the lock: one look into a dict is atomic, and each cached call makes it.
        found: InMemory | CheckpointedResult | None = self._table.get(key.digest)
        if found is None and self._foreign:
            source = source_key(key)
            found = self._foreign.get(source) if source is not None else None
        return found

    def store(self, entries: Sequence[MemoEntry]) -> None:
        """Remember results; in mode ``task_exit`` write them. A failure to write is logged, and tried again later."""
        if not self.enabled or not entries:
            return
        # Before anything is kept: callers may change the objects as soon as their futures are done.
        copies = [self._copied(entry) for entry in entries]
        for entry in copies:
            self._details.note(entry.key)
        for remembered in entries:
            if remembered.again:
                self._details.note_again(remembered.key, remembered.again)
        with self._lock:
            for entry in copies:
                self._table[entry.key.digest] = entry.held
                self._unwritten[entry.key.digest] = entry
                self._remember(entry.key.app, Candidate(entry.key.parts, f"task {entry.task_id}"))
        if self._mode == "task_exit":
            self._write([entry.key.digest for entry in entries])
        self._see_to_background()

    def failed(self, key: MemoKey, task_id: int, error: str) -> None:
        """Keep the key of a call that failed until the checkpoint is written; of more than 1,000 the last ones."""
        if self.enabled:
            self._details.note(key)
            self._failures.append((key, task_id, error))

    def checkpoint(self, tasks: Sequence[int] | None = None) -> Path | None:
        """Write and sync what is not yet written, of the given tasks or all; return the checkpoint's directory.

        Returns:
            The directory, or None where memoization is off.

        Raises:
            BadCheckpoint: it could not be written; what there was no room for is kept for the next time.
        """
        if not self.enabled:
            return None
        with self._lock:
            # Only what is to be written is gathered under the lock.
            wanted = None if tasks is None else set(tasks)
            digests = [d for d, entry in self._unwritten.items() if wanted is None or entry.task_id in wanted]
        try:
            # Opened although there may be nothing to write: a checkpoint that was asked for names a directory that is
            # there.
            self._log.open()
            self._write_or_raise(digests)
            self._log.sync()
            self._write_failures()
        except OSError as error:
            raise BadCheckpoint(f"the checkpoint {self._log.directory} could not be written: {_why(error)}") from error
        return self._log.directory

    def load(self, checkpoints: Sequence[str | os.PathLike[str]]) -> Mapping[bytes, Stored]:
        """Read more checkpoints; return what was found in them, by digest. Raises BadCheckpoint."""
        found: set[bytes] = set()
        if self.enabled:
            for place in checkpoints:
                found |= self._load(checkpoint_file(place).absolute())
        with self._lock:
            return {digest: self._table[digest] for digest in found}

    def file_versions(self) -> Iterator[str]:
        """Yield versions of local files from beside the checkpoints that were loaded."""
        return self._details.file_versions()

    def explain(self, key: MemoKey) -> MissReason:
        """Say in which part a key differs from the nearest of the last 1000 entries of the same app."""
        if not self.enabled:
            return MissReason("memoization is off (app_cache=False)")
        with self._lock:
            candidates = list(self._candidates.get(key.app, ()))
        self._details.note(key)
        return explain(key.app, key.parts, candidates, self._details)

    def close(self) -> None:
        """Write what the mode asks for, sync, and close the file; idempotent.

        Raises:
            BadCheckpoint: results could not be written, or not synced. All is closed nevertheless.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            left = list(self._unwritten)
        # Both events: the thread waits for work with the one and between two writes with the other.
        self._stop.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(_SYNC_S)
        failure, lost = None, 0
        if self._mode in ("task_exit", "periodic", "dfk_exit"):
            # In mode task_exit something is left only where an earlier write has failed.
            if left:
                failure = self._close_part(lambda: self._write_or_raise(left))
                lost = 0 if failure is None else len(self._unwritten)
            self._close_part(self._write_failures)
        self._close_part(self._failures_log.close)
        self._close_part(self._details.close)
        unsynced = self._close_part(self._log.close)
        # Where all results are written, what is missing serves explanations only.
        if lost:
            results = "1 result" if lost == 1 else f"{lost} results"
            raise BadCheckpoint(
                f"the checkpoint {self._log.directory} lacks {results}, for it could not be written: {_why(failure)}"
            ) from failure
        if unsynced is not None:
            raise BadCheckpoint(
                f"the checkpoint {self._log.directory} could not be synced: {_why(unsynced)}"
            ) from unsynced

    def _close_part(self, step: Callable[[], object]) -> OSError | BadCheckpoint | None:
        """Take a step of closing; log and return its failure, so that the others are taken, too."""
        try:
            step()
        except (OSError, BadCheckpoint) as error:
            self._logger.error("The checkpoint %s could not be closed as a whole: %s", self._log.directory, error)
            return error
        return None

    def _copied(self, entry: MemoEntry) -> _Unwritten:
        held = hold(entry.value)
        if isinstance(held, SharedObject):
            self._complain(
                f"pickle {entry.key.app}",
                f"The result of task {entry.task_id} of app {entry.key.app!r} is not in the checkpoint, and calls that "
                f"find it share one object, since a {held.kind} cannot be pickled: {held.error}",
            )
        return _Unwritten(entry.key, entry.task_id, entry.started_ns, entry.ended_ns, held)

    # -- writing

    def _write(self, digests: Sequence[bytes]) -> None:
        try:
            self._write_or_raise(digests)
        except (OSError, BadCheckpoint) as error:
            self._complain("write", f"The checkpoint {self._log.directory} could not be written: {error}")

    def _write_or_raise(self, digests: Sequence[bytes]) -> None:
        """Write unwritten entries; one writer at a time, so that records of a key are in the order of their entries."""
        with self._writing:
            # Times of writing order the records of one key when several checkpoints are read.
            now = time.time_ns()
            with self._lock:
                entries = [entry for d in digests if (entry := self._unwritten.get(d)) is not None]
            packed = [(entry, data) for entry in entries if (data := self._dump(entry)) is not None]
            if packed:
                records = [pack(_meta(entry, now), data) for entry, data in packed]
                sizes = [len(data) for _, data in packed]
                try:
                    self._written([entry for entry, _ in packed], self._log.append(records), sizes, now)
                except OSError as error:
                    if error.errno not in FULL:
                        raise
                    self._write_what_fits(packed, records, now)
                    raise
            self._details.write()

    def _write_what_fits(self, packed: Sequence[tuple[_Unwritten, bytes]], records: Sequence[bytes], now: int) -> None:
        """Write records one by one to a disk that has no room for all of them."""
        least = sys.maxsize
        for (entry, data), record in zip(packed, records, strict=True):
            # What is as large as one that did not fit is not tried: there may be very many.
            if len(record) < least:
                try:
                    self._written([entry], self._log.append([record]), [len(data)], now)
                except OSError:
                    least = len(record)

    def _written(self, entries: Sequence[_Unwritten], offsets: Sequence[int], sizes: Sequence[int], now: int) -> None:
        with self._lock:
            for entry, offset, size in zip(entries, offsets, sizes, strict=True):
                digest = entry.key.digest
                # While it was written another task may have stored the same key anew.
                if self._unwritten.get(digest) is entry:
                    del self._unwritten[digest]
                    # It is in the file now, so memory need not hold it, too.
                    if size > _KEEP_BYTES:
                        self._table[digest] = CheckpointedResult(self._log.path, offset, digest, now)

    def _dump(self, entry: _Unwritten) -> bytes | None:
        """Return a result as bytes; one that cannot be pickled is kept in memory alone."""
        try:
            return entry.held.pickled()
        except Exception:
            with self._lock:
                if self._unwritten.get(entry.key.digest) is entry:
                    del self._unwritten[entry.key.digest]
            return None

    def _write_failures(self) -> None:
        """Write the keys of calls that failed. Raises OSError, BadCheckpoint."""
        with self._writing:
            now, failures = time.time_ns(), list(self._failures)
            # Cleared before the write: those that cannot be written are lost, since they serve explanations only.
            self._failures.clear()
            self._details.write()
            if failures:
                self._failures_log.append([pack(_failure_meta(*each, now), each[2].encode()) for each in failures])

    def _complain(self, about: str, text: str) -> None:
        """Log an error once: a full disk must not fill the log too."""
        if about not in self._complained:
            self._complained.add(about)
            self._logger.error("%s", text)

    # -- the background thread: syncs (task_exit) or checkpoints (periodic)

    def _see_to_background(self) -> None:
        if self._mode not in ("task_exit", "periodic"):
            return
        # Started with the first result, so that a run that stores nothing has no such thread. Asked again under the
        # lock, since two threads may store at once.
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed:
                    thread = threading.Thread(target=self._background, name="flow-checkpoint", daemon=True)
                    # Else the process ends, and closing writes what is left.
                    if start_unless_ending(thread):
                        self._thread = thread
        if not self._work.is_set():
            self._work.set()

    def _background(self) -> None:
        pause_s = _SYNC_S if self._mode == "task_exit" else self._period_s
        while not self._stop.is_set():
            # The pause comes after the work: all that is stored meanwhile goes with one sync.
            if not self._work.wait(_IDLE_S) or self._stop.wait(pause_s):
                continue
            self._work.clear()
            try:
                if self._mode == "periodic":
                    self.checkpoint()
                else:
                    self._log.sync()
            except (OSError, BadCheckpoint) as error:
                self._complain("sync", f"The checkpoint {self._log.directory} could not be synced: {error}")

    # -- reading earlier checkpoints

    def _load(self, path: Path) -> set[bytes]:
        """Read one checkpoint; what is none though it is in a checkpoint's place is skipped with a warning."""
        reader = CheckpointReader(path, lambda place: open_own(place, self._trusted))
        count = 0
        found = set()
        try:
            for record in reader:
                with self._lock:
                    self._take(path, record)
                found.add(record.meta.digest)
                count += 1
        except NotACheckpoint as error:
            if path.name != FILE_NAME:  # the user named a wrong file
                raise
            self._logger.warning("%s; nothing of it is used: remove it, or restore it from a copy", error)
        except NotOwnFile as error:
            text = (
                f"Checkpoint {path} is not used: {error.reason}. Its values are code of whoever wrote it; to take it "
                "nevertheless, name its owner: Config(trust_owner=[...])"
            )
            self._logger.warning("%s", text)
            warnings.warn(text, stacklevel=2)
            return set()
        for damage in reader.damages:
            self._logger.warning("Checkpoint %s; what is before is used", damage)
        self._details.read(path.parent)
        self.loaded += count
        self._logger.info("Loaded %d results from checkpoint %s", count, path.parent)
        return found

    def _take(self, path: Path, record: Record) -> None:
        meta = record.meta
        filed = CheckpointedResult(path, record.offset, meta.digest, meta.written_ns, self._trusted)
        known = self._table.get(meta.digest)
        # Checkpoints may be named in any order; the newest result of a key is taken.
        if not isinstance(known, CheckpointedResult) or known.written_ns <= meta.written_ns:
            self._table[meta.digest] = filed
        if meta.source is not None and meta.python != PYTHON:
            other = self._foreign.get(meta.source)
            if other is None or other.written_ns <= meta.written_ns:
                self._foreign[meta.source] = filed
        self._remember(meta.app, candidate_of(meta, str(path.parent)))

    def _remember(self, app: str, candidate: Candidate) -> None:
        known = self._candidates.get(app)
        if known is None:
            known = self._candidates[app] = deque(maxlen=_CANDIDATES)
        known.append(candidate)


def _why(error: OSError | BadCheckpoint | None) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}{write_remedy(error)}"
    return str(error)


def _meta(entry: _Unwritten, now: int) -> Meta:
    key = entry.key
    parts = tuple(part for part in key.parts if part[0] != SOURCE)
    times = (entry.started_ns, entry.ended_ns, now)
    return Meta(key.digest, source_key(key), entry.task_id, *times, PYTHON, key.app, parts)


def _failure_meta(key: MemoKey, task_id: int, _error: str, now: int) -> Meta:
    parts = tuple(part for part in key.parts if part[0] != SOURCE)
    return Meta(key.digest, source_key(key), task_id, 0, 0, now, PYTHON, key.app, parts)
