"""The driver's side of ``flow_core.remote.reports``: files by which workers without a connection of ours report."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.events import EventKind, Sampled
from flow_core.interfaces.outcome import Place
from flow_core.interfaces.sampler import Sample
from flow_core.remote.reports import SAMPLED, STARTED, SUFFIX, VERSION, Reporting
from flow_core.remote.turns import Turns

_FIELDS = tuple(field.name for field in fields(Sample))


@dataclass(frozen=True, slots=True)
class Reports:
    """What one worker told: starts as (key, time in ns UTC, pid or native id of the thread), and samples."""

    node: str
    pid: int
    starts: tuple[tuple[TryKey, int, int], ...]
    samples: tuple[Sample, ...]


class _File:
    """One file, as far as it was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.worker, _, number = path.name.removesuffix(SUFFIX).rpartition("-")
        self.number = int(number) if number.isdecimal() else 0
        self._offset = 0
        self._node = ""
        self._pid = 0
        self._names: tuple[str, ...] = ()
        self._good = True

    def read(self) -> tuple[Reports | None, int]:
        """Return what is new and whole, and the number of lines that cannot be understood. Raises OSError."""
        with open(self.path, "rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        starts: list[tuple[TryKey, int, int]] = []
        samples: list[Sample] = []
        bad = 0
        for line in data[:whole].splitlines():
            try:
                self._take(json.loads(line), starts, samples)
            except (ValueError, TypeError, LookupError):
                bad += 1
        if not starts and not samples:
            return None, bad
        return Reports(self._node, self._pid, tuple(starts), tuple(samples)), bad

    def _take(self, line: Any, starts: list[tuple[TryKey, int, int]], samples: list[Sample]) -> None:
        if isinstance(line, dict):
            self._good = int(line["flow_reports"]) <= VERSION
            self._node, self._pid, self._names = str(line["node"]), int(line["pid"]), tuple(line["sample"])
        elif self._good and line[0] == STARTED:
            starts.append((TryKey(int(line[1])), int(line[2]), int(line[3])))
        elif self._good and line[0] == SAMPLED:
            samples += [self._sample(values) for values in line[1]]

    def _sample(self, values: Sequence[Any]) -> Sample:
        given = dict(zip(self._names, values, strict=True))
        return Sample(**{name: given[name] for name in _FIELDS if name in given})


class ReportReader:
    """Reads the files of a directory, and removes those that were read to their end. One thread at a time.

    Attributes:
        damaged: Lines that could not be understood.
    """

    def __init__(self, directory: Path) -> None:
        self.damaged = 0
        self._directory = directory
        self._files: dict[str, _File] = {}

    def read(self) -> list[Reports]:
        """Return what is new. Never raises: a file that cannot be read is tried again the next time."""
        self._find()
        newest: dict[str, int] = {}
        for file in self._files.values():
            newest[file.worker] = max(newest.get(file.worker, 0), file.number)
        found = []
        for name, file in list(self._files.items()):
            report = self._read(file)
            if report is not None:
                found.append(report)
            elif file.number < newest[file.worker]:  # its writer has begun another: nothing follows
                self._remove(name)
        return found

    def finish(self) -> list[Reports]:
        """Return what is left, and remove the directory with all in it."""
        found = self.read()
        for name in list(self._files):
            self._remove(name)
        with suppress(OSError):
            for path in list(self._directory.glob("*.lock")):
                path.unlink()
            self._directory.rmdir()
        return found

    def _find(self) -> None:
        try:
            with os.scandir(self._directory) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))
        except OSError:
            return
        for name in names:
            if name not in self._files:
                self._files[name] = _File(self._directory / name)

    def _read(self, file: _File) -> Reports | None:
        try:
            report, bad = file.read()
        except OSError:
            return None
        self.damaged += bad
        return report

    def _remove(self, name: str) -> None:
        path = self._files.pop(name).path
        with suppress(OSError):
            path.unlink()


class ReportCollector:
    """Takes what workers report in files to the run, from a daemon thread that rests while no try is outstanding.

    Attributes:
        reporting: What workers are to be told.
    """

    def __init__(self, context: RunContext, label: str, outstanding: Callable[[], int]) -> None:
        """Make the directory. ``outstanding`` returns the number of tries that workers have.

        Raises:
            OSError: the directory cannot be made.
        """
        assert context.sampler is not None
        directory = context.executor_dir / "reports"
        directory.mkdir(parents=True, exist_ok=True)
        self.reporting = Reporting(str(directory), context.sampler)
        self._context = context
        self._label = label
        self._outstanding = outstanding
        self._reader = ReportReader(directory)
        self._turns = Turns(context.sampler.interval_s)
        self._thread = threading.Thread(target=self._run, name=f"flow-reports-{label}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that a try was submitted. Any thread; never blocks."""
        self._turns.wake()

    def close(self, timeout_s: float) -> None:
        """Take what is left, remove the directory, and end. Idempotent."""
        self._turns.end()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while self._turns.next():
            idle = not self._outstanding()  # looked at first: what ended tries told is there then
            self._tell(self._reader.read())
            if idle:
                self._turns.rest(lambda: not self._outstanding())
        self._tell(self._reader.finish())
        if self._reader.damaged:
            self._context.logger.warning(
                "%d lines that workers of %s wrote about their use of resources were damaged",
                self._reader.damaged, self._label,
            )  # fmt: skip

    def _tell(self, found: list[Reports]) -> None:
        context = self._context
        for one in found:
            if one.starts:
                context.listener.started(
                    [(key, time_ns, Place(self._label, node=one.node, pid=one.pid)) for key, time_ns, _ in one.starts]
                )
            if one.samples:
                context.events.post(Sampled(time.time_ns(), self._label, "", one.node, "", one.samples))


def collector(context: RunContext, label: str, outstanding: Callable[[], int]) -> ReportCollector | None:
    """Return what collects the reports of an executor's workers; None where the run wants no samples."""
    if context.sampler is None or EventKind.SAMPLE not in context.events.wants:
        return None
    try:
        return ReportCollector(context, label, outstanding)
    except OSError as error:
        context.logger.warning("tasks of %s are not sampled: %s", label, error)
        return None
