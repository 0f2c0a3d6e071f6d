"""Staging methods of both kinds (submit side, within the task), made of a mover that can move one file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from flow_core.errors import AppTimeout, ConfigurationError
from flow_core.files import File, masked
from flow_core.interfaces.call import FileProgress, NodeContext, TaskStep, TellFiles
from flow_core.interfaces.outcome import report_read, with_read
from flow_core.interfaces.staging import Brought, Digests, Direction, Progress, Staging, Transfer, Versions
from flow_core.remote.blocked import woken_by
from flow_staging.transfer import sets
from flow_staging.transfer.cache import CachePolicy
from flow_staging.transfer.ending import tidily
from flow_staging.transfer.failures import Final, NotAsStated, PermanentTransferError, staging_error
from flow_staging.transfer.handle import Handle
from flow_staging.transfer.looking import look_at
from flow_staging.transfer.pool import TransferJob, TransferPool
from flow_staging.transfer.retry import Control
from flow_staging.transfer.sets import Lister
from flow_staging.transfer.stated import check, digits_of

NODE_THREADS = 4
"""Threads that move the files of one task on a node: few, since every task of the node has its own."""


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

    def pin(self, file: File) -> str:
        """Return the name under which a run keeps the version of a file, as ``Staging.pin`` says."""
        ...

    def bring_in(self, transfer: Transfer, control: Control) -> str:
        """Put the file at its path, whole or not at all; raises TransientTransferError or PermanentTransferError.

        Returns:
            The digest of the content, hexadecimal, where the other side states one; else empty. With what ``look``
            says of that version, as ``Brought``, where other versions may be there by now.
        """
        ...

    def check_name(self, file: File) -> None:
        """Raise Final for a name that no file of its scheme can have. Pure and cheap."""
        ...

    def look(self, file: File, control: Control) -> str | None:
        """Return which version of a file is there, as ``Look`` says.

        Raises TransientTransferError or PermanentTransferError.
        """
        ...

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> PendingUpload:
        """Bring the content of a file there without showing it yet.

        ``alone`` tells that no other file goes with it, so what is published at once needs no preparation.

        Raises:
            TransientTransferError, PermanentTransferError: it failed, and nothing is left there.
        """
        ...

    def close(self) -> None:
        """Close connections that this process kept for further files; the mover can still be used after that."""
        ...


class PendingUpload(Protocol):
    """A file that is there, but not under its name yet."""

    def publish(self) -> None:
        """Show it under its name, whole.

        Raises TransientTransferError or PermanentTransferError, and nothing new is left.
        """
        ...

    def discard(self) -> None:
        """Take it away; never raises."""
        ...


@runtime_checkable
class Publisher(Protocol):
    """A mover that shows all files of a task by one request."""

    def publish_all(self, sent: Sequence[PendingUpload]) -> None:
        """Show them under their names.

        Raises TransientTransferError or PermanentTransferError, and nothing new is left of those not shown.
        """
        ...


def receive(mover: Mover, transfer: Transfer, control: Control, listings: sets.Listings | None = None) -> str:
    """Bring one file in; return its digest if it is known, as ``Mover.bring_in`` does.

    ``listings`` is what tasks of the run have seen of directories, where they see the same.

    Raises:
        StagingError: it failed; the message names URL, task and reason.
        WrongDigest: it has another digest than its File says; it is not left there.
    """
    try:  # as _named() does, but for the CPU time of its generator
        return _received(mover, transfer, control, listings)
    except AppTimeout:
        raise
    except Exception as error:
        raise staging_error(transfer, error) from error


def _received(mover: Mover, transfer: Transfer, control: Control, listings: sets.Listings | None) -> str:
    _check_name(transfer.local_path)
    # Each file of the set goes through receive() again, with its own name in errors.
    if transfer.file.kind != "file" and isinstance(mover, Lister):
        return sets.receive(partial(receive, mover), mover, transfer, control, listings)
    learnt = mover.bring_in(transfer, control)
    stated = transfer.file.digest
    # A mover that has computed the stated digest saves reading the file a second time.
    if stated is None or learnt == digits_of(stated):
        return learnt
    try:
        return check(transfer.local_path, stated, control)
    except NotAsStated:
        # Not left there: a task that is tried again would take it for the right file.
        transfer.local_path.unlink(missing_ok=True)
        raise


class Outgoing:
    """The files of one task that go out together: all are sent before the first is published. Any thread."""

    def __init__(self, mover: Mover, alone: bool) -> None:
        self._mover = mover
        self._alone = alone
        self._sent: list[tuple[Transfer, PendingUpload]] = []

    def send(self, transfer: Transfer, control: Control) -> None:
        """Send one file, or all files of a set, without showing it yet; raises StagingError."""
        with _named(transfer):
            _check_name(transfer.local_path)
            if transfer.file.kind == "file" and not transfer.local_path.is_file():
                raise PermanentTransferError(_unfit(transfer.local_path))
            if transfer.file.kind != "file" and isinstance(self._mover, Lister):
                # A set is several files: none is shown before all are there.
                self._alone = False
                sets.each(self.send, sets.of_this_side(transfer), control)
                return
            self._sent.append((transfer, self._mover.send(transfer, control, alone=self._alone)))

    def publish(self) -> None:
        """Show them all, or take away what is not shown yet; raises StagingError."""
        try:
            if isinstance(self._mover, Publisher) and len(self._sent) > 1:
                self._publish_together(self._mover)
            while self._sent:
                transfer, sent = self._sent.pop()
                with _named(transfer):
                    sent.publish()
        finally:
            self.discard()

    def _publish_together(self, mover: Publisher) -> None:
        try:
            mover.publish_all([sent for _, sent in self._sent])
        except AppTimeout:
            raise
        except Exception as error:
            said = str(error)
            # The error is of one request for all: the file that its text names is the likeliest cause.
            named = (transfer for transfer, _ in self._sent if transfer.file.path in said)
            raise staging_error(next(named, self._sent[0][0]), error) from error
        self._sent.clear()

    def discard(self) -> None:
        """Take away what is not shown; never raises."""
        while self._sent:
            self._sent.pop()[1].discard()


@contextmanager
def _named(transfer: Transfer) -> Iterator[None]:
    """Turn errors into StagingErrors that name the file, the task and the reason."""
    try:
        yield
    except AppTimeout:  # the task's own, raised into whatever it was doing
        raise
    except Exception as error:
        raise staging_error(transfer, error) from error


class SeparateTaskStaging(Staging):
    """Moves files on the submit side, on a few threads of its own: for executors that share its file system."""

    checks_digests = True
    makes_directories = True  # on its threads, which wait for the other side anyway

    def __init__(self, mover: Mover, *, threads: int, name: str) -> None:
        if threads < 1:
            raise ConfigurationError(f"{type(self).__name__}(threads={threads!r}): at least 1 thread is needed")
        self._mover = mover
        self.refresh = _refresh_of(mover)
        self.at_once = threads
        self._pool = TransferPool(threads, name)
        self._run = _new_run()
        self._listings = sets.Listings()

    def can_stage_in(self, file: File) -> bool:
        """Return whether the scheme of the URL is one that this method fetches."""
        return file.scheme in self._mover.schemes_in

    def can_stage_out(self, file: File) -> bool:
        """Return whether the scheme of the URL is one that this method sends to."""
        return file.scheme in self._mover.schemes_out

    def wrong_with(self, file: File, direction: Direction) -> str:
        """Return what is wrong with the name of a file, empty if nothing is; asks no server."""
        return _wrong_with(self._mover, file)

    def stage(self, transfers: Sequence[Transfer]) -> Future[Digests]:
        """Move the files of one direction; does not block."""
        if not transfers or transfers[0].direction is Direction.IN:
            return self._pool.submit(
                [TransferJob(each.file.url, partial(self._receive, each), _host_of(each.file)) for each in transfers]
            )
        outgoing = Outgoing(self._mover, len(transfers) == 1)
        jobs = [TransferJob("", partial(self._send, outgoing, each), _host_of(each.file)) for each in transfers]
        # Publishing is the last step of the group: a task whose stage-out fails half-way has published nothing.
        return self._pool.submit(jobs, last=partial(_settle, outgoing))

    def look(self, files: Sequence[File]) -> Future[Versions]:
        """Look at files on the other side; does not block."""
        return look_at(self._pool, partial(_look, self._mover), files, [_host_of(file) for file in files])

    def close(self) -> None:
        """Stop the transfers that run, and close kept connections; returns within 5 s."""
        # The pool first: connections that it uses must not be closed under it.
        self._pool.close()
        self._mover.close()
        self._listings.clear()
        self._run = _new_run()

    def _receive(self, transfer: Transfer, stop: Handle) -> str:
        try:
            os.mkdir(str(transfer.local_path).rpartition("/")[0])
        except OSError:
            pass  # what moves it makes all that are missing, or says what is wrong
        alike = transfer.run and (transfer.file.refresh or self.refresh) != "task"
        listings = self._listings if alike else None
        return receive(self._mover, transfer, Control(self._mover.timeout_s, stop, self._run), listings)

    def _send(self, outgoing: Outgoing, transfer: Transfer, stop: Handle) -> str:
        outgoing.send(transfer, Control(self._mover.timeout_s, stop))
        return digits_of(transfer.file.digest)  # which the task has looked at

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class InTaskStaging(Staging):
    """Moves files on the node, around the function: for executors that do not share the submit side's file system."""

    checks_digests = True

    def __init__(self, mover: Mover) -> None:
        self._mover = mover
        self.refresh = _refresh_of(mover)
        self._run = _new_run()
        self._looks = TransferPool(NODE_THREADS, "staging-look")

    def can_stage_in(self, file: File) -> bool:
        """Return whether the scheme of the URL is one that this method fetches."""
        return file.scheme in self._mover.schemes_in

    def can_stage_out(self, file: File) -> bool:
        """Return whether the scheme of the URL is one that this method sends to."""
        return file.scheme in self._mover.schemes_out

    def wrong_with(self, file: File, direction: Direction) -> str:
        """Return what is wrong with the name of a file, empty if nothing is; asks no server."""
        return _wrong_with(self._mover, file)

    def look(self, files: Sequence[File]) -> Future[Versions] | None:
        """Look at files on the other side, from this machine; does not block."""
        return look_at(self._looks, partial(_look, self._mover), files, [_host_of(file) for file in files])

    def pin(self, file: File) -> str:
        """Have all nodes see one version, unless each task sees its own."""
        if file.kind == "file":
            return self._mover.pin(file)
        # Another name than that of a file of the same URL.
        name = self._mover.pin(file) if isinstance(self._mover, Lister) else ""
        return f"directory {name}" if name else ""

    def step(self, transfers: Sequence[Transfer]) -> TaskStep:
        """Return data that moves the files on the node."""
        return self.step_by(self._mover, transfers)

    def step_by(self, mover: Mover, transfers: Sequence[Transfer]) -> TaskStep:
        """Return data that moves the files by a mover that is for them alone."""
        return MoveStep(mover, tuple(transfers), self._run)

    def close(self) -> None:
        """Share no files without versions with later transfers, and close the connections of look-ups.

        Nodes close theirs by themselves.
        """
        self._looks.close()
        self._mover.close()
        self._run = _new_run()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@dataclass(frozen=True, slots=True)
