"""The files of ``flow_core.remote.reports``: what is in them, and how they are read, by whoever reads them.

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

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.sampler import Sample

VERSION = 1
DIRECTORY = "reports"
"""Name of the directory with the files of one executor, in that executor's own."""
SUFFIX = ".reports"
STARTED, SAMPLED = "started", "sampled"
FIELDS = tuple(field.name for field in fields(Sample))


@dataclass(frozen=True, slots=True)
class Reports:
    """What one worker told: starts as (key, time in ns UTC, pid or native id of the thread), and samples."""

    node: str
    pid: int
    starts: tuple[tuple[TryKey, int, int], ...]
    samples: tuple[Sample, ...]


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
        return Sample(**{name: given[name] for name in FIELDS if name in given})


def names_in(directory: Path) -> list[str]:
    """Return the names of the files in a directory; none where it cannot be read."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))
    except OSError:
        return []
