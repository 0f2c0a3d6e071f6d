"""Files of the submit side for workers that cannot see its file system: rsync over ssh, run on the node."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from flow_core.errors import ConfigurationError
from flow_core.files import File
from flow_core.interfaces.call import TaskStep
from flow_core.interfaces.staging import Transfer
from flow_staging.transfer.expression import call_of
from flow_staging.transfer.failures import Dropped, Refused, local_failure
from flow_staging.transfer.method import InTaskStaging, Sent
from flow_staging.transfer.publish import Partial
from flow_staging.transfer.retry import DEFAULT_RETRY, Control, RetryPolicy, Tries

_TAIL = 500
_LOOK_S = 0.5
_FINAL_CODES = frozenset({1, 2, 3, 4, 6, 11, 22, 23, 24, 25, 126, 127})  # any other may be ssh's own
_FINAL = re.compile(
    r"permission denied|host key verification failed|no such file|no space left|quota exceeded"
    r"|command not found|read-only file system|could not resolve|is a directory",
    re.IGNORECASE,
)
_NAMES = ("--files-from=-", "--from0", "--no-dirs", "--")
"""Move the file whose path is read from standard input: on the command line rsync takes names as patterns."""
_IN = ("--inplace", "--no-relative")
_OUT = ("--partial-dir=.flow-rsync-partial", "--no-implied-dirs")
_HINTS = (
    ("permission denied (", "ssh refuses the login: put a key where the worker's ssh finds it (worker_init)"),
    ("host key verification failed", "the submit side's host key is not known on the node (known_hosts)"),
    ("command not found", "rsync must be installed on both sides"),
    ("non-directory with a directory", "it is not a plain file but a directory"),
    ("no space left", "the disk is full"),
)


@dataclass(frozen=True, slots=True)
class RsyncMover:
    """Moves by one rsync a file: verified by rsync's own checksum, resumed by its delta."""

    prefix: str
    ssh: str
    retry: RetryPolicy

    @property
    def schemes_in(self) -> tuple[str, ...]:
        """Return what comes in."""
        return ("file",)

    @property
    def schemes_out(self) -> tuple[str, ...]:
        """Return what goes out."""
        return ("file",)

    @property
    def timeout_s(self) -> float:
        """Return the longest time for one file."""
        return self.retry.timeout_s

    def bring_in(self, file: File, path: Path, control: Control) -> str:
        """Fetch one file of the submit side; raises Dropped or Refused."""
        tries = Tries(self.retry, control)
        with Partial(path.absolute()) as part:
            while True:
                before = part.path.stat().st_size
                try:
                    size = self._rsync(control, *_IN, *_NAMES, f"{self.prefix}:/", str(part.path), name=file.path)
                    break
                except Dropped as error:
                    tries.failed(error, part.path.stat().st_size - before)
            found = part.path.stat().st_size
            if size != found:
                raise Refused(f"rsync sent {size} bytes, {found} arrived")
            part.publish()
        return ""

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> Sent:
        """Promise to send: rsync itself shows a file only when it is whole."""
        return _Sending(self, transfer, control)

    def bring_out(self, path: Path, file: File, control: Control) -> None:
        """Send one file to the submit side; raises Dropped or Refused.

        What a broken try has brought waits in ``.flow-rsync-partial`` there, for the next try, of this or another
        task, that sends a file of the same name.
        """
        tries = Tries(self.retry, control)
        with _named_as(path.absolute(), file.path) as root:
            while True:
                try:
                    self._rsync(control, *_OUT, *_NAMES, f"{root}/", f"{self.prefix}:/", name=file.path)
                    return
                except Dropped as error:
                    tries.failed(error)

    def _rsync(self, control: Control, *arguments: str, name: str) -> int:
        """Run rsync for the one file of that path on the submit side; return its size."""
        alive_s = max(1, round(self.retry.stall_timeout_s / 4))  # a receiving rsync does not notice silence itself
        ssh = (
            f"{self.ssh} -o BatchMode=yes -o ConnectTimeout={max(1, round(self.retry.connect_timeout_s))}"
            f" -o ServerAliveInterval={alive_s} -o ServerAliveCountMax=3"
        )
        fixed = ("--protect-args", "--ignore-times", "--copy-links", "--executability", "--out-format=%l")
        timeout = f"--timeout={max(1, round(self.retry.stall_timeout_s))}"
        code, out, err = _run(["rsync", *fixed, timeout, "-e", ssh, *arguments], control, name.lstrip("/"))
        if code != 0:
            raise _failure(code, err)
        sizes = [line for line in out.splitlines() if line.isdigit()]
        if len(sizes) != 1:
            raise Refused(f"it is not a plain file (rsync said: {(out + err).strip()[-_TAIL:]})")
        return int(sizes[0])


