"""The manager's end of its fork server: the process that forks the workers, reports their deaths and sweeps after them.

It is forked before the manager imports zmq, so that workers inherit neither its threads nor its descriptors.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flow_executors.manager.fork_server import MAX_MESSAGE, ForkServer

# Descriptors that come with one report: task pipe, its read end, result pipe, direct channel.
_FDS_A_MESSAGE = 4
# Seconds that a killed fork server has to be reaped.
_DEATH_S = 2.0


@dataclass(frozen=True, slots=True)
class Spawned:
    """A worker was forked.

    Attributes:
        rank: Its number in the pool.
        pid: Its process id, which is its session's id too.
        task_in: Where tasks are written.
        task_back: The other end of that pipe, to read back what was not started.
        result_out: Where results are read.
        depth: How many tasks the pipe holds.
        direct_out: Where results of tasks are read that did not come from the manager; -1 where there is no such pipe.
    """

    rank: int
    pid: int
    task_in: int
    task_back: int
    result_out: int
    depth: int
    direct_out: int = -1


@dataclass(frozen=True, slots=True)
class Died:
    """A worker ended, and all of its session with it.

    Attributes:
        rank: Its number in the pool.
        pid: What its process id was.
        exit_code: How it exited, or None.
        signal: What killed it, or None.
        stderr_tail: The last lines it wrote.
        how: Cause of its end in words ("was ..."), where the manager knows more than its exit shows.
    """

    rank: int
    pid: int
    exit_code: int | None
    signal: int | None
    stderr_tail: str
    how: str = ""


@dataclass(frozen=True, slots=True)
class NotSpawned:
    """A worker could not be forked: ``reason`` says why."""

    rank: int
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The fork server answered."""


@dataclass(frozen=True, slots=True)
class ForkServerGone:
    """The fork server itself died; no worker can be trusted to live."""


Report = Spawned | Died | NotSpawned | Answered | ForkServerGone


