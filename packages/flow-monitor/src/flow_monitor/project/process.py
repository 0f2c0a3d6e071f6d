"""The projection as a process: niced while the run goes on, told over standard input what to do and when to end."""

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

from flow_core.prctl import go_on_after_parent
from flow_monitor.errors import MonitorError
from flow_monitor.project.projector import Job, Outage, Projector, cause_of
from flow_monitor.project.store import Progress
from flow_monitor.project.supervisor import END

GC_THRESHOLD = (1_000_000, 20, 100)
"""Rows are many and in no cycles: a batch is over before cycles are looked for."""

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
        os.set_blocking(fd, False)

    def wait(self, seconds: float) -> bool:
        """Sleep; return False at once when the parent has told the end, has closed its end or is gone."""
        if not self._ended:
            ready, _, _ = select.select([self._fd], [], [], seconds)
            if ready:
                with suppress(BlockingIOError):
                    self._ended = os.read(self._fd, 4096) in (b"", END)
        return not self._ended and os.getppid() == self._parent


def read_job(fd: int) -> tuple[Job, float]:
    """Read the first line of standard input: the job and the patience in seconds.

    Secrets of the database's URI come this way, since command lines are public.

    Raises:
        MonitorError: it is no job.
    """
    line = b""
    while not line.endswith(b"\n"):
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
    """Tell the script's side over standard output. It may be gone: then nobody needs to know."""
    with suppress(OSError):
        os.write(1, json.dumps(news).encode() + b"\n")


def _tell_stuck(reason: str, seconds: float) -> None:
    _tell(stuck=reason, seconds=seconds)


def main() -> int:
    """Run one projection; return the exit code: 0 done, 1 cannot be done, 75 not done yet (the log has the rest)."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for number in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C and a closed terminal are for the driver; its end ends us
        signal.signal(number, signal.SIG_IGN)
    go_on_after_parent()
    gc.set_threshold(*GC_THRESHOLD)
    try:
        job, patience_s = read_job(0)
        logger.info("projecting run %s", job.run_id)
        done = _project(Projector(job, ParentWatch(0).wait, patience_s, logger, _tell_stuck))
    except Outage as error:
        logger.error("gave up, rebuild with 'flow monitor rebuild': %s", error)
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
