"""The two kinds of staging methods, made of something that can move one file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from flow_core.errors import ConfigurationError
from flow_core.files import File
from flow_core.interfaces.call import NodeContext, TaskStep
from flow_core.interfaces.staging import Digests, Direction, Staging, Transfer
from flow_staging.transfer.failures import Refused, staging_error
from flow_staging.transfer.pool import Job, TransferPool
from flow_staging.transfer.retry import Control

NODE_THREADS = 4
"""How many files of one task are moved at once on a node."""


class Mover(Protocol):
    """Moves one file, blocking. Plain picklable data: the same works on the submit side and on a node.

    Attributes:
        schemes_in: Schemes of the URLs it brings in.
        schemes_out: Schemes of the URLs it brings out.
        timeout_s: Longest time for one file.
    """

    @property
    def schemes_in(self) -> tuple[str, ...]:
        """Return the schemes it brings in."""
        ...

    @property
    def schemes_out(self) -> tuple[str, ...]:
        """Return the schemes it brings out."""
        ...

    @property
    def timeout_s(self) -> float:
        """Return the longest time for one file."""
        ...

    def bring_in(self, file: File, path: Path, control: Control) -> str:
        """Put the file at the path, whole or not at all; raises Dropped or Refused.

        Returns:
            The digest of the content, hexadecimal, where the other side states one; else empty.
        """
        ...

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> Sent:
        """Bring the content of a file there without showing it yet; raises Dropped or Refused, and nothing is left.

        ``alone`` tells that no other file goes with it, so what is published at once needs no preparation.
        """
        ...


class Sent(Protocol):
    """A file that is there, but not under its name yet."""

    def publish(self) -> None:
        """Show it under its name, whole; raises Dropped or Refused, and nothing new is left."""
        ...

    def discard(self) -> None:
        """Take it away; never raises."""
        ...


def receive(mover: Mover, transfer: Transfer, control: Control) -> str:
    """Bring one file in; return its digest if it is known, as ``Mover.bring_in`` does.

    Raises:
        StagingError: it failed; the message names URL, task and reason.
    """
    with _named(transfer):
        _check_name(transfer.local_path)
        return mover.bring_in(transfer.file, transfer.local_path, control)


class Outgoing:
    """The files of one task that go out together: all are sent before the first is published. Any thread."""

    def __init__(self, mover: Mover, alone: bool) -> None:
        self._mover = mover
        self._alone = alone
        self._sent: list[tuple[Transfer, Sent]] = []

    def send(self, transfer: Transfer, control: Control) -> None:
        """Send one; raises StagingError."""
        with _named(transfer):
            _check_name(transfer.local_path)
            if not transfer.local_path.is_file():
                raise Refused("the app did not make this file")
            self._sent.append((transfer, self._mover.send(transfer, control, alone=self._alone)))

    def publish(self) -> None:
        """Show them all, or take away what is not shown yet; raises StagingError."""
        try:
            while self._sent:
                transfer, sent = self._sent.pop()
                with _named(transfer):
                    sent.publish()
        finally:
            self.discard()

    def discard(self) -> None:
        """Take away what is not shown; never raises."""
        while self._sent:
            self._sent.pop()[1].discard()


@contextmanager
def _named(transfer: Transfer) -> Iterator[None]:
    """Make errors name the file they belong to."""
    try:
        yield
    except Exception as error:
        raise staging_error(transfer, error) from error


class SeparateTaskStaging(Staging):
    """Moves files on the submit side, on a few threads of its own: for executors that share its file system."""

    def __init__(self, mover: Mover, *, threads: int, name: str) -> None:
        if threads < 1:
            raise ConfigurationError(f"{type(self).__name__}(threads={threads!r}): at least 1 thread is needed")
        self._mover = mover
        self._pool = TransferPool(threads, name)

    def can_stage_in(self, file: File) -> bool:
        """Tell by the scheme."""
        return file.scheme in self._mover.schemes_in

    def can_stage_out(self, file: File) -> bool:
        """Tell by the scheme."""
        return file.scheme in self._mover.schemes_out

    def stage(self, transfers: Sequence[Transfer]) -> Future[Digests]:
        """Move the files of one direction; does not block."""
        if not transfers or transfers[0].direction is Direction.IN:
            return self._pool.submit([Job(each.file.url, partial(self._receive, each)) for each in transfers])
        outgoing = Outgoing(self._mover, len(transfers) == 1)
        jobs = [Job("", partial(self._send, outgoing, each)) for each in transfers]
        return self._pool.submit(jobs, last=partial(_settle, outgoing))

    def close(self) -> None:
        """Cut what is still going; returns within 5 s."""
        self._pool.close()

    def _receive(self, transfer: Transfer, stop: threading.Event) -> str:
        return receive(self._mover, transfer, Control(self._mover.timeout_s, stop))

    def _send(self, outgoing: Outgoing, transfer: Transfer, stop: threading.Event) -> None:
        outgoing.send(transfer, Control(self._mover.timeout_s, stop))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class InTaskStaging(Staging):
    """Moves files on the node, around the function: for executors that do not share the submit side's file system."""

    def __init__(self, mover: Mover) -> None:
        self._mover = mover

    def can_stage_in(self, file: File) -> bool:
        """Tell by the scheme."""
        return file.scheme in self._mover.schemes_in

    def can_stage_out(self, file: File) -> bool:
        """Tell by the scheme."""
        return file.scheme in self._mover.schemes_out

    def step(self, transfers: Sequence[Transfer]) -> TaskStep:
        """Return data that moves the files on the node."""
        return MoveStep(self._mover, tuple(transfers))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@dataclass(frozen=True, slots=True)
