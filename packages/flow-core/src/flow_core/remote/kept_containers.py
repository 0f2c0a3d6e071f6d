"""Containers with a loop in them that runs tasks one by one: each for one task, or kept for later ones of its kind."""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from flow_core.remote.container_removal import guarded, wait_in_slices
from flow_core.remote.processes import WORKER_PID
from flow_core.starting import starting

MOST_KEPT = 4
"""Idle containers that a process keeps; beyond that the one that was used longest ago is ended."""

_SLICE_S = 0.5  # longest wait at once: an asynchronous exception is raised between two of them
_END_S = 10.0  # seconds that a loop has to end when it is told to
_LAST_S = 3.0  # the same of all kept ones, at the end of a process that has little time
_LOG_BYTES = 1 << 20  # of a container's standard error, after which its file is emptied
_TAIL_BYTES = 4096


class Ended(Exception):
    """The container of a loop has ended before it answered.

    Attributes:
        code: Exit code of the command that ran it.
        tail: The last that it wrote to its standard error.
        name: Its name; empty where its runtime names none.
    """

    def __init__(self, code: int, tail: str, name: str = "") -> None:
        super().__init__(f"exit code {code}")
        self.name = name
        self.code = code
        self.tail = tail


class Loop:
    """A container with a loop in it. One task at a time.

    Attributes:
        told: What the loop says of itself when it begins: its kind, and its version or path.
    """

    def __init__(
        self, line: Sequence[str], environment: Mapping[str, str], name: str, removal: Sequence[str], word: str
    ) -> None:
        """Start it; the container is removed by ``removal`` if it cannot be told to end.

        Raises:
            OSError: the runtime's command cannot be started.
            ContainerError: nothing would remove it after a kill.
            Ended: it ended at once.
        """
        self._name, self._removal, self._word = name, removal, word
        self._rest = b""
        self._numbers = 0
        guarded.begin(name, removal)
        self._errors = os.open(
            os.path.join(guarded.directory(), f"{name}.log"), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self._shown = 0
        self._tail = b""
        self._process: subprocess.Popen[bytes] | None = None
        try:
            with starting():
                # A group of its own: what ends a task of this process does not end it by the way.
                self._process = subprocess.Popen(
                    line,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    env=environment,
                    process_group=0,
                )
            self.told = self._answer()
        except BaseException:
            self.kill()
            raise

    def run(self, number: str, meanwhile: Callable[[], object] | None = None) -> int:
        """Have a task run, and return its exit code; ``meanwhile`` is called again and again while it does.

        Raises:
            Ended: the container ended before the task did.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), f"{number}\n".encode())
        except BrokenPipeError:
            raise self._ended() from None
        return int(self._answer(number, meanwhile)[1])

    @property
    def lives(self) -> bool:
        """Whether its command still runs."""
        return self._process is not None and self._process.poll() is None

    def tell_end(self) -> None:
        """Tell the loop to end."""
        pipe = None if self._process is None else self._process.stdin
        if pipe is not None and not pipe.closed:
            with suppress(OSError):
                os.write(pipe.fileno(), b"end\n")
            with suppress(OSError):
                pipe.close()

    def close(self, timeout_s: float = _END_S) -> None:
        """End it, and return when it has; it is removed where it does not end by itself. Never raises."""
        self.tell_end()
        process = self._process
        # Whose command was killed, as at the end of a worker, has not removed it.
        if process is not None and wait_in_slices(process, time.monotonic() + timeout_s) != 0:
            self.kill()
            return
        self._let_go()
        guarded.end(self._name, self._removal)

    def kill(self) -> None:
        """End and remove it at once, with all that runs in it."""
        guarded.remove(self._name, self._removal)
        process = self._process
        if process is not None and process.poll() is None:
            # A container of a runtime that names none is a child of this process.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            wait_in_slices(process, time.monotonic() + _END_S)
        # An engine may have made it between the two steps: by now its client is gone.
        guarded.remove(self._name, self._removal)
        self._let_go()

    def _let_go(self) -> None:
        self._copy()
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1
            with suppress(OSError):
                os.unlink(os.path.join(guarded.directory(), f"{self._name}.log"))

    def _answer(self, number: str = "", meanwhile: Callable[[], object] | None = None) -> tuple[str, str]:
        """Return what follows the word in its next line of the loop's, which is of the number given."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        while True:
            while b"\n" in self._rest:
                line, self._rest = self._rest.split(b"\n", 1)
                words = line.decode(errors="replace").rstrip("\r").split(" ", 2)
                if words[0] == self._word and len(words) == 3 and number in ("", words[1]):
                    self._copy()
                    return words[1], words[2]
                with suppress(OSError):  # the image's own start prints
                    os.write(2, line + b"\n")
            if poller.poll(_SLICE_S * 1000):
                data = os.read(descriptor, 65536)
                if not data:
                    raise self._ended()
                self._rest += data
            self._copy()
            if meanwhile is not None:
                meanwhile()

    def _ended(self) -> Ended:
        process = self._process
        code = None if process is None else wait_in_slices(process, time.monotonic() + _END_S)
        self._copy()
        tail = "\n".join(self._tail.decode(errors="replace").strip().splitlines()[-20:])
        return Ended(-9 if code is None else code, tail, self._name)

    def _copy(self) -> None:
        """Write what the container wrote to its standard error to that of this process."""
        if self._errors < 0:
            return
        try:
            while data := os.pread(self._errors, 65536, self._shown):
                self._shown += len(data)
                self._tail = (self._tail + data)[-_TAIL_BYTES:]
                while data:
                    data = data[os.write(2, data) :]
            if self._shown > _LOG_BYTES:
                os.ftruncate(self._errors, 0)
                self._shown = 0
        except OSError:
            return


class KeptContainers:
    """Idle containers of this process, by what they are. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._idle: OrderedDict[int, tuple[object, Loop]] = OrderedDict()
        self._numbers = 0
        self._ending: list[Loop] = []

    def take(self, kind: object) -> Loop | None:
        """Take an idle container of a kind; None if there is none."""
        with self._lock:
            self._renewed()
            self._look_at_ending()
            for number, (one, loop) in reversed(self._idle.items()):
                if one == kind:
                    del self._idle[number]
                    if loop.lives:
                        return loop
                    loop.close()
                    return None
        return None

    def keep(self, kind: object, loop: Loop) -> None:
        """Keep a container that is idle by now; another one may be ended for it."""
        with self._lock:
            self._renewed()
            self._numbers += 1
            self._idle[self._numbers] = kind, loop
            ended = self._idle.popitem(last=False)[1][1] if len(self._idle) > MOST_KEPT else None
        if ended is not None:
            self.end(ended)

    def end(self, loop: Loop) -> None:
        """Have a container end, which nobody waits for now."""
        loop.tell_end()
        with self._lock:
            self._renewed()
            self._look_at_ending()
            self._ending.append(loop)

    def _look_at_ending(self) -> None:
        # Each is looked at once: it may end between two looks, and would then be forgotten without being closed.
        going: list[Loop] = []
        for loop in self._ending:
            if loop.lives:
                going.append(loop)
            else:
                loop.close()
        self._ending = going

    def close(self) -> None:
        """End all of them. Never raises."""
        # At its end a worker is asked to end at once; it has a moment for this.
        if os.environ.get(WORKER_PID) == str(os.getpid()) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with self._lock:
            self._renewed()
            loops = [*self._ending, *(loop for _, loop in self._idle.values())]
            self._idle.clear()
            self._ending.clear()
        for loop in loops:
            loop.tell_end()
        deadline = time.monotonic() + _LAST_S
        for loop in loops:
            loop.close(max(0.05, deadline - time.monotonic()))

    def _renewed(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._idle, self._ending = os.getpid(), OrderedDict(), []  # a forked child has none
            atexit.register(self.close)


kept = KeptContainers()
"""Those of this process."""
