"""Questions to a running kernel from another process of the same user, over a socket in its run directory.

``runinfo/NNN/kernel.sock`` is there while the run is, of mode 0600, and who connects must be the user's own process (or
root's), which the operating system says. One line of JSON each way: ``{"ask": NAME, ...}``, and ``{"data": ...}`` or
``{"error": TEXT}``. The thread that answers sleeps until somebody asks; once a minute it looks whether the run has come
to a standstill.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow_core.errors import RunNotLive

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

Answers = Mapping[str, Callable[[Mapping[str, Any]], object]]
"""Functions that answer, by the names of what is asked: given the request, each returns what JSON can hold.

LookupError and ValueError of them are told to who asked, as their text."""

_NAME = "kernel.sock"
_LOOK_S = 60.0  # seconds between looks at the run; much less than the 600 s after which a standstill is reported
_REQUEST_S = 2.0  # seconds for a whole request: one that connects and is silent must not keep others waiting
_REQUEST_BYTES = 1 << 16  # of a request: most have less than 100, a list of 1,000 tasks has 10,000
_ANSWER_BYTES = 16 << 20  # of an answer; a bound on what the asking process reads, far above any overview
_JOIN_S = 3.0  # seconds; more than a request may take
_CREDENTIALS = struct.Struct("3i")
_TIMEVAL = struct.Struct("ll")
_LEAST_S = 0.001  # seconds; to the system 0 is no limit


class LiveQueries:
    """Server of live queries in the kernel: a socket and a thread. A run whose directory takes no socket has none."""

    def __init__(self, run_dir: Path, answers: Answers, look: Callable[[], None], logger: logging.Logger) -> None:
        """Take the functions that answer and that look at the run; only the thread of the queries calls them."""
        self._run_dir = run_dir
        self._answers = answers
        self._look = look
        self._logger = logger
        self._listener: socket.socket | None = None
        self._wake, self._wakes = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="flow-live", daemon=True)

    def start(self) -> None:
        """Open the socket and start the thread. Never raises: where that fails a line in the log says so."""
        try:
            self._listener = _listen(self._run_dir)
        except OSError as error:
            self._logger.info("This run cannot be asked from outside (flow why): %s: %s", self._run_dir / _NAME, error)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and remove the socket. Idempotent."""
        try:
            self._wake.shutdown(socket.SHUT_WR)  # not close(): a forked child may hold a copy
        except OSError:  # it was closed before
            return
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        self.abandon_after_fork()
        try:
            (self._run_dir / _NAME).unlink(missing_ok=True)
        except OSError:
            return

    def abandon_after_fork(self) -> None:
        """Close what this process holds, and leave the files: also in a forked child, whose parent goes on."""
        for one in (self._listener, self._wake, self._wakes):
            if one is not None:
                one.close()

    # -- the thread

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wakes, select.POLLIN)
        listener = self._listener
        if listener is not None:
            poll.register(listener, select.POLLIN)
        end = self._wakes.fileno()
        while True:
            ready = [descriptor for descriptor, _ in poll.poll(_LOOK_S * 1000)]
            if end in ready:
                return
            try:
                if ready and listener is not None:
                    self._serve(listener)
                self._look()
            except Exception:
                self._logger.exception("A question to this run could not be answered")

    def _serve(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            if not _is_own(connection):
                return
            try:
                request = json.loads(_line_of(connection, _REQUEST_BYTES, time.monotonic() + _REQUEST_S))
                if _has_left(connection):  # it gave up while others were served: its order is not wanted any more
                    return
                connection.settimeout(_REQUEST_S)
                connection.sendall(json.dumps(self._reply(request)).encode() + b"\n")
            except (OSError, ValueError):
                return

    def _reply(self, request: object) -> dict[str, object]:
        asked = request if isinstance(request, dict) else {}
        answer = self._answers.get(str(asked.get("ask")))
        if answer is None:
            return {"error": "this run is of another version of Flow: it does not understand the question"}
        try:
            return {"data": answer(asked)}
        except (LookupError, ValueError) as error:
            return {"error": str(error.args[0]) if error.args else str(error)}


def ask(run_dir: Path, what: str, timeout_s: float = 10.0, **request: object) -> Any:
    """Ask a run that goes on, and return its answer: see ``live_answers``.

    Raises:
        RunNotLive: nobody answers there; the message says why.
        LookupError: the run refuses, with what it says.
    """
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            _connect(connection, run_dir, timeout_s)
            connection.settimeout(max(deadline - time.monotonic(), _LEAST_S))
            connection.sendall(json.dumps({"ask": what, **request}).encode() + b"\n")
            reply = json.loads(_line_of(connection, _ANSWER_BYTES, deadline))
        except TimeoutError:
            raise RunNotLive(
                f"the script of run {run_dir} did not answer within {timeout_s:g} s: it is stopped, or one long call "
                "of C code keeps all its Python threads from running"
            ) from None
        except (OSError, ValueError) as error:
            raise RunNotLive(
                f"the script of run {run_dir} hung up; it has ended just now, or it failed: {error}"
            ) from None
    if isinstance(reply, dict) and "data" in reply:
        return reply["data"]
    raise LookupError(str(reply.get("error") if isinstance(reply, dict) else "the answer was not understood"))


def why(run_dir: Path, task: int | None = None, timeout_s: float = 10.0) -> str:
    """Ask a run that goes on why a task is not done, or with None why all unfinished tasks are not.

    Raises:
        RunNotLive: nobody answers there; the message says why.
        LookupError: the run has no such unfinished task.
    """
    return str(ask(run_dir, "why", timeout_s, task=task))


def is_live(run_dir: Path) -> bool:
    """Return whether the script of a run is there to be asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            _connect(connection, run_dir, 0)
        except RunNotLive:
            return False
        except TimeoutError:  # so many ask that it has not come to this one, or it is stopped: it is there
            return True
    return True


def _connect(connection: socket.socket, run_dir: Path, timeout_s: float) -> None:
    """Connect, within some seconds where others wait there already; with 0 only if none do.

    Raises:
        RunNotLive: nobody is there to be asked.
        TimeoutError: it is there, and did not take the connection: as many wait as the system lets.
    """
    # Not by settimeout(), with which a full queue is an error at once: the system itself waits for room in it.
    connection.setblocking(timeout_s > 0)
    whole, part = divmod(max(timeout_s, _LEAST_S), 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(whole), int(part * 1e6)))
    try:
        with _short(run_dir) as path:
            connection.connect(path)
    except FileNotFoundError:
        there = "it has ended, and cleaned up" if run_dir.is_dir() else "there is no such directory"
        raise RunNotLive(f"run {run_dir} is not going on: {there}") from None
    except PermissionError:
        raise RunNotLive(f"run {run_dir} belongs to another user: only that one can ask it") from None
    except ConnectionRefusedError:
        raise RunNotLive(
            f"nobody answers for run {run_dir}: its script was killed, or runs on another machine, where you can ask it"
        ) from None
    except BlockingIOError:
        raise TimeoutError from None
    except OSError as error:
        raise RunNotLive(f"run {run_dir} cannot be asked: {error}") from error
    if not _is_own(connection):
        raise RunNotLive(f"who answers for run {run_dir} is another user: only that one can ask it")


def _listen(run_dir: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(made.fileno(), 0o600)  # the file gets it from the socket: it is never open to others
        with _short(run_dir) as path:
            made.bind(path)
        made.listen(16)
        # poll() may report a connection that is gone when accept() is called, which would then block.
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


@contextmanager
def _short(run_dir: Path) -> Iterator[str]:
    """Give a path of the socket that is never too long: a socket's address holds 107 bytes."""
    descriptor = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)


def _line_of(connection: socket.socket, limit: int, deadline: float) -> bytes:
    """Read up to the end of a line. Raises TimeoutError, ValueError (too long, or cut off), OSError."""
    data = bytearray()
    while not data.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        piece = connection.recv(65536)
        data += piece
        if not piece or len(data) > limit:
            raise ValueError("no whole line came")
    return bytes(data)


def _has_left(connection: socket.socket) -> bool:
    """Return whether the process at the other end has closed the connection."""
    poll = select.poll()
    poll.register(connection, select.POLLHUP)
    return bool(poll.poll(0))


def _is_own(connection: socket.socket) -> bool:
    """Return whether the process at the other end is this user's, or root's."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(raw)[1] in (os.geteuid(), 0)
