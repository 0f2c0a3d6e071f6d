"""The projection as a process: niced, told what to do over its standard input, ends when that does."""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

from flow_monitor.errors import MonitorError
from flow_monitor.project.projector import Job, Outage, Projector

logger = logging.getLogger("flow.monitor.projector")


class ParentWatch:
    """Knows whether the log's writer still is there: end of file on standard input, or another parent."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._parent = os.getppid()
        os.set_blocking(fd, False)

    def wait(self, seconds: float) -> bool:
        """Sleep; return False at once when the parent has closed its end or is gone."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if ready:
            try:
                return bool(os.read(self._fd, 4096)) and self.wait(seconds)
            except BlockingIOError:
                pass
        return os.getppid() == self._parent


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


def main() -> int:
    """Run one projection; return the exit code: 0 done, 1 cannot be done, 75 not done yet (the log has the rest)."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver; its end ends us
    with suppress(OSError):
        os.nice(19)  # it may lag: tasks of the run come first
    gc.set_threshold(100_000, 20, 100)  # rows are many and in no cycles
    try:
        job, patience_s = read_job(0)
        logger.info("projecting run %s", job.run_id)
        done = Projector(job, ParentWatch(0).wait, patience_s, logger).run()
    except Outage as error:
        logger.error("gave up, rebuild with 'flow monitor rebuild': %s", error)
        return 75
    except MonitorError as error:
        logger.error("%s", error)
        return 1
    logger.info("done: %d events, %d damaged bytes", done.events, done.damaged)
    return 0