@dataclass(frozen=True, slots=True)
class _Sending:
    """A file that goes when it is to be published."""

    mover: RsyncMover
    transfer: Transfer
    control: Control

    def publish(self) -> None:
        """Send it; raises Dropped or Refused."""
        self.mover.bring_out(self.transfer.local_path, self.transfer.file, self.control)

    def discard(self) -> None:
        """Do nothing: nothing was sent."""


@contextlib.contextmanager
def _named_as(path: Path, name: str) -> Iterator[Path]:
    """Give a directory in which a file is found, by a link, under the absolute path that it has on the other side.

    rsync then makes the directories that are missing there, and takes no part of the path as a pattern.
    """
    with contextlib.ExitStack() as stack:
        try:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flow-rsync-")))
            link = root / name.lstrip("/")
            link.parent.mkdir(parents=True)
            link.symlink_to(path)
        except OSError as error:
            raise local_failure(error, f"cannot link to {path} in {tempfile.gettempdir()}") from error
        yield root


def _failure(code: int, err: str) -> Dropped | Refused:
    words = err.strip()[-_TAIL:]
    said = f"rsync ended with code {code}: {words}" if words else f"rsync ended with code {code}"
    low = err.lower()
    hint = next((hint for mark, hint in _HINTS if mark in low), None)
    said = said if hint is None else f"{hint} ({said})"
    if code not in _FINAL_CODES and not _FINAL.search(err):
        return Dropped(said)
    return Refused(said)


def _run(command: list[str], control: Control, said: str) -> tuple[int, str, str]:
    """Run a command in a process group of its own, which ends with the deadline or whatever is raised here."""
    environment = {**os.environ, "LC_ALL": "C"}  # error texts are read
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding=sys.getfilesystemencoding(),
            errors="surrogateescape",
            env=environment,
            process_group=0,
        )
    except FileNotFoundError:
        raise Refused(f"{command[0]} is not installed on the node; install it, in worker_init for example") from None
    except OSError as error:
        raise local_failure(error, f"cannot run {command[0]}") from error
    with process:
        try:
            told: str | None = f"{said}\0"
            while True:
                control.check()
                try:
                    out, err = process.communicate(told, timeout=_LOOK_S)
                    return process.returncode, _shown(out), _shown(err)
                except subprocess.TimeoutExpired:
                    told = None  # it is told once
                    if process.poll() is not None:  # its ssh is stuck in a dead connection and holds our pipes
                        with contextlib.suppress(ProcessLookupError):
                            os.killpg(process.pid, signal.SIGKILL)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _shown(text: str) -> str:
    """Return what a command said as text that can be printed."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


class RSyncStaging(InTaskStaging):
    """Moves ``file:`` URLs and plain paths of the submit side, within the task, by rsync over ssh.

    Runs on the node, which connects back to the submit side; rsync must be installed on both, flow-staging on the
    node. Login and host keys are those of the node's ssh.

    Args:
        hostname: What rsync is to connect to: ``user@address`` of the submit side as the nodes see it.
        ssh: The ssh command with options, such as ``ssh -p 2222 -i key``.
        retry: How often and how long to try.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    def __init__(self, hostname: str, *, ssh: str = "ssh", retry: RetryPolicy = DEFAULT_RETRY) -> None:
        if not isinstance(hostname, str) or not re.fullmatch(r"[^-\s:/][^\s/]*", hostname):
            raise ConfigurationError(f"RSyncStaging(hostname={hostname!r}): give user@host of the submit side")
        try:
            words = shlex.split(ssh)
        except ValueError as error:
            raise ConfigurationError(f"RSyncStaging(ssh={ssh!r}): {error}") from error
        if not words:
            raise ConfigurationError("RSyncStaging(ssh=''): give a command")
        self._call = call_of(self, hostname=hostname, ssh=ssh, retry=retry)
        super().__init__(RsyncMover(hostname.rstrip(":"), ssh, retry))

    def local_path(self, file: File, working_dir: str | None) -> Path:
        """Return a place in the working directory that no other path of the submit side gets."""
        path = os.path.abspath(file.path)
        digest = blake2b(os.fsencode(path), digest_size=6).hexdigest()
        return Path(working_dir or "") / f"rsync-{digest}" / (file.filename or "file")

    def step(self, transfers: Sequence[Transfer]) -> TaskStep:
        """Return data that moves the files on the node; relative paths are meant from here."""
        return super().step([replace(each, file=File(os.path.abspath(each.file.path))) for each in transfers])

    def __repr__(self) -> str:
        return self._call
