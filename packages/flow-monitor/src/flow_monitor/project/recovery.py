"""Recovery of worker reports: brings into the log what workers wrote in files and a killed run did not read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.events import Event, Sampled, TryEnded, TryLaunched, TryStarted
from flow_core.interfaces.outcome import Place
from flow_core.interfaces.sampler import Sample
from flow_core.report_files import DIRECTORY, ReportFile, names_in
from flow_monitor.errors import LogError
from flow_monitor.log.reader import LogReader
from flow_monitor.log.records import CODES, Row, event_of
from flow_monitor.log.writer import LogWriter

_MOST_SAMPLES = 100
"""Samples of one event at most: a frame of 1024 events then stays far below its longest payload."""
_TOLD = frozenset(CODES[cls] for cls in (Sampled, TryLaunched, TryStarted, TryEnded))

_Id = tuple[str, str, TryKey | None, int, int]
"""Identity of a sample: executor, node, try, time (ns), pid."""


def recover(log_path: Path, logger: logging.Logger) -> int:
    """Append what files of the run still hold and its log does not; return the number of events.

    Only while the log has no writer. The files stay: what they hold is recognised in the log, and a worker that has
    outlived the run may still append to them. Never raises: what cannot be brought into the log is logged.
    """
    files = list(_files_of(log_path))
    if not files:
        return 0
    try:
        run_id, epoch = _of(log_path)
        with closing(LogWriter(log_path, run_id, epoch, header=False)) as writer:
            # Without a lock it is not known whether the run goes on: its events and these would be written twice.
            if not writer.locked:
                raise LogError(f"{log_path} cannot be locked: it may still be written")
            # Compared under the lock: what is not in the log now cannot come into it but from here.
            events = _missing(log_path, files, logger)
            if events:
                # The log may be of another version: the header says how to read what follows.
                writer.write_header()
                writer.append(events)
                logger.info("%d events of files that the run had not read are in the log now", len(events))
            return len(events) - writer.close()
    except (LogError, OSError) as error:
        logger.warning("what workers reported in files is left out: %s", error)
        return 0


@dataclass(slots=True)
class _Left:
    """Content of the report files, reduced to what the log lacks."""

    samples: dict[_Id, Sample] = field(default_factory=dict)
    starts: dict[TryKey, tuple[int, Place]] = field(default_factory=dict)
    tries: dict[tuple[int, int], TryKey] = field(default_factory=dict)
    """Tries that the log says were launched, of those with a start here."""

    def read(self, label: str, path: Path) -> int:
        """Take what a file holds; return the number of lines that cannot be understood. Raises OSError."""
        found, damaged = ReportFile(path).read()
        if found is not None:
            for key, time_ns, _ in found.starts:
                self.starts[key] = time_ns, Place(label, node=found.node, pid=found.pid)
            for sample in found.samples:
                self.samples[label, found.node, sample.key, sample.time_ns, sample.pid] = sample
        return damaged

    def drop(self, row: Row) -> None:
        """Drop what a row of the log has: it is not missing."""
        event = event_of(row)
        if isinstance(event, Sampled):
            # The log has it already: by executor, node, try, time and process a sample is the same one.
            for sample in event.samples:
                self.samples.pop((event.executor, event.node, sample.key, sample.time_ns, sample.pid), None)
        elif isinstance(event, TryLaunched):
            if event.key in self.starts:
                self.tries[event.task_id, event.try_id] = TryKey(event.key)
        elif isinstance(event, TryStarted | TryEnded):  # an ended try must not be shown as running
            self.tries.pop((event.task_id, event.try_id), None)

    def events(self) -> list[Event]:
        """Return the rest as events, with the times at which they happened."""
        found: list[Event] = []
        for (task_id, try_id), key in self.tries.items():
            time_ns, place = self.starts[key]
            found.append(TryStarted(time_ns, task_id, try_id, place))
        by_node: dict[tuple[str, str], list[Sample]] = {}
        for (label, node, *_), sample in self.samples.items():
            by_node.setdefault((label, node), []).append(sample)
        for (label, node), samples in by_node.items():
            # The event has the time of its last sample, as when a node reports.
            samples.sort(key=lambda sample: sample.time_ns)
            for at in range(0, len(samples), _MOST_SAMPLES):
                part = tuple(samples[at : at + _MOST_SAMPLES])
                found.append(Sampled(part[-1].time_ns, label, "", node, "", part))
        return sorted(found, key=lambda event: event.time_ns)


def _files_of(log_path: Path) -> Iterator[tuple[str, Path]]:
    """Return the report files of the run of a log, each with the label of its executor."""
    for directory in sorted(log_path.parent.parent.glob(f"*/{DIRECTORY}")):
        for name in names_in(directory):
            yield directory.parent.name, directory / name


def _of(log_path: Path) -> tuple[str, int]:
    """Return the run of a log, and its epoch. Raises LogError."""
    with LogReader(log_path) as reader:
        reader.read(1, final=True)
        if reader.run_id is None or reader.epoch is None:
            raise LogError(f"{log_path} is empty")
        return reader.run_id, reader.epoch


def _missing(log_path: Path, files: list[tuple[str, Path]], logger: logging.Logger) -> list[Event]:
    """Return the events of the files that the log does not have. Raises LogError, OSError."""
    left, damaged = _Left(), 0
    for label, path in files:
        try:
            damaged += left.read(label, path)
        except OSError as error:
            logger.warning("%s cannot be read: %s", path, error)
    if damaged:
        logger.warning("%d lines that workers wrote about their use of resources are damaged", damaged)
    if not left.samples and not left.starts:
        return []
    with LogReader(log_path) as reader:
        while rows := reader.read(final=True).rows:
            for row in rows:
                if row[0] in _TOLD:
                    left.drop(row)
    return left.events()
