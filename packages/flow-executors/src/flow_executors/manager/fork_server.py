"""The fork server's own process: forks workers, reaps them, sweeps their sessions. Single-threaded; never touches zmq.

It ends, with all workers, when its socket to the manager closes. Whatever processes tasks leave behind come to it,
since it is their subreaper.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import NoReturn

from flow_core.prctl import become_subreaper
from flow_core.remote.faults import point
from flow_core.remote.processes import Tree, below, end, send, table, ticks_ago
from flow_executors.manager import process_trees
from flow_executors.worker import bootstrap
from flow_executors.worker.packets import BLOCK_ENDS, NOTICES

# Bytes of an order or a report: they hold an environment, or the tail of a log.
MAX_MESSAGE = 262_144
# Pages of a task pipe, one a packet. A user may have 16384 pages of pipes in all: 256 workers of so many.
_PAGES = 64
# Bytes; a pipe of packets gives each a page of its own, however short it is.
_PAGE_SIZE = 4096
# Bytes of a result pipe: a worker that runs ahead of its manager blocks later.
_RESULT_PIPE = 262_144
# Bytes of a direct channel's pipe: the other side has few tasks out at a time, each with 16 KiB of result at most.
_DIRECT_PIPE = 65_536
# Bytes of a dead worker's log that its tasks' errors show.
_TAIL_BYTES = 4096
# Bytes of its log that are searched for the traceback of a crash, whose top tells what happened.
_READ_BACK = 16_384
_FATAL = b"Fatal Python error"
# Seconds between SIGTERM and SIGKILL for all that is left at the end.
_END_GRACE_S = 2.0
# Seconds between looks while something is to die: processes that are being killed may start others.
_RESCAN_S = 0.05
# Seconds after SIGKILL after which a process is given up: it waits in the kernel, as for a file system that hangs, and
# never runs again.
_UNKILLABLE_S = 10.0


class _WorkerProcess:
    """A worker process, its log, and what is to end with it."""

    __slots__ = ("killed_at", "log", "log_start", "pid", "rank", "tree")

    def __init__(self, rank: int, pid: int, log: str, log_start: int) -> None:
        self.rank = rank
        self.pid = pid
        self.log = log
        self.log_start = log_start
        self.killed_at: float | None = None  # when it is killed with what it has started
        self.tree: Tree | None = None  # that, once it is to end


class ForkServer:
    """The loop of the fork server."""

    def __init__(self, control: socket.socket, manager_pid: int) -> None:
        self._control = control
        self._manager_pid = manager_pid
        self._pool = bootstrap.WorkerEnvironment()
        self._workers: dict[int, _WorkerProcess] = {}  # by pid
        self._lingering: list[tuple[Tree, float]] = []  # what dead workers have left, and when to SIGKILL it
        self._scratch: list[str] = []  # removed at the end: a manager that was killed cannot
        self._wakeup, self._alarm = socket.socketpair()

    def run_and_exit(self) -> NoReturn:
        """Serve until the manager is gone, then end every worker and this process."""
        status = 0
        try:
            self._prepare()
            self._serve()
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 70
        finally:
            try:
                self._end_all()
            finally:
                os._exit(status)

    def _prepare(self) -> None:
        bootstrap.set_name("flow-forkserver")
        # Daemons of tasks come to this process instead of init: so they can be found, and ended.
        become_subreaper()
        self._wakeup.setblocking(False)
        self._alarm.setblocking(False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the manager's to handle
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for notice in NOTICES:
            signal.signal(notice, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)
        bootstrap.preload()
        gc.collect()
        # What is loaded here is shared by all forks: a collection in one would write to its pages, and copy them.
        gc.freeze()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while True:
            poll.poll(self._patience_ms())
            self._reap()
            self._sweep()
            if not self._listen():
                return

    def _patience_ms(self) -> int | None:
        killed_at = any(process.killed_at is not None for process in self._workers.values())
        return int(_RESCAN_S * 1000) if killed_at or self._lingering else None

    # -- orders of the manager

    def _listen(self) -> bool:
        """Obey the orders that wait; False when the manager is gone."""
        while True:
            try:
                data = self._control.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except ConnectionError:
                return False
            if not data:
                return False
            self._obey(json.loads(data))

    def _obey(self, order: dict[str, object]) -> None:
        match order:
            case {
                "do": "configure",
                "logs": str(logs),
                "env": dict(env),
                "settings": dict(settings),
                "direct_channels": bool(direct_channels),
                "scratch": list(scratch),
            }:
                self._pool = bootstrap.WorkerEnvironment(logs, env, settings, direct_channels)
                self._scratch = scratch
            case {"do": "spawn", "rank": int(rank), "env": dict(env), "cpus": list(cpus)}:
                self._spawn(rank, env, cpus)
            case {"do": "kill", "rank": int(rank), "grace": float(grace) | int(grace), "age": age}:
                self._kill(rank, float(grace), _since(age))
            case {"do": "tell", "rank": int(rank), "pid": int(pid)}:
                process = self._workers.get(pid)
                # A child that was not waited for: its pid is nobody else's.
                if process is not None and process.rank == rank:
                    os.kill(pid, BLOCK_ENDS)
            case {"do": "sweep", "rank": int(rank), "pid": int(pid), "age": float(age) | int(age)}:
                self._sweep_orphans(
                    process_trees.tree_of(pid, bootstrap.process_name(rank), _since(age), self._workers, dead=True)
                )
            case {"do": "answer"}:
                self._tell({"was": "here"})

    def _spawn(self, rank: int, env: dict[str, str], cpus: list[int]) -> None:
        point("fork_server.spawn")
        fds: list[int] = []
        try:
            task_r, task_w = _pipe(fds, os.O_DIRECT, _PAGES * _PAGE_SIZE)
            result_r, result_w = _pipe(fds, 0, _RESULT_PIPE)
            direct = _pipe(fds, 0, _DIRECT_PIPE) if self._pool.direct_channels else ()
            # As large as it became, not as it was asked for: the user's limit may have left it small.
            depth = fcntl.fcntl(task_w, fcntl.F_GETPIPE_SZ) // _PAGE_SIZE - 1
            log = self._pool.log_of(rank)
            log_start = _size(log)
            fork_client = os.getpid()
            # Else text in the buffers would be written by both processes.
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
        except OSError as error:
            self._close(fds)
            self._tell({"was": "failed", "rank": rank, "reason": str(error)})
            return
        if pid == 0:
            self._leave([task_w, result_r, *direct[:1]])
            spec = bootstrap.WorkerLaunchSpec(rank, env, cpus, log, task_r, result_w, direct[1] if direct else -1)
            bootstrap.worker_main(self._pool, spec, fork_client)
        self._workers[pid] = _WorkerProcess(rank, pid, log, log_start)
        ends = [task_w, task_r, result_r, *direct[:1]]
        self._tell({"was": "spawned", "rank": rank, "pid": pid, "depth": depth}, ends)
        self._close(fds)

    def _leave(self, others: list[int]) -> None:
        """In the new worker: forget what belongs to the fork server."""
        signal.set_wakeup_fd(-1)
        self._control.close()
        self._wakeup.close()
        self._alarm.close()
        self._close(others)

    def _kill(self, rank: int, grace_s: float, since: int | None) -> None:
        for process in self._workers.values():
            if process.rank == rank and process.killed_at is None:
                process.killed_at = time.monotonic() + grace_s
                process.tree = self._tree_of(process, since)
                send(process.tree.look(), signal.SIGTERM, signal.SIGCONT)

    def _tree_of(self, process: _WorkerProcess, since: int | None) -> Tree:
        return process_trees.tree_of(process.pid, bootstrap.process_name(process.rank), since, self._workers)

    # -- deaths

    def _reap(self) -> None:
        while True:
            try:
                self._wakeup.recv(4096)
            except BlockingIOError:
                break
        while (ended := _ended_child()) is not None:
            process = self._workers.pop(ended, None)
            if process is not None:
                self._sweep_after(process)
            # Only now: as long as it is a zombie its pid cannot be another process's, and the sweep goes by pids.
            status = os.waitpid(ended, 0)[1]
            if process is not None:
                tail = _tail(process.log, process.log_start)
                self._tell({"was": "died", "rank": process.rank, "pid": ended, "status": status, "tail": tail})

    def _sweep_after(self, process: _WorkerProcess) -> None:
        """End what a dead worker's task left running: at once, or after its grace if it was asked to end."""
        if process.tree is None or process.killed_at is None:
            self._sweep_orphans(self._tree_of(process, None))
        elif process.tree.look():
            self._lingering.append((process.tree, process.killed_at))

    def _sweep_orphans(self, tree: Tree) -> None:
        send(tree.look(), signal.SIGKILL)
        self._lingering.append((tree, time.monotonic()))  # they may just have started others

    def _sweep(self) -> None:
        """Kill what outlived its grace."""
        killed_at = [process for process in self._workers.values() if process.killed_at is not None]
        if not killed_at and not self._lingering:
            return
        now, processes = time.monotonic(), table()
        for process in killed_at:
            if process.tree is not None and process.killed_at is not None and process.killed_at <= now:
                send(process.tree.look(processes), signal.SIGKILL)
                if process.killed_at + _UNKILLABLE_S <= now:
                    self._give_up(process)
        left = [(tree, deadline, tree.look(processes)) for tree, deadline in self._lingering]
        for _, deadline, pids in left:
            if deadline <= now:
                send(pids, signal.SIGKILL)
        self._lingering = [(tree, when) for tree, when, pids in left if pids and now < when + _UNKILLABLE_S]

    def _give_up(self, process: _WorkerProcess) -> None:
        """Report a worker as dead that the kernel still holds: it never comes back to its task."""
        del self._workers[process.pid]
        tail = "it did not die of SIGKILL: it waits in the kernel, as for a file system that hangs"
        self._tell({"was": "died", "rank": process.rank, "pid": process.pid, "status": signal.SIGKILL, "tail": tail})

    def _end_all(self) -> None:
        """End all workers and everything they left behind: it all is below this process."""
        me = os.getpid()
        end(lambda: [one.pid for one in below((me,), table())], _END_GRACE_S)
        for path in self._scratch:
            if os.path.lexists(path):  # of a manager that was killed
                from flow_core.remote.staged import release_of_another  # which no worker needs

                release_of_another(path)

    # -- ways out

    def _tell(self, message: dict[str, object], fds: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], fds or [])
        except OSError:
            return  # the manager is gone: seen by the next recv

    @staticmethod
    def _close(fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)


