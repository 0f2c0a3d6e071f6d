"""Files that a run has written: the output of its tasks, the logs of blocks and workers, its own log."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from flow.runs.find import Run

_BLOCK = 1 << 16  # bytes that are read at once from the end of a file


def of_task(run: Run, task: int, recorded: tuple[str, ...] = ()) -> list[Path]:
    """Return the files of a task's standard output and error that are there: those named, and its ``AUTO_LOGNAME``."""
    named = [Path(one.removeprefix("file://")) for one in recorded if one]
    own = sorted((run.path / "task_logs").glob(f"*/task_{task:04d}_*"))
    found = [path if path.is_absolute() else Path.cwd() / path for path in named] + own
    return list(dict.fromkeys(path.resolve() for path in found if path.is_file()))


def of_block(run: Run, block: str, executor: str = "*") -> list[Path]:
    """Return the files of a block: its job's output, and the logs of its managers."""
    jobs = [
        path
        for path in sorted((run.path / "submit_scripts").glob(f"*.{executor}.block-{block}.*"))
        if path.suffix in (".out", ".err")
    ]
    return jobs + sorted(run.path.glob(f"{executor}/block-{block}/*/manager.log"))


def of_worker(run: Run, worker: str, executor: str = "*") -> list[Path]:
    """Return the logs of a worker: of that number in each manager, or ``MANAGER/NUMBER`` in one."""
    manager, _, number = worker.rpartition("/")
    return sorted(run.path.glob(f"{executor}/block-*/{manager or '*'}/worker_{number}.log"))


def of_run(run: Run) -> list[Path]:
    """Return the log of the run itself."""
    return [path for path in (run.path / "flow.log",) if path.is_file()]


def last_lines(path: Path, number: int, end: int | None = None) -> list[str]:
    """Return the last lines of a file, or of its first ``end`` bytes; reads no more than needed. Raises OSError."""
    if not number:
        return []
    with path.open("rb") as file:
        at = file.seek(0, 2) if end is None else end
        data = b""
        while at > 0 and data.count(b"\n") <= number:
            step = min(_BLOCK, at)
            at -= step
            file.seek(at)
            data = file.read(step) + data
    return data.decode("utf-8", "replace").splitlines()[-number:]


class Follower:
    """Gives what is added to files, line by line; a last line without an end comes when it has one.

    Args:
        paths: The files.

    Attributes:
        ends: Where each file ended when this began, in bytes: what comes behind is given.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        """Open the files. Raises OSError."""
        self._files = [(path, path.open("rb")) for path in paths]
        self._parts = [b""] * len(self._files)
        self.ends = [file.seek(0, 2) for _, file in self._files]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _path, file in self._files:
            file.close()

    def lines(self) -> list[tuple[Path, str]]:
        """Return the lines that have come since the last call, each with its file."""
        found: list[tuple[Path, str]] = []
        for at, (path, file) in enumerate(self._files):
            *whole, self._parts[at] = (self._parts[at] + file.read()).split(b"\n")
            found += [(path, line.decode("utf-8", "replace")) for line in whole]
        return found
