"""The step that runs a function on every rank of a task, by the launcher that the task's node has.

The function and its arguments go to rank 0 in a file of the task's own directory, and from there to the others by MPI;
the result comes back in another file. What a rank raises comes by standard error, which every launcher brings from
wherever the rank is (``flow_core.remote.rank_program``), among what the ranks print.
"""

from __future__ import annotations

import base64
import math
import os
import pickle
import re
import select
import shlex
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flow_core.errors import AppException
from flow_core.interfaces.call import NodeContext
from flow_core.remote.errors import unpack
from flow_core.remote.parcel import pack_task
from flow_core.starting import starting

PREFIX = "FLOW_MPI_PREFIX"
DIRECTORY = "FLOW_MPI_DIRECTORY"
FRAME = re.compile(rb"\x1eFLOW-RANK ([0-9a-f]+) (\d+) (\d+) (\d+) (\d+) ([A-Za-z0-9+/=]*)\x1f\n?")
"""A piece of an error on standard error: mark, rank, number of the piece, number of pieces, checksum, base64."""
MARK = "FLOW_MPI_MARK"
"""Variable with the mark of the pieces of one call: random, since ranks print words of strangers, too, and errors are
pickles."""
PIECE = 300
"""Bytes of an error in one piece: a line is written, and read on its way, at once."""
_TAIL = 8192  # bytes of standard error that are kept
_READ = 1 << 16  # bytes at once
_HELD = 4096  # bytes that may be the begin of a piece
OVER = ".over"
"""What the name of a FIFO beside the result ends with: rank 0 has it open for writing from its result to its end."""
BEGUN = ".begun"
"""What the name of a FIFO beside the result ends with: rank 0 opens it for writing when all have the call."""
START_TIMEOUT = "FLOW_MPI_START_TIMEOUT"
"""Variable with the seconds in which the ranks of a function have to begin with it."""
_START_S = 600.0
# Seconds that a launcher has to end after rank 0 has. By then the other ranks have left MPI, too; what holds it longer
# is what they have left behind, such as a daemon that has their standard output open.
_LINGER_S = 5.0
_GRACE_S = 3.0  # seconds between SIGTERM and SIGKILL for a launcher, which ends ranks on other nodes
_LONGEST_S = 1e6  # seconds that poll can wait
_NOT_BEGUN = (
    f"its ranks have not begun with the function within {{limit_s:g}} s ({START_TIMEOUT}): the start of MPI, or the "
    "first message between them, hangs. Often nodes have network interfaces by which they do not reach each other, "
    "such as bridges of containers: name the right one in worker_init, for Open MPI by OMPI_MCA_oob_tcp_if_include and "
    "OMPI_MCA_btl_tcp_if_include"
)
_PROGRAM = "import sys; sys.path[:] = {path!r}; from flow_core.remote.rank_program import main; main()"


class RanksNotBegun(AppException):
    """The ranks have not begun with the function in the time that they have for it."""