def _pipe(fds: list[int], flags: int, size: int) -> tuple[int, int]:
    ends = os.pipe2(os.O_CLOEXEC | flags)
    fds.extend(ends)
    try:
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, size)
    except OSError:
        pass  # the user's limit of pipe pages is reached: it stays at the system's default
    return ends


def _since(age_s: object) -> int | None:
    """Return the clock tick of so many seconds ago; None for no time."""
    return ticks_ago(float(age_s)) if isinstance(age_s, float | int) else None


def _ended_child() -> int | None:
    """Return the pid of a child that ended and still is a zombie, whose pid can't be taken by another yet."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if info is None else info.si_pid


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _tail(path: str, start: int) -> str:
    try:
        with open(path, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(start if start <= size else 0, size - _READ_BACK))  # it may have been cut meanwhile
            text = log.read(_READ_BACK)
    except OSError:
        return ""
    crash = text.rfind(_FATAL)
    if crash >= 0:  # the traceback of a crash has what matters at its top, and its bottom is the loop
        crash = max(0, crash - _TAIL_BYTES // 4)
        return text[crash : crash + _TAIL_BYTES].decode("utf-8", "replace")
    return text[-_TAIL_BYTES:].decode("utf-8", "replace")


if sys.platform != "linux":
    raise ImportError("the fork server needs Linux (packet pipes, subreapers): use threads or another executor here")
