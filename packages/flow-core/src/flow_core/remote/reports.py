"""Files by which workers without a connection of ours tell what their tasks use, and that they have begun.

A worker appends lines to files of its own in a directory of the run; whoever started it reads what is whole, and
removes what was read. A line is written by one ``write``: it is there although the worker is killed right after.
``flow_core.report_files`` says what is in them.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from flow_core.interfaces.call import FileProgress, TryKey
from flow_core.interfaces.sampler import Sample, SamplerSpec
from flow_core.remote.sampling import Start, TaskWatch
from flow_core.report_files import FIELDS, MOVING, SAMPLED, STARTED, SUFFIX, VERSION

_LONGEST = 256 << 10
"""Bytes (256 KiB) after which a worker begins another file, so that the one before can be removed."""


@dataclass(frozen=True, slots=True)
class Reporting:
    """Reporting settings that travel with a task: the directory of report files, and the sampler if there is one."""

    directory: str
    sampler: SamplerSpec | None


class ReportWriter:
    """The files of one process. Never raises: what cannot be written is left out. One thread at a time."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._node = socket.gethostname()
        # Node, process and time: process ids are given again, and several nodes share the directory.
        self._name = f"{self._node}-{os.getpid()}-{time.time_ns()}"
        self._number = 0
        self._fd = -1
        self._size = 0
        self._node_fd = -1

    def write(self, starts: Sequence[Start], samples: Sequence[Sample]) -> None:
        """Append starts and samples; those of the node as a whole only if no other process of the node does."""
        # Of the processes on one node one tells of the node, else its use would count several times.
        told = [sample for sample in samples if sample.key is not None or self._speaks_for_node()]
        lines: list[list[object]] = [[STARTED, *start] for start in starts]
        if told:
            lines.append([SAMPLED, [[getattr(sample, name) for name in FIELDS] for sample in told]])
        if not lines:
            return
        try:
            self._append(b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines))
        except OSError:
            self._end_file()  # what may be half a line is the last of its file

    def write_moving(self, key: TryKey, files: Sequence[FileProgress]) -> None:
        """Append how far files are that a try moves."""
        line = [MOVING, key, [dataclasses.asdict(file) for file in files]]
        try:
            self._append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        except OSError:
            self._end_file()

    def close(self) -> None:
        """Close the files. Idempotent."""
        self._end_file()
        if self._node_fd >= 0:
            os.close(self._node_fd)
            self._node_fd = -1

    def _append(self, data: bytes) -> None:
        if self._fd < 0:
            self._begin_file()
        # One write for each report: a process that is killed right after has written all of it.
        if os.write(self._fd, data) != len(data):
            raise OSError("the file system is full")
        self._size += len(data)
        if self._size > _LONGEST:
            self._end_file()

    def _begin_file(self) -> None:
        path = os.path.join(self._directory, f"{self._name}-{self._number:06d}{SUFFIX}")
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number += 1
        self._size = 0
        head = {"flow_reports": VERSION, "node": self._node, "pid": os.getpid(), "sample": FIELDS}
        os.write(self._fd, json.dumps(head, separators=(",", ":")).encode() + b"\n")

    def _end_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _speaks_for_node(self) -> bool:
        """Tell whether this process has the node's lock, which ends with it."""
        if self._node_fd >= 0:
            return True
        try:
            # A lock and not a file's existence: the lock of a killed process is free at once.
            fd = os.open(os.path.join(self._directory, f"{self._node}.lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._node_fd = fd
        return True


class _Reporter:
    """Watches the tasks of this process, and writes what there is to tell."""

    def __init__(self, reporting: Reporting, sampler: SamplerSpec) -> None:
        self.reporting = reporting
        self._writer = ReportWriter(reporting.directory)
        self.watch = TaskWatch(sampler, self._writer.write, "flow-sampling")

    def close(self) -> None:
        """Stop watching and close the files. Waits a second at most for a sampler that is at it."""
        # The watch first, since its last samples go to the writer.
        self.watch.close()
        self._writer.close()


_lock = threading.Lock()
_reporters: dict[bool, _Reporter] = {}
"""Of this process: by whether tasks run on its main thread, one at a time, or on threads."""


_tellers: dict[str, ReportWriter] = {}
"""Of this process: by their directories, the files in which its tasks tell of those that they move."""


def report_files(directory: str, key: TryKey, files: Sequence[FileProgress]) -> None:
    """Tell the run how far files are that a try moves here. Any thread; never raises."""
    with _lock:
        writer = _tellers.get(directory)
        if writer is None:
            for earlier in _tellers.values():  # of a run that has ended, most likely
                earlier.close()
            _tellers.clear()
            writer = _tellers[directory] = ReportWriter(directory)
        writer.write_moving(key, files)


def _begin_anew() -> None:
    """A forked process has none of the threads, and a lock of another thread would never be released."""
    global _lock
    _lock = threading.Lock()
    _reporters.clear()
    _tellers.clear()


os.register_at_fork(after_in_child=_begin_anew)


class Reported:
    """While one try runs here, it is watched. Context manager; to be used on the thread that runs it."""

    def __init__(self, reporting: Reporting, key: TryKey) -> None:
        on_main = threading.current_thread() is threading.main_thread()
        self._ident = os.getpid() if on_main else threading.get_native_id()
        self._key = key
        self._watch = _watch(reporting, on_main)

    def __enter__(self) -> None:
        if self._watch is not None:
            self._watch.begin(self._ident, self._key)

    def __exit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.end(self._ident)


def _watch(reporting: Reporting, on_main: bool) -> TaskWatch | None:
    """Return what watches tasks of this process; None where threads are not sampled."""
    # Without the lock first: each task passes here, and the answer changes with a new run only.
    found = _reporters.get(on_main)
    if found is not None and found.reporting == reporting:
        return found.watch
    spec = reporting.sampler
    if spec is None:
        return None
    factory = spec.factory if on_main else spec.thread_factory
    if not factory:
        return None
    with _lock:
        found = _reporters.get(on_main)
        if found is None or found.reporting != reporting:
            if found is not None:
                found.close()
            found = _reporters[on_main] = _Reporter(reporting, dataclasses.replace(spec, factory=factory))
        return found.watch