@dataclass(frozen=True, slots=True)
class RanksStep:
    """Runs the function on every rank; the innermost step of an app of ranks.

    Attributes:
        app: Name of the app.
        gather: Whether the result is a list by rank, instead of the value of rank 0.
    """

    app: str
    gather: bool = False

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Refuse: what is wrapped cannot travel. See ``on_ranks``."""
        raise AppException(f"app {self.app!r} runs on ranks: this step must be the innermost of its task")

    def on_ranks(
        self, func: Callable[..., object], args: Sequence[object], kwargs: dict[str, object]
    ) -> Callable[[], object]:
        """Return what runs the function on the ranks of the task and returns its result.

        Raises of the call:
            AppException: there are no ranks here, or the launcher failed; ``stderr_tail`` has its last words.
            RanksNotBegun: the ranks have not begun with the function within ``FLOW_MPI_START_TIMEOUT``.
            Exception: what a rank raised, with a note that names the rank and its node.
        """
        return lambda: self._run(func, args, kwargs)

    def _run(self, func: Callable[..., object], args: Sequence[object], kwargs: dict[str, object]) -> object:
        prefix, directory = os.environ.get(PREFIX), os.environ.get(DIRECTORY)
        if not prefix or not directory:
            raise AppException(
                f"app {self.app!r} runs on ranks, and there are none here: call it in a HighThroughputExecutor, with "
                "ranks, or nodes and ranks_per_node"
            )
        task, result = os.path.join(directory, "call"), os.path.join(directory, "result")
        with open(task, "wb") as file:
            file.write(pickle.dumps((self.gather, pack_task(func, args, kwargs)), protocol=5))
        limit_s = _start_limit_s()
        for path in (result, result + OVER, result + BEGUN):
            if os.path.exists(path):
                os.unlink(path)
        # Ranks find modules where this worker does, on whatever node they are.
        program = [sys.executable, "-c", _PROGRAM.format(path=[*sys.path]), task, result]
        mark = os.urandom(16).hex()
        errors = _Errors(mark)
        over, begun = _fifo(result + OVER), _fifo(result + BEGUN)
        try:
            code = _launched([*shlex.split(prefix), *program], {MARK: mark}, errors, over, begun, limit_s)
        finally:
            os.close(over)
            os.close(begun)
        if errors.error is not None:
            raise errors.error
        if code != 0 or not os.path.exists(result):
            raise _failure(self.app, code, errors.tail.decode(errors="replace"))
        with open(result, "rb") as file:
            return pickle.load(file)


def _start_limit_s() -> float:
    text = os.environ.get(START_TIMEOUT, "")
    try:
        limit_s = float(text) if text else _START_S
    except ValueError:
        limit_s = -1.0
    if not limit_s > 0:
        raise AppException(f"{START_TIMEOUT}={text!r}: it is the seconds that the ranks have to begin, more than 0")
    return limit_s


def _fifo(path: str) -> int:
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _failure(app: str, code: int, tail: str) -> AppException:
    how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
    what = "" if code else ", and no rank 0 has returned a result"
    text = tail.strip()
    error = AppException(
        f"app {app!r}: the launcher of its ranks {how}{what}" + (f". Its last lines:\n{text}" if text else "")
    )
    # As those of a bash app.
    error.stderr_tail = text  # type: ignore[attr-defined]
    error.exitcode = code  # type: ignore[attr-defined]
    return error


class _Errors:
    """Standard error of the ranks: passes it on, but for pieces of an error, which it puts together."""

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self.error: BaseException | None = None
        self.tail = b""
        self._held = b""
        self._pieces: dict[int, dict[int, bytes]] = {}

    def take(self, data: bytes) -> None:
        """Take what was read of standard error; nothing: the end."""
        held = self._held + data
        at = 0
        for found in FRAME.finditer(held):
            own = found[1] == self._mark
            self._pass(held[at : found.start() if own else found.end()])
            at = found.end()
            if own:
                self._piece(found)
        rest = held[at:]
        # The begin of a piece waits for its end, unless it is too long for one.
        begin = rest.rfind(b"\x1e") if data else -1
        if begin < 0 or len(rest) - begin > _HELD:
            begin = len(rest)
        self._pass(rest[:begin])
        self._held = rest[begin:]

    def take_output(self, data: bytes) -> None:
        """Take what was read of standard output, where some launchers write their last words."""
        self._pass(data, 1)

    def _pass(self, text: bytes, descriptor: int = 2) -> None:
        self.tail = (self.tail + text)[-_TAIL:]
        while text:
            try:
                text = text[os.write(descriptor, text) :]
            except OSError:
                return

    def _piece(self, found: re.Match[bytes]) -> None:
        rank, number, count, check = (int(found[group]) for group in range(2, 6))
        try:
            piece = base64.b64decode(found[6], validate=True)
        except ValueError:
            return
        # Lines of several ranks may be mixed on their way: a rank tells its error again and again.
        if zlib.crc32(piece) != check or self.error is not None:
            return
        pieces = self._pieces.setdefault(rank, {})
        pieces[number] = piece
        if len(pieces) == count:
            node, packed = pickle.loads(b"".join(pieces[each] for each in range(count)))
            self.error = unpack(packed)
            self.error.add_note(f"raised by rank {rank} on node {node}")


def _launched(
    command: Sequence[str], variables: dict[str, str], errors: _Errors, over: int, begun: int, limit_s: float
) -> int:
    """Run the launcher; end it as soon as a rank has told an error, or if it outlives rank 0. Return its exit code.

    Args:
        command: What to run.
        variables: What it gets beside the variables of this process.
        errors: Takes what it writes.
        over: A descriptor that hangs up when rank 0 has ended after its result was there.
        begun: A descriptor that hangs up when the ranks have begun with the function.
        limit_s: Seconds in which they have to.

    Returns:
        The exit code; 0 where it was ended after rank 0.
    """
    with starting():
        process = subprocess.Popen(
            command,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            bufsize=0,
        )
    assert process.stdout is not None
    assert process.stderr is not None
    takers = {process.stdout.fileno(): errors.take_output, process.stderr.fileno(): errors.take}
    poller = select.poll()
    for descriptor in (*takers, over, begun):
        poller.register(descriptor, select.POLLIN)
    ends, begins = math.inf, time.monotonic() + limit_s
    try:
        # Walltimes come as exceptions of the timer, whatever is waited for here.
        while takers and errors.error is None:
            rest_s = ends - time.monotonic()
            if rest_s <= 0:
                note = f"the launcher was ended: it ran for {_LINGER_S:g} s after rank 0, whose result is there\n"
                errors.take(note.encode())
                _ended(process)
                return 0
            if time.monotonic() >= begins:
                raise RanksNotBegun(_NOT_BEGUN.format(limit_s=limit_s))
            rest_s = min(rest_s, begins - time.monotonic())
            # No longer than poll can wait: a limit may be infinite.
            for descriptor, _ in poller.poll(None if rest_s > _LONGEST_S else max(1, math.ceil(rest_s * 1000))):
                if descriptor == over:
                    poller.unregister(over)
                    ends = time.monotonic() + _LINGER_S
                    continue
                if descriptor == begun:
                    poller.unregister(begun)
                    begins = math.inf
                    continue
                data = os.read(descriptor, _READ)
                takers[descriptor](data)
                if not data:
                    poller.unregister(descriptor)
                    del takers[descriptor]
        return _ended(process) if takers else process.wait()
    finally:
        _ended(process)
        process.stdout.close()
        process.stderr.close()


def _ended(process: subprocess.Popen[bytes]) -> int:
    """End a launcher that runs yet, with all of its group."""
    if process.poll() is not None:
        return process.returncode
    assert process.stdout is not None
    assert process.stderr is not None
    # The launcher alone at first: it has its daemons end the ranks.
    process.send_signal(signal.SIGTERM)
    watched = os.pidfd_open(process.pid)
    try:
        poller = select.poll()
        for descriptor in (watched, process.stdout.fileno(), process.stderr.fileno()):
            poller.register(descriptor, select.POLLIN)
        ends = time.monotonic() + _GRACE_S
        while process.poll() is None:
            for descriptor, _ in poller.poll(max(0, int((ends - time.monotonic()) * 1000))):
                # What it writes meanwhile would fill the pipe, and be written once more: nobody needs it.
                if descriptor != watched and not os.read(descriptor, _READ):
                    poller.unregister(descriptor)
            if time.monotonic() >= ends:
                os.killpg(process.pid, signal.SIGKILL)
                return process.wait()
        return process.returncode
    finally:
        os.close(watched)
