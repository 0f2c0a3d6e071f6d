"""The start of a worker process, from a fork of the fork server to its loop. Standard library and the leaf only."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys

from flow_core.prctl import die_with_parent
from flow_core.remote.faults import point
from flow_core.remote.processes import WORKER_PID
from flow_executors.worker.prints import opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

# Exit status of a worker that did not get as far as its loop, or whose loop failed.
_CRASHED = 70


class WorkerEnvironment:
    """What all workers of a manager share.

    Attributes:
        logs: Directory of the workers' logs; empty for none (they write where the manager writes).
        environment: Variables of every worker.
        settings: Keywords for ``loop.WorkerSettings``, all but the rank.
        direct channels: Whether each has a direct channel to the script.
    """

    __slots__ = ("direct_channels", "environment", "logs", "settings")

    def __init__(
        self,
        logs: str = "",
        environment: Mapping[str, str] | None = None,
        settings: Mapping[str, object] | None = None,
        direct_channels: bool = False,
    ) -> None:
        self.logs = logs
        self.environment = dict(environment or {})
        self.settings = dict(settings or {})
        self.direct_channels = direct_channels

    def log_of(self, rank: int) -> str:
        """Return the path of a worker's log, or an empty string."""
        return os.path.join(self.logs, f"worker_{rank}.log") if self.logs else ""


class WorkerLaunchSpec:
    """The start of one worker: its rank, variables, CPUs, log and pipe ends (-1: no direct channel)."""

    __slots__ = ("cpus", "direct_fd", "environment", "log", "rank", "result_fd", "task_fd")

    def __init__(
        self,
        rank: int,
        environment: Mapping[str, str],
        cpus: Sequence[int],
        log: str,
        task_fd: int,
        result_fd: int,
        direct_fd: int,
    ) -> None:
        self.rank = rank
        self.environment = environment
        self.cpus = cpus
        self.log = log
        self.task_fd = task_fd
        self.result_fd = result_fd
        self.direct_fd = direct_fd


def preload() -> None:
    """Import, in the fork server, what every worker needs: its forks share the pages."""
    import flow_executors.worker.loop  # noqa: F401 - only to have it loaded


def worker_main(pool: WorkerEnvironment, spec: WorkerLaunchSpec, fork_server_pid: int) -> NoReturn:
    """Turn the calling process, just forked, into a worker; ends with the process."""
    status = _CRASHED
    try:
        _settle(pool, spec, fork_server_pid)
        point("worker.born")
        from flow_core.remote.run import enter_worker
        from flow_core.remote.worker_imports import import_for_worker
        from flow_executors.worker.loop import Worker, WorkerSettings

        enter_worker()
        import_for_worker()
        settings = WorkerSettings(rank=spec.rank, **pool.settings)  # type: ignore[arg-type]  # checked by Fork server.configure
        Worker(settings, spec.task_fd, spec.result_fd, spec.direct_fd).serve()
        status = 0
    except BrokenPipeError:  # the manager is gone: refused, perhaps, before this worker was ready
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _settle(pool: WorkerEnvironment, spec: WorkerLaunchSpec, fork_server_pid: int) -> None:
    # A session of its own: its tasks' processes are found by it, and Ctrl-C does not reach them.
    os.setsid()
    die_with_parent()
    if os.getppid() != fork_server_pid:
        os._exit(_CRASHED)  # the fork server died before the line above
    set_name(process_name(spec.rank))
    for signum in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    _redirect(spec.log)
    # Tasks must not find the way to the block's key.
    for name in [name for name in os.environ if name.startswith("FLOW_SECRET_")]:
        del os.environ[name]
    _forget_runtime()
    os.environ.update(pool.environment)
    os.environ.update(spec.environment)
    os.environ[WORKER_PID] = str(os.getpid())
    if spec.cpus:
        _pin(spec.cpus)
    import faulthandler

    # A crash in C writes its traceback to the log, of which the end goes with the loss.
    faulthandler.enable(2)


def _forget_runtime() -> None:
    """Take from PYTHONPATH what was put there for Flow alone: programs that tasks start are not to find it."""
    for name in ("FLOW_LEFT_ASIDE", "FLOW_COMPARE_CODE"):
        os.environ.pop(name, None)
    own = os.environ.pop("FLOW_RUNTIME_PATH", "").split(os.pathsep)
    rest = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part not in own]
    if rest:
        os.environ["PYTHONPATH"] = os.pathsep.join(rest)
    elif own != [""]:
        os.environ.pop("PYTHONPATH", None)


def _redirect(log: str) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if log:
        try:
            fd = open_log(log)
        except OSError as error:
            os.write(2, f"worker log {log} cannot be opened ({error}): writing here instead\n".encode())
        else:
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            os.close(fd)
    sys.stdout, sys.stderr = opened(1), opened(2, "backslashreplace")


def open_log(path: str) -> int:
    """Open or make a log to be added to: a plain file of this user's with one name. Raises OSError.

    On a node another user may have made the directory, and have put links there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid():
        return fd
    os.close(fd)
    raise OSError(errno.EPERM, "it is not a plain file of this user with one name", path)


def _pin(cpus: Sequence[int]) -> None:
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        os.write(2, f"this worker could not be pinned to CPUs {list(cpus)} ({error}): it runs anywhere\n".encode())


def process_name(rank: int) -> str:
    """Return what a worker calls itself."""
    return f"flow-w{rank}"


def set_name(name: str) -> None:
    """Name the calling process, as ps and top show it (15 characters count)."""
    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write(name[:15])
    except OSError:
        return


def _flush() -> None:
    import atexit

    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # a full disk must not turn an orderly end into a crash
        pass
