"""Report files of ``flow_core.remote.reports``: their format, and how the driver and the projection read them.

A line is written by one ``write``. The first line of a file says who wrote it, and the fields of samples; each other is
``[kind, ...]``. What has no end yet is no line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from flow_core.interfaces.call import FileProgress, TryKey
from flow_core.interfaces.sampler import Sample
from flow_core.own_files import open_own

VERSION = 1  # of the format; files of a later one are left unread, and their lines not counted as damaged
DIRECTORY = "reports"
"""Name of the directory with the files of one executor, in that executor's own."""
SUFFIX = ".reports"
STARTED, SAMPLED, MOVING = "started", "sampled", "moving"
FIELDS = tuple(field.name for field in fields(Sample))
FILE_FIELDS = tuple(field.name for field in fields(FileProgress))


@dataclass(frozen=True, slots=True)
class Reports:
    """Reports of one worker: starts as (key, time in ns UTC, pid or native id of the thread), samples, moving files."""

    node: str
    pid: int
    starts: tuple[tuple[TryKey, int, int], ...]
    samples: tuple[Sample, ...]
    moving: tuple[tuple[TryKey, tuple[FileProgress, ...]], ...] = ()


class ReportFile:
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
        """Return reports that are new and whole, and the number of lines that cannot be understood.

        Raises:
            NotOwnFile: it is another user's.
            OSError: it cannot be read.
        """
        with open_own(self.path) as stream:
            stream.seek(self._offset)
            data = stream.read()
        # The writer may be killed, or read here, in the midst of a line: its rest comes with the next read, or never.
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        starts: list[tuple[TryKey, int, int]] = []
        samples: list[Sample] = []
        moving: list[tuple[TryKey, tuple[FileProgress, ...]]] = []
        bad = 0
        for line in data[:whole].splitlines():
            try:
                self._take(json.loads(line), starts, samples, moving)
            except (ValueError, TypeError, LookupError):
                bad += 1
        if not starts and not samples and not moving:
            return None, bad
        return Reports(self._node, self._pid, tuple(starts), tuple(samples), tuple(moving)), bad

    def _take(
        self,
        line: Any,
        starts: list[tuple[TryKey, int, int]],
        samples: list[Sample],
        moving: list[tuple[TryKey, tuple[FileProgress, ...]]],
    ) -> None:
        if isinstance(line, dict):
            self._good = int(line["flow_reports"]) <= VERSION
            self._node, self._pid, self._names = str(line["node"]), int(line["pid"]), tuple(line["sample"])
        elif self._good and line[0] == STARTED:
            starts.append((TryKey(int(line[1])), int(line[2]), int(line[3])))
        elif self._good and line[0] == SAMPLED:
            samples += [self._sample(values) for values in line[1]]
        elif self._good and line[0] == MOVING:
            files = [FileProgress(**{name: file[name] for name in FILE_FIELDS if name in file}) for file in line[2]]
            moving.append((TryKey(int(line[1])), tuple(files)))

    def _sample(self, values: Sequence[Any]) -> Sample:
        given = dict(zip(self._names, values, strict=True))
        # By name: workers of another release may have other fields.
        return Sample(**{name: given[name] for name in FIELDS if name in given})


def names_in(directory: Path) -> list[str]:
    """Return the names of the files in a directory; none where it cannot be read."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))
    except OSError:
        return []