class ForkServerClient:
    """A handle on the fork server's process. One thread only; nothing here blocks but ``close``."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control = control
        self._orders: deque[bytes] = deque()  # those that did not fit into the socket yet
        self.pid = pid

    @classmethod
    def fork(cls) -> ForkServerClient:
        """Fork the fork server. For a process with one thread and nothing open that workers must not see."""
        # Packets: each order is one message, and its descriptors come with it.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            # The child keeps only its own end: else it would not see the manager's end close.
            ours.close()
            # Of a job without a shared disk: tasks, and what they print of their environment, need not see it.
            for name in [name for name in os.environ if name.startswith("FLOW_SECRET_") and name.endswith("_BASE64")]:
                del os.environ[name]
            ForkServer(theirs, parent).run_and_exit()
        theirs.close()
        ours.setblocking(False)
        return cls(ours, pid)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a report waits."""
        return self._control.fileno()

    def configure(
        self,
        *,
        executor: str,
        node: str,
        index_fd: int,
        log_dir: str = "",
        environment: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        max_result: int = 16 << 30,
        usage: bool = False,
        direct_channels: bool = False,
        files: str = "",
        scratch: Sequence[str] = (),
    ) -> None:
        """Send the settings that all workers share. To be called before the first ``spawn``.

        Args:
            executor: Label of the executor.
            node: Host name.
            index_fd: This process's descriptor of the index of blobs.
            log_dir: Where ``worker_N.log`` go; empty for none.
            environment: Variables of every worker.
            working_dir: Directory of staged files.
            max_result: Largest result in bytes.
            usage: Whether to measure what each task uses.
            direct channels: Whether workers can be given tasks by others than this process, and answer them.
            files: Name of the socket at which the files of tasks are asked for.
            scratch: Directories that are removed when all workers have ended.
        """
        settings = {
            "executor": executor,
            "node": node,
            "manager_pid": os.getpid(),
            "index_fd": index_fd,
            "working_dir": working_dir,
            "max_result": max_result,
            "usage": usage,
            "files": files,
        }
        shared = {
            "logs": log_dir,
            "env": dict(environment or {}),
            "settings": settings,
            "direct_channels": direct_channels,
        }
        self._send({"do": "configure", **shared, "scratch": list(scratch)})

    def spawn(self, rank: int, environment: Mapping[str, str], cpus: Sequence[int] = ()) -> None:
        """Ask for a worker; Spawned or NotSpawned will be reported."""
        self._send({"do": "spawn", "rank": rank, "env": dict(environment), "cpus": list(cpus)})

    def kill(self, rank: int, grace_s: float = 2.0, age_s: float | None = None) -> None:
        """Ask to end a worker with all that its task has started: SIGTERM, and SIGKILL after ``grace_s``.

        Died will be reported. ``age_s`` is how long ago the task began, if it runs one: daemons of tasks before it
        are spared.
        """
        self._send({"do": "kill", "rank": rank, "grace": grace_s, "age": age_s})

    def tell(self, rank: int, pid: int) -> None:
        """Ask to have the task of a worker told that its block ends; the worker itself answers."""
        self._send({"do": "tell", "rank": rank, "pid": pid})

    def sweep(self, rank: int, pid: int, age_s: float) -> None:
        """Ask to end what the task of a dead worker has left behind, which began ``age_s`` seconds ago.

        To be sent before its rank is started again. What was in the session of the worker has ended already.
        """
        self._send({"do": "sweep", "rank": rank, "pid": pid, "age": age_s})

    def ask(self) -> None:
        """Ask for a sign of life; Answered will be reported."""
        self._send({"do": "answer"})

    def receive(self) -> list[Report]:
        """Return the reports that wait, without blocking."""
        reports: list[Report] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, _FDS_A_MESSAGE)
            except BlockingIOError:
                self._flush()  # what it reported made room for more orders
                return reports
            except ConnectionError:
                data, fds = b"", []
            if not data:
                reports.append(ForkServerGone())
                return reports
            reports.append(_report(json.loads(data), fds))

    def close(self, timeout_s: float = 5.0) -> bool:
        """End all workers and the fork server; return whether it ended by itself within ``timeout_s``."""
        self._control.close()
        # A wait with a bound, for a child that is not reaped by anybody else.
        pidfd = os.pidfd_open(self.pid)
        try:
            import select

            ended = bool(select.select([pidfd], [], [], timeout_s)[0])
        finally:
            os.close(pidfd)
        if not ended:
            os.kill(self.pid, 9)
        deadline = time.monotonic() + _DEATH_S
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.001)  # the kernel may hold it for longer, as while a file system hangs
        return ended

    def _send(self, message: Mapping[str, object]) -> None:
        self._orders.append(json.dumps(message).encode())
        self._flush()

    def _flush(self) -> None:
        while self._orders:
            try:
                self._control.send(self._orders[0])
            except (BlockingIOError, ConnectionError):
                return  # sent after the next report; a dead fork server is reported by receive()
            self._orders.popleft()


def _report(message: dict[str, object], fds: list[int]) -> Report:
    match message:
        case {"was": "spawned", "rank": int(rank), "pid": int(pid), "depth": int(depth)}:
            task_in, task_back, result_out, *direct = fds
            return Spawned(rank, pid, task_in, task_back, result_out, depth, *direct)
        case {"was": "died", "rank": int(rank), "pid": int(pid), "status": int(status), "tail": str(tail)}:
            code = os.waitstatus_to_exitcode(status)
            return Died(rank, pid, code if code >= 0 else None, -code if code < 0 else None, tail)
        case {"was": "failed", "rank": int(rank), "reason": str(reason)}:
            return NotSpawned(rank, reason)
        case {"was": "here"}:
            return Answered()
        case _:
            raise ValueError(f"the fork server sent {message!r}: a bug of Flow")
