"""Report files, read by the driver: workers without a connection of ours write them (see ``remote.reports``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flow_core.folders import make_directory
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.events import EventKind, Sampled
from flow_core.interfaces.outcome import Place
from flow_core.interfaces.sampler import SamplerSpec
from flow_core.own_files import NotOwnFile
from flow_core.remote.reports import Reporting
from flow_core.remote.sampling_timer import SamplingTimer
from flow_core.report_files import DIRECTORY, ReportFile, Reports, names_in

_TELLING_S = 1.0  # seconds between looks; tasks tell every five


class ReportReader:
    """Reads the files of a directory, and removes those that were read to their end. One thread at a time.

    Attributes:
        damaged: Lines that could not be understood.
        foreign: Why the first file was left alone that is not this user's; empty where there was none.
    """

    def __init__(self, directory: Path) -> None:
        self.damaged = 0
        self.foreign = ""
        self._directory = directory
        self._files: dict[str, ReportFile] = {}

    def read(self) -> list[Reports]:
        """Return new reports. Never raises: a file that cannot be read is tried again the next time."""
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
            # Lock files are kept until the end: by them the processes of a node agree which of them samples it.
            for path in list(self._directory.glob("*.lock")):
                path.unlink()
            self._directory.rmdir()
        return found

    def _find(self) -> None:
        for name in names_in(self._directory):
            if name not in self._files:
                self._files[name] = ReportFile(self._directory / name)

    def _read(self, file: ReportFile) -> Reports | None:
        try:
            report, bad = file.read()
        except NotOwnFile as error:
            self.foreign = self.foreign or str(error)
            return None
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
        reporting: Instructions for workers: the directory, and the sampler.
    """

    def __init__(
        self, context: RunContext, label: str, outstanding: Callable[[], int], sampler: SamplerSpec | None
    ) -> None:
        """Make the directory.

        Args:
            context: The run.
            label: The executor.
            outstanding: Returns the number of tries that workers have.
            sampler: What their tasks are sampled with; None where they only tell of files that they move.

        Raises:
            OSError: the directory cannot be made.
        """
        directory = context.executor_dir / DIRECTORY
        make_directory(directory)
        self.reporting = Reporting(str(directory), sampler)
        self._context = context
        self._label = label
        self._outstanding = outstanding
        self._reader = ReportReader(directory)
        self._begun: set[TryKey] = set()
        self._timer = SamplingTimer(_TELLING_S if sampler is None else sampler.interval_s)
        self._thread = threading.Thread(target=self._run, name=f"flow-reports-{label}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that a try was submitted. Any thread; never blocks."""
        self._timer.wake()

    def close(self, timeout_s: float) -> None:
        """Take what is left, remove the directory, and end. Idempotent."""
        self._timer.end()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while self._timer.next():
            idle = not self._outstanding()  # looked at first: the reports of tries that have ended are there then
            self._tell(self._reader.read())
            if idle:
                self._begun.clear()
                self._timer.rest(lambda: not self._outstanding())
        self._tell(self._reader.finish())
        if self._reader.foreign:
            self._context.logger.warning(
                "what workers of %s wrote about their use of resources is not used: %s",
                self._label,
                self._reader.foreign,
            )
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
            for key, files in one.moving:
                if key not in self._begun:  # sampled tasks report their starts themselves, which changes nothing then
                    self._begun.add(key)
                    since_ns = time.time_ns() - round(max(file.since_s for file in files) * 1e9)
                    context.listener.started([(key, since_ns, Place(self._label, node=one.node, pid=one.pid))])
                context.listener.moving(key, files)
            if one.samples:
                context.events.post(Sampled(time.time_ns(), self._label, "", one.node, "", one.samples))


def collector(context: RunContext, label: str, outstanding: Callable[[], int]) -> ReportCollector | None:
    """Return the collector of the reports of an executor's workers; None where the run wants no samples."""
    if context.sampler is None or EventKind.SAMPLE not in context.events.wants:
        return None
    try:
        return ReportCollector(context, label, outstanding, context.sampler)
    except OSError as error:
        context.logger.warning("tasks of %s are not sampled: %s", label, error)
        return None


def telling(context: RunContext, label: str, outstanding: Callable[[], int]) -> ReportCollector | None:
    """Return a collector for an executor whose tasks move files and are not sampled; None if there can be none."""
    try:
        return ReportCollector(context, label, outstanding, None)
    except OSError as error:
        context.logger.warning("how far files of tasks of %s are is not known: %s", label, error)
        return None


class TryReports:
    """What the tries of one executor report by: all of them if the run wants samples, else those that move files.

    Any thread. Without samples the files are looked at only once a task moves files.

    Args:
        context: The run.
        label: The executor.
        outstanding: Gives the number of tries that are out.
    """

    def __init__(self, context: RunContext, label: str, outstanding: Callable[[], int]) -> None:
        self._label = label
        self._outstanding = outstanding
        self._lock = threading.Lock()
        self._collector = collector(context, label, outstanding)
        self._telling: RunContext | None = None if self._collector is not None else context

    def of(self, call: Call) -> Reporting | None:
        """Return what a try is to report by; None where there is nothing to report."""
        # Steps of Flow's core move no files.
        moves = any(not type(step).__module__.startswith("flow_core.") for step in call.steps)
        if moves and self._telling is not None:
            with self._lock:
                context, self._telling = self._telling, None
                if context is not None:
                    self._collector = telling(context, self._label, self._outstanding)
        reporting = None if self._collector is None else self._collector.reporting
        return None if reporting is None or (reporting.sampler is None and not moves) else reporting

    def wake(self) -> None:
        """Have the files looked at, where they are: a try was handed over."""
        if self._collector is not None:
            self._collector.wake()

    def close(self, timeout_s: float) -> None:
        """Read what is left within the time, and begin no more. Idempotent."""
        with self._lock:  # what is being begun just now is closed, too
            self._telling = None
            found, self._collector = self._collector, None
        if found is not None:
            found.close(timeout_s)