class MoveStep:
    """Files to move around a function: those coming in before it, those going out after it, if it did not fail."""

    mover: Mover
    transfers: tuple[Transfer, ...]

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Move, call, move; raises StagingError or what the function raises."""
        self._move(Direction.IN, where)
        result = inner()
        self._move(Direction.OUT, where)
        return result

    def _move(self, direction: Direction, where: NodeContext) -> None:
        transfers = [on_node(transfer, where) for transfer in self.transfers if transfer.direction is direction]
        if not transfers:
            return
        if direction is Direction.IN:
            self._each(partial(receive, self.mover), transfers, where)
            return
        outgoing = Outgoing(self.mover, len(transfers) == 1)
        try:
            self._each(outgoing.send, transfers, where)
            outgoing.publish()
        finally:
            outgoing.discard()

    def _each(
        self, work: Callable[[Transfer, Control], str | None], transfers: Sequence[Transfer], where: NodeContext
    ) -> None:
        timeout_s = min(self.mover.timeout_s, where.walltime_s or self.mover.timeout_s)
        if len(transfers) == 1:
            work(transfers[0], Control(timeout_s))
            return
        pool = TransferPool(min(NODE_THREADS, len(transfers)), "staging")
        try:
            jobs = [Job("", partial(_run_on_node, work, transfer, timeout_s)) for transfer in transfers]
            pool.submit(jobs).result(timeout_s * len(transfers) + 60.0)
        finally:
            pool.close()


def _run_on_node(
    work: Callable[[Transfer, Control], str | None], transfer: Transfer, timeout_s: float, stop: threading.Event
) -> None:
    work(transfer, Control(timeout_s, stop))


def _settle(outgoing: Outgoing, failed: bool) -> None:
    if failed:
        outgoing.discard()
    else:
        outgoing.publish()


def on_node(transfer: Transfer, where: NodeContext) -> Transfer:
    """Return the transfer with its path as meant on the node.

    Raises:
        StagingError: the path leaves the working directory.
    """
    path = transfer.local_path
    if where.working_dir is None:
        return transfer
    root = Path(where.working_dir)
    below = path.is_relative_to(root)  # a relative working directory: both are meant from where the task runs
    inside = below or not path.is_absolute()
    path = path if below else root / path
    moved = Transfer(transfer.file, path, transfer.direction, transfer.task_id, transfer.executor)
    if inside and not _real(path, transfer.direction).is_relative_to(root.resolve()):
        raise staging_error(moved, Refused(f"the path leads out of the working directory {root}"))
    return moved


def _real(path: Path, direction: Direction) -> Path:
    """What an incoming file replaces is a name in a directory; what goes out is what the name leads to."""
    return path.resolve() if direction is Direction.OUT else path.parent.resolve() / path.name


def _check_name(path: Path) -> None:
    if path.name in ("", ".", "..") or "\0" in str(path):
        raise Refused(f"{str(path)!r} is not the name of a file; name a file in the URL, or give it a local_path")
