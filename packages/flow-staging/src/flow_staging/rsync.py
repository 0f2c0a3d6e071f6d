"""Rsync staging: files of the submit side for workers that do not see its file system, by rsync over ssh."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from flow_core.errors import ConfigurationError
from flow_core.files import File, Glob
from flow_core.interfaces.call import TaskStep
from flow_core.interfaces.staging import Direction, Transfer
from flow_core.remote.output_sets import matching
from flow_core.remote.staged import home_of
from flow_core.starting import starting
from flow_staging.rsync_batch import Mirror, WaitingLists, Wanted, version_of
from flow_staging.rsync_partials import PartialNames, Place, new_name
from flow_staging.transfer.cache import DEFAULT_CACHE, ContentCache
from flow_staging.transfer.cache_entry import Entry
from flow_staging.transfer.cache_place import cache_root
from flow_staging.transfer.expression import call_of
from flow_staging.transfer.failures import Final, PermanentTransferError, TransientTransferError, local_failure
from flow_staging.transfer.limits import DEFAULT_LIMITS, Bound, SizeLimits
from flow_staging.transfer.method import InTaskStaging, PendingUpload
from flow_staging.transfer.publish import Partial
from flow_staging.transfer.retry import DEFAULT_RETRY, Control, Pace, RetryPolicy, Tries
from flow_staging.transfer.verify import Remote

_TAIL = 500  # characters of rsync's words in an error: its last lines say what is wrong
_LOOK_S = 0.5  # seconds between looks at deadline, disk and progress while rsync runs
_FINAL_CODES = frozenset({1, 2, 3, 4, 6, 11, 22, 23, 24, 25, 126, 127})  # any other may be ssh's own
# The exit code is often ssh's or that of any broken transfer: these words tell what no try can change.
_FINAL = re.compile(
    r"permission denied|host key verification failed|no such file|no space left|quota exceeded"
    r"|command not found|read-only file system|could not resolve|is a directory",
    re.IGNORECASE,
)
_FAR = "--info=progress2"
_MOVED = re.compile(rb"[\r\n] *([0-9,]+) +[0-9]+%")
_LINE = 200  # bytes of a line of progress at most
# Of a source only: a target that is missing is no missing input.
_ABSENT = re.compile(r"link_stat .* failed: no such file", re.IGNORECASE)
_NAMES = ("--files-from=-", "--from0", "--no-dirs", "--")
"""Move the files whose paths are read from standard input: on the command line rsync takes names as patterns."""
# --inplace: a broken transfer leaves its bytes in the part, from which the next try goes on.
_IN = ("--inplace", "--no-relative", "--times")
# --delay-updates: outputs are renamed at the end, so that a broken transfer shows none of them.
_OUT = ("--delay-updates", "--no-implied-dirs")
_SKIPPED = re.compile(r"^(.*) is over max-size$", re.MULTILINE)
_HINTS = (
    ("permission denied (", "ssh refuses the login: put a key where the worker's ssh finds it (worker_init)"),
    ("host key verification failed", "the submit side's host key is not known on the node (known_hosts)"),
    ("command not found", "rsync must be installed on both sides"),
    ("non-directory with a directory", "it is not a plain file but a directory"),
    ("no space left", "the disk is full"),
)


@dataclass(frozen=True, slots=True)
class RsyncMover:
    """Moves by rsync: verified by rsync's own checksum, resumed by its delta. Small files come many at once.

    Attributes:
        prefix: The submit side as nodes reach it.
        ssh: The ssh command.
        retry: How often and how long to try.
        wanted: What is known of the files that come in.
        limits: How large they may be.
        partial: Name of the directories in which outputs are made; empty for a new one.
    """

    prefix: str
    ssh: str
    retry: RetryPolicy
    wanted: tuple[Wanted, ...] = ()
    limits: SizeLimits = DEFAULT_LIMITS
    partial: str = ""

    @property
    def schemes_in(self) -> tuple[str, ...]:
        """Return the schemes of URLs that can be fetched."""
        return ("file",)

    @property
    def schemes_out(self) -> tuple[str, ...]:
        """Return the schemes of URLs that can be sent to."""
        return ("file",)

    @property
    def timeout_s(self) -> float:
        """Return the longest time for one file."""
        return self.retry.timeout_s

    def pin(self, file: File) -> str:
        """Return nothing: which version of a file of the submit side comes is known when a task is planned."""
        return ""

    def bring_in(self, transfer: Transfer, control: Control) -> str:
        """Fetch one file of the submit side, once a node and version.

        Raises TransientTransferError or PermanentTransferError.
        """
        file, path = transfer.file, transfer.local_path.absolute()
        if file.kind == "directory":
            self._bring_tree(_path_of(file), path, control)
            return ""
        wanted = next((each for each in self.wanted if each.path == file.path), Wanted(file.path))
        # The size is known from the submit side: what is too large is refused before a login.
        Bound(self.limits, path.parent).announced(wanted.size, 0)
        if wanted.listed and Mirror(home_of(path), self.prefix).place(wanted, path, self._run_for_many, control):
            return ""
        # Size and time of change when the task was planned: only exactly this version may come from the cache.
        if wanted.version:
            name = f"rsync {self.prefix}:{file.path}"
            root = cache_root(None, path, transfer.working_dir)
            with ContentCache(root, DEFAULT_CACHE).entry(name, control, private=True) as entry:
                if entry is not None and self._cached(entry, name, wanted, path, control):
                    return ""
        with Partial(path) as part:
            self._fetch(wanted, part, control)
            part.publish()
        return ""

    def _cached(self, entry: Entry, name: str, wanted: Wanted, path: Path, control: Control) -> bool:
        """Put the version that was planned at a path by way of the cache; False if that has no room for it."""
        version = entry.newest()
        if version is not None and version.validator == wanted.version and entry.place(version, path, ""):
            return True
        if not entry.has_room(wanted.size):
            return False
        try:
            with entry.part() as part:
                found = version_of(self._fetch(wanted, part, control))
                # A file that was changed since the task was planned is brought, but not kept as the planned version.
                kept = entry.keep(part, name, Remote(validator=found)) if found == wanted.version else None
                if kept is None or not entry.place(kept, path, ""):
                    part.move_to(path)
        except OSError:
            return False
        return True

    def _fetch(self, wanted: Wanted, part: Partial, control: Control) -> os.stat_result:
        """Fetch one file by an rsync of its own; return its status (size, times) after that."""
        tries = Tries(self.retry, control)
        while True:
            before = os.stat(part.path).st_size
            try:
                arguments = (*_IN, *self._bounded(), *_NAMES, f"{self.prefix}:/", str(part.path))
                size = self._rsync(
                    control,
                    *arguments,
                    names=[wanted.path],
                    bound=Bound(self.limits, part.path),
                    total=wanted.size or None,
                )[0]
                break
            except TransientTransferError as error:
                tries.failed(error, os.stat(part.path).st_size - before)
        found = os.stat(part.path)
        # rsync verifies what it sends; this finds a disk or another process that changed the part.
        if size != found.st_size:
            raise PermanentTransferError(f"rsync sent {size} bytes, {found.st_size} arrived")
        return found

    def check_name(self, file: File) -> None:
        """Take any: a path may have every name."""

    def look(self, file: File, control: Control) -> str | None:
        """Return None: outputs are files of the submit side, which looks at them itself."""
        return None

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> PendingUpload:
        """Promise to send: rsync itself shows a file only when it is whole."""
        return _Sending(self, transfer, control)

    def publish_all(self, sent: Sequence[PendingUpload]) -> None:
        """Send all outputs of a task: the files by one rsync, which shows them when all are there, trees by another.

        What a broken try has brought waits there, see ``rsync_partials``.

        Raises TransientTransferError or PermanentTransferError.
        """
        outputs = [one for one in sent if isinstance(one, _Sending)]
        # Two calls: files go with --no-dirs, trees with --recursive.
        for trees in (False, True):
            left = [_Leaving.of(one) for one in outputs if (one.transfer.file.kind != "file") is trees]
            while left:  # one turn, unless one of them lies in another
                # rsync visits each path once: a tree and a file in it go one after the other.
                apart = [one for n, one in enumerate(left) if not any(one.meets(other) for other in left[:n])]
                self._bring_out(apart, outputs[0].control, trees=trees)
                left = [one for one in left if one not in apart]

    def _bring_out(self, outputs: Sequence[_Leaving], control: Control, *, trees: bool) -> None:
        names = [name for one in outputs for name in one.names]
        total = None if trees else sum(_size(one.path) for one in outputs)
        tries, out = Tries(self.retry, control), (*_OUT, f"--partial-dir={self.partial or new_name()}")
        with _named_as(outputs) as root:
            while True:
                try:
                    if trees:
                        self._rsync_trees(control, *out, f"{root}/", f"{self.prefix}:/", names=names)
                    else:
                        self._rsync(control, *out, *_NAMES, f"{root}/", f"{self.prefix}:/", names=names, total=total)
                    return
                except TransientTransferError as error:
                    tries.failed(error)

    def _bring_tree(self, name: str, path: Path, control: Control) -> None:
        """Fetch a directory, which gets its name when it is whole; what lies there is replaced."""
        tries, bound = Tries(self.retry, control), Bound(self.limits, path.parent)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Beside its place, so that the rename stays within one file system.
            home = tempfile.mkdtemp(prefix=".flow-rsync-", dir=path.parent)
        except OSError as error:
            raise local_failure(error, f"cannot write below {path.parent}") from error
        try:
            while True:
                try:
                    arguments = ("--times", *self._bounded(), f"{self.prefix}:/", home)
                    self._rsync_trees(control, *arguments, names=[name], bound=bound)
                    break
                except TransientTransferError as error:
                    tries.failed(error)
            there = Path(home, name.lstrip("/"))
            if not there.is_dir():
                raise PermanentTransferError("it is no directory")
            if path.is_dir():
                # Moved aside, not removed: between the two renames the name is missing for a moment only.
                os.rename(path, Path(home, ".older"))
            os.rename(there, path)
        except OSError as error:
            raise local_failure(error, f"cannot write {path}") from error
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _bounded(self) -> tuple[str, ...]:
        """Return options that leave out files beyond the limit, and name them."""
        most = self.limits.max_bytes
        return () if most is None else (f"--max-size={most}", "--info=skip1")

    def _check_skipped(self, out: str) -> None:
        """Raise TooLarge if rsync has left out a file since it is beyond the limit."""
        skipped, most = _SKIPPED.search(out), self.limits.max_bytes
        if skipped is not None and most is not None:
            self.limits.check_size(most + 1, f"{skipped[1]} has at least")

    def _rsync_trees(
        self,
        control: Control,
        *arguments: str,
        names: Sequence[str],
        bound: Bound | None = None,
    ) -> None:
        """Run rsync for files and directories of those absolute paths, with all that is in them."""
        *options, source, target = arguments
        fixed = ("--protect-args", "--recursive", "--copy-links", "--executability", "--files-from=-", "--from0")
        command = [*self._command(), _FAR, *fixed, *options, "--", source, target]
        code, out, err = _run(command, control, _listed(names), bound, _Far(control, self.retry))
        self._check_skipped(out)
        if code != 0:
            raise _failure(code, err)

    def close(self) -> None:
        """Do nothing: each rsync closes its own connection."""

    def _rsync(
        self,
        control: Control,
        *arguments: str,
        names: Sequence[str],
        bound: Bound | None = None,
        total: int | None = None,
    ) -> list[int]:
        """Run rsync for the files of those paths on the submit side; return the sizes of those that have gone."""
        # --protect-args: names are never seen by the shell of the other side. --ignore-times: the same size and time at
        # the target do not prove the same content.
        fixed = ("--protect-args", "--ignore-times", "--copy-links", "--executability", "--out-format=%l")
        command, far = [*self._command(), _FAR, *fixed, *arguments], _Far(control, self.retry, total)
        code, out, err = _run(command, control, _listed(names), bound, far)
        self._check_skipped(out)
        if code != 0:
            raise _failure(code, err)
        sizes = [int(line) for line in out.splitlines() if line.isdigit()]
        # rsync skips directories and devices without an error.
        if len(sizes) != len(names):
            what = "it is not a plain file" if len(names) == 1 else f"{len(sizes)} of {len(names)} files went"
            raise PermanentTransferError(f"{what} (rsync said: {(out + err).strip()[-_TAIL:]})")
        return sizes

    def _run_for_many(self, arguments: Sequence[str], control: Control) -> tuple[int, str]:
        code, out, _ = _run([*self._command(), *arguments], control, "")
        return code, out

    def _command(self) -> list[str]:
        alive_s = max(1, round(self.retry.stall_timeout_s / 4))  # a receiving rsync does not notice silence itself
        ssh = (
            # BatchMode: ssh must fail, not ask a terminal for a password.
            f"{self.ssh} -o BatchMode=yes -o ConnectTimeout={max(1, round(self.retry.connect_timeout_s))}"
            f" -o ServerAliveInterval={alive_s} -o ServerAliveCountMax=3"
            # Whatever the user's configuration offers to shells: the other side gets files, not the agent or ports.
            " -o ForwardAgent=no -o ForwardX11=no -o ClearAllForwardings=yes"
        )
        return ["rsync", f"--timeout={max(1, round(self.retry.stall_timeout_s))}", "-e", ssh]


@dataclass(frozen=True, slots=True)
class _Sending:
    """A file that goes when it is to be published."""

    mover: RsyncMover
    transfer: Transfer
    control: Control

    def publish(self) -> None:
        """Send it; raises TransientTransferError or PermanentTransferError."""
        self.mover.publish_all([self])

    def discard(self) -> None:
        """Do nothing: nothing was sent."""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # rsync reports it
        return 0


def _listed(names: Sequence[str]) -> str:
    """Return paths as rsync reads them from its standard input, each ended by a zero byte."""
    return "".join(f"{name.lstrip('/')}\0" for name in names)


@dataclass(frozen=True, slots=True)
class _Leaving:
    """An output on its way to the submit side.

    Attributes:
        place: Absolute path of the file, of the directory, or of that before the pattern, on the submit side.
        path: The same on the node.
        names: Absolute paths of what goes, on the submit side.
    """

    place: str
    path: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, sending: _Sending) -> _Leaving:
        """Look at an output; raises PermanentTransferError."""
        file, path = sending.transfer.file, sending.transfer.local_path
        if file.kind == "file":
            return cls(file.path, path.absolute(), (file.path,))
        whole = _path_of(file)
        if isinstance(file, Glob):
            base = whole[: len(whole) - len(file.pattern)].rstrip("/") or "/"
            names = matching(str(path), file.pattern)
            return cls(base, path.absolute(), tuple(os.path.join(base, name) for name in names))
        if not path.is_dir():
            raise PermanentTransferError(
                "it is no directory" if path.exists() else "the app did not make this directory"
            )
        return cls(whole, path.absolute(), (whole,))

    def meets(self, other: _Leaving) -> bool:
        """Return whether one of two lies in the other."""
        one, two = Path(self.place), Path(other.place)
        return one.is_relative_to(two) or two.is_relative_to(one)


@contextlib.contextmanager
def _named_as(outputs: Sequence[_Leaving]) -> Iterator[Path]:
    """Give a directory in which files are found, by links, under the absolute paths that they have on the other side.

    rsync then makes the directories that are missing there, and takes no part of a path as a pattern.
    """
    with contextlib.ExitStack() as stack:
        root = None
        for one in outputs:
            try:
                root = root or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flow-rsync-")))
                link = root / one.place.lstrip("/")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(one.path)
            except OSError as error:
                raise local_failure(error, f"cannot link to {one.path} in {tempfile.gettempdir()}") from error
        assert root is not None  # there is one output at least
        yield root


def _meant(file: File) -> File:
    """Return a file by its absolute path; of the current directory nothing is taken for a part of a pattern."""
    if file.kind != "file":
        return file.clean_copy().relative_to(file.directory or os.getcwd())
    return File(os.path.abspath(os.path.join(file.directory, file.path)), digest=file.digest)


def _path_of(file: File) -> str:
    """Return the absolute path on the submit side."""
    return os.path.normpath(os.path.join(file.directory, file.path))


def _goes_to(file: File) -> Place:
    """Return where an output goes."""
    path = _path_of(file)
    if file.kind == "file":
        return os.path.dirname(path), False
    return (path[: len(path) - len(file.pattern)].rstrip("/") or "/", True) if isinstance(file, Glob) else (path, True)


def _failure(code: int, err: str) -> TransientTransferError | PermanentTransferError:
    words = err.strip()[-_TAIL:]
    said = f"rsync ended with code {code}: {words}" if words else f"rsync ended with code {code}"
    low = err.lower()
    hint = next((hint for mark, hint in _HINTS if mark in low), None)
    said = said if hint is None else f"{hint} ({said})"
    if code not in _FINAL_CODES and not _FINAL.search(err):
        return TransientTransferError(said)
    return (Final if _ABSENT.search(err) else PermanentTransferError)(said)


class _Far:
    """Reads how far rsync is from what it has written into a file, and gives it up if it is too slow.

    Before the first bytes it may look for long at what is there already; silence is what its own timeout is for.
    """

    def __init__(self, control: Control, retry: RetryPolicy, total: int | None = None) -> None:
        self._meter = control.stop.meter
        self._retry = retry
        self._total = total
        self._pace: Pace | None = None
        self._moved = 0

    def look(self, out: BinaryIO) -> None:
        """Note how far it is; raises TooSlow."""
        # Only the end is read: each line of progress replaces the one before.
        end = os.fstat(out.fileno()).st_size
        told = _MOVED.findall(os.pread(out.fileno(), _LINE, max(0, end - _LINE)))
        if not told:
            return
        moved = int(told[-1].replace(b",", b""))
        if moved <= self._moved:
            return
        # The speed counts from the first byte: before that rsync compares what is there.
        if self._pace is None:
            self._pace = Pace(self._retry)
            self._meter.stand(0, self._total)
        count, self._moved = moved - self._moved, moved
        self._meter.add(count)
        self._pace.add(count)


class _Rsync(subprocess.Popen[str]):
    """An rsync process that is registered before it starts, so that an interruption of its start can end it."""

    def __init__(self, begun: list[_Rsync], command: list[str], out: BinaryIO) -> None:
        begun.append(self)
        with starting():
            super().__init__(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.PIPE,
                encoding=sys.getfilesystemencoding(),
                errors="surrogateescape",
                env={**os.environ, "LC_ALL": "C"},  # error texts are read
                # Its ssh is in the same group, and ends with it.
                process_group=0,
            )

    def end(self) -> None:
        """Kill the process group: rsync with the ssh that it has started. Any thread."""
        if getattr(self, "pid", None) is not None and self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def _run(
    command: list[str],
    control: Control,
    said: str,
    bound: Bound | None = None,
    far: _Far | None = None,
) -> tuple[int, str, str]:
    """Run a command in a process group of its own, which ends with the deadline or whatever is raised here.

    ``bound`` is asked about the disk while it runs, ``far`` looks how far it is.
    """
    try:
        # A file, not a pipe: progress is read from it at any time, and nothing can block on a full pipe.
        with tempfile.TemporaryFile(prefix="flow-rsync-") as out:
            code, err = _run_into(out, command, control, said, bound, far)
            out.seek(0)
            text = out.read().decode(sys.getfilesystemencoding(), "surrogateescape")
    except OSError as error:
        raise local_failure(error, f"cannot write into {tempfile.gettempdir()}") from error
    return code, _shown(text), _shown(err)


def _run_into(
    out: BinaryIO, command: list[str], control: Control, said: str, bound: Bound | None, far: _Far | None
) -> tuple[int, str]:
    begun: list[_Rsync] = []
    try:
        process = _Rsync(begun, command, out)
    except FileNotFoundError:
        raise PermanentTransferError(
            f"{command[0]} is not installed on the node; install it, in worker_init for example"
        ) from None
    except OSError as error:
        raise local_failure(error, f"cannot run {command[0]}") from error
    except BaseException:  # an asynchronous one: it may run already
        for one in begun:
            one.end()
        raise
    with process:
        try:
            control.stop.cut_by(process.end)
            told: str | None = said
            while True:
                control.check()
                if bound is not None:
                    bound.meanwhile()
                try:
                    _, err = process.communicate(told, timeout=_LOOK_S)
                    if bound is not None:
                        bound.meanwhile()
                    if process.returncode < 0:
                        control.check()  # it may have been ended since the transfer is to stop
                    return process.returncode, err
                except subprocess.TimeoutExpired:
                    told = None  # it is told once
                    if far is not None:
                        far.look(out)
                    if process.poll() is not None:  # its ssh is stuck in a dead connection and holds our pipes
                        with contextlib.suppress(ProcessLookupError):
                            os.killpg(process.pid, signal.SIGKILL)
        finally:
            process.poll()
            process.end()


def _shown(text: str) -> str:
    """Return the output of a command as text that can be printed."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


