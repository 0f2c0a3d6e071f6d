"""``python -m flow_executors.interchange --label LABEL --run RUN``: settings come as JSON on standard input."""

from __future__ import annotations

import logging
import resource
import signal
import sys

from flow_core.folders import closed_to_writers
from flow_core.log_lines import LogLines
from flow_core.prctl import go_on_after_parent
from flow_executors.common.core_dumps import leave_no_core
from flow_executors.common.interchange_settings import ProcessSettings
from flow_executors.interchange.server import InterchangeServer, introduction
from flow_executors.wire.schema import decode


def main() -> int:
    """Run one interchange until its script is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the script, which then says EXIT
    go_on_after_parent()
    leave_no_core()
    _raise_descriptor_limit()
    setup = decode(ProcessSettings, sys.stdin.buffer.read())
    logger = _open_log(setup)
    logger.info("interchange %d of %s, run %s, at %s", setup.incarnation, setup.label, setup.run_id, setup.endpoint)
    try:
        InterchangeServer(setup, introduction(setup, _version()), logger).run()
    except Exception:
        logger.exception("the interchange failed")
        return 1
    logger.info("the interchange ends")
    return 0


def _handler(path: str) -> logging.Handler:
    """Return the handler of a log file; of standard error where there is none, or its directory cannot be used."""
    try:
        return logging.StreamHandler(open(path, "a", opener=closed_to_writers) if path else None)
    except OSError:
        return logging.StreamHandler()


def _open_log(setup: ProcessSettings) -> logging.Logger:
    logging.raiseExceptions = False  # a full disk must not disturb the run
    logger = logging.getLogger("flow.interchange")
    logger.setLevel(logging.DEBUG if setup.debug else logging.INFO)
    handler = _handler(setup.log)
    handler.setFormatter(LogLines("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        pass


def _version() -> str:
    from flow_executors import __version__

    return __version__


if __name__ == "__main__":
    sys.exit(main())
