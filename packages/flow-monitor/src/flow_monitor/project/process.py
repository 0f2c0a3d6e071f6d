"""The projection process: niced while the run goes on; its job and its end come over standard input."""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from flow_core.log_lines import LogLines
from flow_core.prctl import go_on_after_parent
from flow_monitor.errors import MonitorError
from flow_monitor.project.projector import Job, Outage, Projector, cause_of
from flow_monitor.project.store import Progress
from flow_monitor.project.supervisor import END

GC_THRESHOLD = (1_000_000, 20, 100)
"""Thresholds of gc.set_threshold: rows are many and in no cycles, so a batch is over before a search for cycles."""

logger = logging.getLogger("flow.monitor.projector")


class ParentWatch:
    """Knows whether the log's writer still is there: it says when it ends, or closes its end, or is gone.

    Processes forked from the writer (a ProcessPoolExecutor's, the script's own) hold its end of the pipe as well, so
    end of file alone may come very late.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._parent = os.getppid()
        self._ended = False
        # Another reader of the pipe (a child of ours) may have taken what select() saw.
        os.set_blocking(fd, False)

    def wait(self, seconds: float) -> bool:
        """Sleep up to some seconds; return False at once when the parent sent the end, closed its pipe or is gone."""
        if not self._ended:
            ready, _, _ = select.select([self._fd], [], [], seconds)
            if ready:
                with suppress(BlockingIOError):
                    self._ended = os.read(self._fd, 4096) in (b"", END)
        # The parent's id changes when it dies, also while forked children keep the pipe open.
        return not self._ended and os.getppid() == self._parent


def read_job(fd: int) -> tuple[Job, float]:
    """Read the first line of standard input: the job and the patience in seconds.

    Secrets of the database's URI come this way, since command lines are public.

    Raises:
        MonitorError: it is no job.
    """
    line = b""
    while not line.endswith(b"\n"):
        # Byte by byte: what is read beyond the line would be missing in ParentWatch, which reads the same descriptor.
        byte = os.read(fd, 1)
        if not byte:
            break
        line += byte
    try:
        told = json.loads(line)
        return Job(told["run_id"], Path(told["log"]), told["endpoint"]), float(told["patience_s"])
    except (ValueError, KeyError, TypeError) as error:
        raise MonitorError("this program is started by MonitoringHub; use 'flow monitor rebuild' by hand") from error


def _project(projector: Projector) -> Progress:
    """Project at the lowest priority while the run goes on, since its tasks come first; what is left, at its own."""
    try:
        projector.open()
        _niced(projector.follow)
        return projector.finish()
    finally:
        projector.close()


def _niced(act: Callable[[], None]) -> None:
    """Call something at the lowest priority, and raise what it raises.

    On Linux that is of a thread, and an ordinary user cannot take it back: so it is one of its own that ends after it.
    """
    failures: list[BaseException] = []

    def run() -> None:
        """Lower the priority of this thread, then act; what is raised goes to the caller's thread."""
        with suppress(OSError):
            if sys.platform == "linux":
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
            else:
                os.nice(19)
        try:
            act()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="flow-projection")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _tell(**news: object) -> None:
    """Report to the script over standard output. An error is ignored: the script may be gone."""
    with suppress(OSError):
        os.write(1, json.dumps(news).encode() + b"\n")


def _report_stuck(reason: str, seconds: float) -> None:
    _tell(stuck=reason, seconds=seconds)


def main() -> int:
    """Run one projection; return the exit code: 0 done, 1 cannot be done, 75 not done yet (the log has the rest)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("alembic", "sqlalchemy"):
        # Both log each migration and statement at INFO, into a file that stays in the run directory.
        logging.getLogger(name).setLevel(logging.WARNING)
    for number in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C and a closed terminal are for the driver; its end ends us
        signal.signal(number, signal.SIG_IGN)
    # A projection that is stopped (SIGSTOP) would not see the end of the script, and stay for good.
    go_on_after_parent()
    gc.set_threshold(*GC_THRESHOLD)
    try:
        job, patience_s = read_job(0)
        logger.info("projecting run %s", job.run_id)
        done = _project(Projector(job, ParentWatch(0).wait, patience_s, logger, _report_stuck))
    except Outage as error:
        logger.error("gave up, rebuild with 'flow monitor rebuild': %s", error)
        # One line: the script's log names the cause, details are in projector.log.
        _tell(failed=str(error).splitlines()[0])
        return 75
    except MonitorError as error:
        logger.error("%s", error)
        _tell(failed=str(error))
        return 1
    except DBAPIError as error:
        logger.exception("the database cannot be written")
        _tell(failed=cause_of(error))
        return 1
    logger.info("done: %d events, %d damaged bytes", done.events, done.damaged)
    return 0
