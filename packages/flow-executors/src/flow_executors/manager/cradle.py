"""The nursery's own process: forks workers, reaps them, sweeps their sessions. Single-threaded; never touches zmq.

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
from flow_executors.manager import sessions
from flow_executors.worker import birth

MAX_MESSAGE = 262_144
_PAGES = 64
_PAGE_SIZE = 4096
_RESULT_PIPE = 262_144
_LANE_PIPE = 65_536
_TAIL_BYTES = 4096
_READ_BACK = 16_384
_FATAL = b"Fatal Python error"
_END_GRACE_S = 2.0
_RESCAN_S = 0.05
_UNKILLABLE_S = 10.0
"""Who has not died of SIGKILL for so long is in the kernel's hands (a file system that hangs), and never runs again."""


class _Infant:
    """One worker as its nursery knows it."""

    __slots__ = ("doomed", "log", "log_start", "pid", "rank", "tree")

    def __init__(self, rank: int, pid: int, log: str, log_start: int) -> None:
        self.rank = rank
        self.pid = pid
        self.log = log
        self.log_start = log_start
        self.doomed: float | None = None  # when it is killed with what it has started
        self.tree: Tree | None = None  # that, once it is to end


class Cradle:
    """The loop of the nursery."""

    def __init__(self, control: socket.socket, manager_pid: int) -> None:
        self._control = control
        self._manager_pid = manager_pid
        self._pool = birth.Pool()
        self._workers: dict[int, _Infant] = {}  # by pid
        self._lingering: list[tuple[Tree, float]] = []  # what dead workers have left, and when to SIGKILL it
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
        birth.set_name("flow-nursery")
        become_subreaper()
        self._wakeup.setblocking(False)
        self._alarm.setblocking(False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the manager's to handle
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)
        birth.preload()
        gc.collect()
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
        doomed = any(infant.doomed is not None for infant in self._workers.values())
        return int(_RESCAN_S * 1000) if doomed or self._lingering else None

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
                "lanes": bool(lanes),
            }:
                self._pool = birth.Pool(logs, env, settings, lanes)
            case {"do": "spawn", "rank": int(rank), "env": dict(env), "cpus": list(cpus)}:
                self._spawn(rank, env, cpus)
            case {"do": "kill", "rank": int(rank), "grace": float(grace) | int(grace), "age": age}:
                self._kill(rank, float(grace), _since(age))
            case {"do": "sweep", "rank": int(rank), "pid": int(pid), "age": float(age) | int(age)}:
                self._sweep_strays(sessions.tree_of(pid, birth.name_of(rank), _since(age), self._workers, dead=True))
            case {"do": "answer"}:
                self._tell({"was": "here"})

    def _spawn(self, rank: int, env: dict[str, str], cpus: list[int]) -> None:
        point("nursery.spawn")
        fds: list[int] = []
        try:
            task_r, task_w = _pipe(fds, os.O_DIRECT, _PAGES * _PAGE_SIZE)
            result_r, result_w = _pipe(fds, 0, _RESULT_PIPE)
            lane = _pipe(fds, 0, _LANE_PIPE) if self._pool.lanes else ()
            depth = fcntl.fcntl(task_w, fcntl.F_GETPIPE_SZ) // _PAGE_SIZE - 1
            log = self._pool.log_of(rank)
            log_start = _size(log)
            nursery = os.getpid()
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
        except OSError as error:
            self._close(fds)
            self._tell({"was": "failed", "rank": rank, "reason": str(error)})
            return
        if pid == 0:
            self._leave([task_w, result_r, *lane[:1]])
            cot = birth.Cot(rank, env, cpus, log, task_r, result_w, lane[1] if lane else -1)
            birth.be_born(self._pool, cot, nursery)
        self._workers[pid] = _Infant(rank, pid, log, log_start)
        ends = [task_w, task_r, result_r, *lane[:1]]
        self._tell({"was": "spawned", "rank": rank, "pid": pid, "depth": depth}, ends)
        self._close(fds)

    def _leave(self, others: list[int]) -> None:
        """In the newborn: forget what belongs to the nursery."""
        signal.set_wakeup_fd(-1)
        self._control.close()
        self._wakeup.close()
        self._alarm.close()
        self._close(others)

    def _kill(self, rank: int, grace_s: float, since: int | None) -> None:
        for infant in self._workers.values():
            if infant.rank == rank and infant.doomed is None:
                infant.doomed = time.monotonic() + grace_s
                infant.tree = self._tree_of(infant, since)
                send(infant.tree.look(), signal.SIGTERM, signal.SIGCONT)

    def _tree_of(self, infant: _Infant, since: int | None) -> Tree:
        return sessions.tree_of(infant.pid, birth.name_of(infant.rank), since, self._workers)

    # -- deaths

    def _reap(self) -> None:
        while True:
            try:
                self._wakeup.recv(4096)
            except BlockingIOError:
                break
        while (ended := _ended_child()) is not None:
            infant = self._workers.pop(ended, None)
            if infant is not None:
                self._sweep_after(infant)
            status = os.waitpid(ended, 0)[1]
            if infant is not None:
                tail = _tail(infant.log, infant.log_start)
                self._tell({"was": "died", "rank": infant.rank, "pid": ended, "status": status, "tail": tail})

    def _sweep_after(self, infant: _Infant) -> None:
        """End what a dead worker's task left running: at once, or after its grace if it was told to end."""
        if infant.tree is None or infant.doomed is None:
            self._sweep_strays(self._tree_of(infant, None))
        elif infant.tree.look():
            self._lingering.append((infant.tree, infant.doomed))

    def _sweep_strays(self, tree: Tree) -> None:
        send(tree.look(), signal.SIGKILL)
        self._lingering.append((tree, time.monotonic()))  # they may just have started others

    def _sweep(self) -> None:
        """Kill what outlived its grace."""
        doomed = [infant for infant in self._workers.values() if infant.doomed is not None]
        if not doomed and not self._lingering:
            return
        now, processes = time.monotonic(), table()
        for infant in doomed:
            if infant.tree is not None and infant.doomed is not None and infant.doomed <= now:
                send(infant.tree.look(processes), signal.SIGKILL)
                if infant.doomed + _UNKILLABLE_S <= now:
                    self._give_up(infant)
        left = [(tree, deadline, tree.look(processes)) for tree, deadline in self._lingering]
        for _, deadline, pids in left:
            if deadline <= now:
                send(pids, signal.SIGKILL)
        self._lingering = [(tree, when) for tree, when, pids in left if pids and now < when + _UNKILLABLE_S]

    def _give_up(self, infant: _Infant) -> None:
        """Report one as dead that will be, once the kernel lets go of it: it never comes back to its task."""
        del self._workers[infant.pid]
        tail = "it did not die of SIGKILL: it waits in the kernel, as for a file system that hangs"
        self._tell({"was": "died", "rank": infant.rank, "pid": infant.pid, "status": signal.SIGKILL, "tail": tail})

    def _end_all(self) -> None:
        """End all workers and everything they left behind: it all is below this process."""
        me = os.getpid()
        end(lambda: [one.pid for one in below((me,), table())], _END_GRACE_S)

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
    raise ImportError("the nursery needs Linux (packet pipes, subreapers): use threads or another executor here")