class MoveStep:
    """Files to move around a function: those coming in before it, those going out after it, if it did not fail."""

    mover: Mover
    transfers: tuple[Transfer, ...]
    use: str = ""

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Move, call, move; raises StagingError or what the function raises."""
        # Filled also when a try fails: tasks that come later must see the versions that this one has seen.
        read: dict[str, str] = {}
        try:
            self._move(Direction.IN, where, read)
            result = inner()
            self._move(Direction.OUT, where, read)
        except BaseException as error:
            report_read(error, read)
            raise
        return with_read(result, read) if read else result

    def _move(self, direction: Direction, where: NodeContext, read: dict[str, str]) -> None:
        """Move the files of one direction; note the versions that came in, where they are to be reported."""
        transfers = [on_node(transfer, where) for transfer in self.transfers if transfer.direction is direction]
        if not transfers:
            return
        handle = Handle()
        # tidily: SIGTERM of a worker unwinds the transfer; woken_by: a kill or walltime of a thread ends its wait.
        with tidily(where.main_thread), woken_by(handle.set), handle:
            if direction is Direction.IN:
                self._each(partial(self._receive, read), transfers, where, handle)
                return
            outgoing = Outgoing(self.mover, len(transfers) == 1)
            try:
                self._each(outgoing.send, transfers, where, handle)
                outgoing.publish()
            finally:
                outgoing.discard()

    def _receive(self, read: dict[str, str], transfer: Transfer, control: Control) -> None:
        learnt = receive(self.mover, transfer, control)
        if not isinstance(learnt, Brought):
            return
        if transfer.versioned:
            read[transfer.file.url] = learnt.version
        # Only where no version was prescribed: the first task that ends tells the others which one the run sees.
        if transfer.pin and not transfer.version and learnt.validator:
            read[transfer.pin] = learnt.validator

    def _each(
        self,
        work: Callable[[Transfer, Control], str | None],
        transfers: Sequence[Transfer],
        where: NodeContext,
        handle: Handle,
    ) -> None:
        # A transfer that takes longer than the task's walltime cannot help it.
        timeout_s = min(self.mover.timeout_s, where.walltime_s or self.mover.timeout_s)
        if len(transfers) == 1:
            # The usual case needs no pool and no thread.
            _run_on_node(work, transfers[0], timeout_s, self.use, where.tell, handle)
            return
        threads = min(NODE_THREADS, len(transfers))
        pool = TransferPool(threads, "staging", in_all=threads)
        try:
            jobs = [
                TransferJob("", partial(_run_on_node, work, transfer, timeout_s, self.use, where.tell))
                for transfer in transfers
            ]
            moving = pool.submit(jobs)
            handle.cut_by(moving.cancel)
            # A bound for a broken pool only: each file has its own deadline. 60 s are for ending.
            moving.result(timeout_s * len(transfers) + 60.0)
        finally:
            pool.close()


def _run_on_node(
    work: Callable[[Transfer, Control], str | None],
    transfer: Transfer,
    timeout_s: float,
    use: str,
    tell: TellFiles | None,
    handle: Handle,
) -> None:
    meter = handle.meter
    if tell is not None:
        meter.tell = partial(_tell, tell, transfer)
    try:
        work(transfer, Control(timeout_s, handle, use))
    finally:
        # Only of transfers that were reported as moving: short ones report nothing at all.
        if tell is not None and meter.was_told:
            _tell(tell, transfer, meter.progress(), 0.0, done=True)


def _tell(tell: TellFiles, transfer: Transfer, far: Progress, since_s: float, *, done: bool = False) -> None:
    url, total = masked(transfer.file.url), -1 if far.total is None else far.total
    tell([FileProgress(url, transfer.direction.value, far.moved, total, far.speed, since_s, done)])


def _look(mover: Mover, file: File, control: Control) -> str | None:
    if file.kind == "file":
        return mover.look(file, control)
    return sets.look(mover, file, control) if isinstance(mover, Lister) else None


def _wrong_with(mover: Mover, file: File) -> str:
    try:
        mover.check_name(file)
    except Final as error:
        return str(error)
    return ""


def _refresh_of(mover: Mover) -> str:
    """Return how often the other side is asked for another version: by each task, where nothing is kept."""
    cache = getattr(mover, "cache", None)
    return cache.refresh if isinstance(cache, CachePolicy) else "task"


def _host_of(file: File) -> str:
    return file.netloc.rpartition("@")[2]


def _new_run() -> str:
    return secrets.token_hex(8)


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
    root = _directory(where.working_dir)
    below = path.is_relative_to(root)  # a relative working directory: both are meant from where the task runs
    inside = below or not path.is_absolute()
    path = path if below else root / path
    moved = replace(transfer, local_path=path, working_dir=where.working_dir)
    # A path that the user chose outside is meant; one that leads out by links or ".." is a mistake or an attack.
    if inside and _leads_out(str(path), str(root), transfer.direction):
        raise staging_error(moved, PermanentTransferError(f"the path leads out of the working directory {root}"))
    return moved


@lru_cache(maxsize=16)
def _directory(text: str) -> Path:
    return Path(text)


def _leads_out(path: str, root: str, direction: Direction) -> bool:
    """Return whether a path, without its links, is not below a directory.

    An incoming file replaces a name, an outgoing one is what its name leads to.
    """
    # Text and no pathlib, which took a good part of the CPU time of a small file on a node.
    folder, _, name = path.rpartition("/")
    above = os.path.realpath(folder or ("/" if path.startswith("/") else "."))
    real = os.path.realpath(path) if direction is Direction.OUT else os.path.join(above, name)
    return not f"{real}/".startswith(f"{os.path.realpath(root).rstrip('/')}/")


def _unfit(path: Path) -> str:
    is_there = path.exists()
    return "it is no plain file, and only those are staged" if is_there else "the app did not make this file"


def _check_name(path: Path) -> None:
    if path.name in ("", ".", "..") or "\0" in str(path):
        raise PermanentTransferError(
            f"{str(path)!r} is not the name of a file; name a file in the URL, or give it a local_path"
        )
