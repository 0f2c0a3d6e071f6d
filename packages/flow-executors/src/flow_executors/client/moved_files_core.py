"""How far the files of a transfer are, of the bytes of its stream that were taken. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flow_core.files import masked
from flow_core.interfaces.call import FileMoved, FileProgress
from flow_core.remote.script_files import ScriptFile
from flow_executors.wire.files import Entry

EVERY_S = 5.0
"""Seconds between reports on one transfer; those that take less are not reported while they move."""


class MovedFiles:
    """The declared files of one transfer.

    Args:
        files: All that the task declares.
        direction: ``in`` or ``out``.
        now: The time, in seconds.
    """

    def __init__(self, files: Sequence[ScriptFile], direction: str, now: float) -> None:
        self._files = files
        self._direction = direction
        self._begun = self._told_at = now
        self._sizes: dict[int, int] = {}  # declared file -> bytes of all that was listed of it
        self._row: list[tuple[int, int]] = []  # declared file and bytes, in the order of the stream
        self._told = 0

    def listed(self, entries: Iterable[Entry]) -> None:
        """Take the list of what is there; what is not sent of it is at its place already."""
        for entry in entries:
            self._sizes[entry.file] = self._sizes.get(entry.file, 0) + entry.size

    def sent(self, entry: Entry, offset: int) -> None:
        """Note that an entry comes next in the stream, from an offset on."""
        if self._row and self._row[-1][0] == entry.file:
            self._row[-1] = (entry.file, self._row[-1][1] + entry.size - offset)
        else:
            self._row.append((entry.file, entry.size - offset))

    def due(self, now: float) -> bool:
        """Whether it is time for a report."""
        return now - self._told_at >= EVERY_S

    def progress(self, taken: int, now: float) -> list[FileProgress]:
        """Return how far the file is that moves now, after so many bytes of the stream."""
        speed = max(0, taken - self._told) / max(1e-3, now - self._told_at)
        self._told, self._told_at = taken, now
        coming: dict[int, int] = {}
        for file, size in self._row:
            coming[file] = coming.get(file, 0) + size
        for file, size in self._row:
            coming[file] -= size
            if taken < size or not any(coming.values()):
                total = self._sizes.get(file, size)
                moved = max(0, min(total, total - coming[file] - size + min(taken, size)))
                since_s = now - self._begun
                return [FileProgress(self._url(file), self._direction, moved, total, speed, since_s)]
            taken -= size
        return []

    def moved(self) -> list[FileMoved]:
        """Return all of them: they are at their places."""
        return [FileMoved(self._url(n), self._direction, self._files[n].path, size) for n, size in self._sizes.items()]

    def failed(self, error: str, url: str) -> list[FileMoved]:
        """Return the one that could not be moved: the first where it is not known which."""
        for number, file in enumerate(self._files):
            if url in (file.place, file.path):
                return [FileMoved(self._url(number), self._direction, file.path, -1, error)]
        return [FileMoved(self._url(n), self._direction, self._files[n].path, -1, error) for n in list(self._sizes)[:1]]

    def _url(self, number: int) -> str:
        file = self._files[number]
        return file.url or masked(file.place)