class RSyncStaging(InTaskStaging):
    """Moves ``file:`` URLs and plain paths of the submit side, within the task, by rsync over ssh.

    Runs on the node, which connects back to the submit side; rsync must be installed on both, flow-staging on the
    node. Login and host keys are those of the node's ssh. A node brings small files (64 KiB) of all tasks that wait at
    once, if the login may read the lists of them, which are in the submit side's directory for temporary files.

    Args:
        hostname: What rsync is to connect to: ``user@address`` of the submit side as the nodes see it.
        ssh: The ssh command with options, such as ``ssh -p 2222 -i key``.
        retry: How often and how long to try.
        limits: How large a file may be that comes in, alone or in a directory.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    copies_local = True
    moves = ("file", "directory", "pattern")

    def __init__(
        self,
        hostname: str,
        *,
        ssh: str = "ssh",
        retry: RetryPolicy = DEFAULT_RETRY,
        limits: SizeLimits = DEFAULT_LIMITS,
    ) -> None:
        if not isinstance(hostname, str) or not re.fullmatch(r"(?!.*@-)[^-\s:/][^\s/]*", hostname):
            raise ConfigurationError(f"RSyncStaging(hostname={hostname!r}): give user@host of the submit side")
        try:
            words = shlex.split(ssh)
        except ValueError as error:
            raise ConfigurationError(f"RSyncStaging(ssh={ssh!r}): {error}") from error
        if not words:
            raise ConfigurationError("RSyncStaging(ssh=''): give a command")
        self._call = call_of(self, hostname=hostname, ssh=ssh, retry=retry, limits=limits)
        self._plain = RsyncMover(hostname.rstrip(":"), ssh, retry, limits=limits)
        self._waiting = WaitingLists()
        self._partials = PartialNames(retry.timeout_s)
        super().__init__(self._plain)

    def step(self, transfers: Sequence[Transfer]) -> TaskStep:
        """Return data that moves the files on the node; relative paths are meant from where the call was made."""
        meant = [replace(each, file=_meant(each.file)) for each in transfers]
        files = [each.file.path for each in meant if each.direction is Direction.IN and each.file.kind == "file"]
        wanted = tuple(self._waiting.want(path) for path in files)
        going = [each.file for each in meant if each.direction is Direction.OUT]
        partial = self._partials.name_for([_path_of(file) for file in going], map(_goes_to, going)) if going else ""
        return super().step_by(replace(self._plain, wanted=wanted, partial=partial), meant)

    def close(self) -> None:
        """Remove the lists of what tasks wait for, and what is left of outputs that did not come."""
        super().close()
        self._waiting.close()
        self._partials.close()

    def __repr__(self) -> str:
        return self._call
