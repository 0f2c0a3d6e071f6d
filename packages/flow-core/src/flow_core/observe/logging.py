"""Logging of Flow: to a stream or a file on request, and to the log of a run.

All our loggers are children of ``flow``. By itself the library logs nothing; what it logs at INFO because a run log is
open does not reach the handlers of the root logger unless the user's own levels ask for it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TextIO

from flow_core.fork_locks import renewed_after_fork
from flow_core.log_lines import LogLines
from flow_core.observe.log_file import LogFile
from flow_core.observe.run_logger import OnlyRun

ROOT = "flow"
FORMAT = "%(asctime)s.%(msecs)03d %(name)s:%(lineno)d [%(levelname)s] %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
RUN_LOG = "flow.log"
FORMATS = ("text", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Without any handler Python would print our warnings on standard error by itself.
logging.getLogger(ROOT).addHandler(logging.NullHandler())

# What was set up, by logger: so that it can be taken back, and what the user has set since is left alone.
_lock = renewed_after_fork(threading.Lock())
_ours: dict[str, list[logging.Handler]] = {}
_before: dict[str, tuple[int, bool]] = {}
_set: dict[str, int] = {}


def set_stream_logger(
    name: str = ROOT, level: int = logging.DEBUG, format_string: str | None = None, stream: TextIO | None = None
) -> Callable[[], None]:
    """Write log lines to a stream, standard error by default.

    Calling it again replaces what it set up before for that logger, so that a notebook cell run twice does not double
    every line.

    Args:
        name: The logger; ``flow`` is all of Flow.
        level: The least level that is written.
        format_string: A format of the logging module; None means Flow's own.
        stream: The stream; None means ``sys.stderr`` as it is now.

    Returns:
        A function that takes this back: nothing more is written to the stream, and the logger's level is what it was.
        It may be called more than once, and by any thread.
    """
    handler: logging.Handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    return _replace(name, "stream", _prepared(handler, level, format_string))


def set_file_logger(
    filename: str | os.PathLike[str], name: str = ROOT, level: int = logging.DEBUG, format_string: str | None = None
) -> Callable[[], None]:
    """Append log lines to a file; the same level, format and behaviour as ``set_stream_logger``.

    Returns:
        A function that takes this back and closes the file; as that of ``set_stream_logger``.

    Raises:
        OSError: the file cannot be opened.
    """
    path = os.path.abspath(filename)
    handler = LogFile(path)
    return _replace(name, f"file:{path}", _prepared(handler, level, format_string))


class RunLog:
    """The log of one run; made by ``open_run_log``.

    Attributes:
        logger: The logger ``flow``.
        path: The file.
    """

    def __init__(self, path: Path, handler: logging.Handler) -> None:
        self.logger = logging.getLogger(ROOT)
        self.path = path
        self._handler = handler

    def close(self) -> None:
        """Write no more to the file and close it; idempotent. Levels go back to what they were."""
        _remove(ROOT, self._handler)


def open_run_log(
    run_dir: str | os.PathLike[str], fmt: str = "text", level: int = logging.INFO, run_id: str | None = None
) -> RunLog:
    """Begin ``flow.log`` in a run's directory, which must exist.

    Args:
        run_dir: The run's directory.
        fmt: ``text``, ``json`` for one object a line, or a format of the logging module.
        level: The least level that is written.
        run_id: Leave out lines that are marked as another run's (``run_logger``); None writes all.

    Raises:
        ValueError: the format is unknown; or, as a format of the logging module, wrong.
        OSError: the file cannot be opened.
    """
    if wrong := wrong_format(fmt):
        raise ValueError(f"log format {wrong}")
    path = Path(run_dir) / RUN_LOG
    handler = _prepared(LogFile(path), level, None if fmt in FORMATS else fmt)
    if fmt == "json":
        handler.setFormatter(JsonFormatter())
    if run_id is not None:
        handler.addFilter(OnlyRun(run_id))
    _add(ROOT, handler)
    return RunLog(path, handler)


def wrong_format(fmt: str) -> str:
    """Return what is wrong with the format of a log; nothing where it is ``text``, ``json`` or one of ``logging``."""
    if fmt in FORMATS:
        return ""
    if "%(" not in fmt:
        return f"{fmt!r} is unknown; use 'text' or 'json', or a format of the logging module such as {FORMAT!r}"
    try:
        # Formatted once: what the module checks itself takes "%(asctme)s", and every line would be an error.
        logging.Formatter(fmt).format(logging.LogRecord(ROOT, logging.INFO, __file__, 1, "", (), None))
    except (ValueError, KeyError, TypeError) as error:
        return f"{fmt!r} is no format of the logging module: {error}"
    return ""


def level_number(level: int | str) -> int:
    """Return the number of a level that is given by one of ``LEVELS`` or by its number."""
    return level if isinstance(level, int) else logging.getLevelNamesMapping()[level]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message; task_id, try_id, executor where given; error."""

    extras = ("task_id", "try_id", "executor", "app", "state")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for one record."""
        moment = datetime.fromtimestamp(record.created, tz=UTC)
        line: dict[str, object] = {
            "time": moment.isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "line": record.lineno,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        for name in self.extras:
            if hasattr(record, name):
                line[name] = getattr(record, name)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _ToRoot(logging.Handler):
    """Hands records on to the root logger's handlers, but only those the user's own levels ask for.

    A run log needs the logger ``flow`` at INFO. Plain propagation would then print every INFO line of Flow on the
    terminal of any script that called ``logging.basicConfig()``, since handlers of the root have no level of their own.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._logger = logging.getLogger(name)

    def emit(self, record: logging.LogRecord) -> None:
        # The level is ours where we have set it: then that of before is what the user asked for.
        own = self._logger.level
        asked = own if own != _set.get(self._logger.name) else _before.get(self._logger.name, (0, True))[0]
        root = logging.getLogger()
        if root.handlers and record.levelno >= (asked or root.level):
            root.callHandlers(record)


def _prepared(handler: logging.Handler, level: int, format_string: str | None) -> logging.Handler:
    handler.setLevel(level)
    formatter = LogLines(format_string or FORMAT, datefmt=DATE_FORMAT)
    # Local time, as users read it beside their clock; JSON lines have UTC.
    formatter.converter = time.localtime
    handler.setFormatter(formatter)
    return handler


def _replace(name: str, slot: str, handler: logging.Handler) -> Callable[[], None]:
    """Set up a handler in the place of one of before; return the function that takes it back."""
    handler.set_name(f"flow.{name}.{slot}")
    with _lock:
        old = [known for known in _ours.get(name, ()) if known.get_name() == handler.get_name()]
    # Without the lock, which _remove takes.
    for known in old:
        _remove(name, known)
    _add(name, handler)
    return partial(_remove, name, handler)


def _add(name: str, handler: logging.Handler) -> None:
    logger = logging.getLogger(name)
    with _lock:
        if not _ours.get(name):
            _before[name] = (logger.level, logger.propagate)
            # For the first of our handlers alone: the root's handlers get each record once.
            if name == ROOT and logger.propagate:
                logger.propagate = False
                logger.addHandler(_ToRoot(name))
        _ours.setdefault(name, []).append(handler)
        logger.addHandler(handler)
        _set_level(logger)


def _remove(name: str, handler: logging.Handler) -> None:
    logger = logging.getLogger(name)
    with _lock:
        known = _ours.get(name, [])
        if handler not in known:
            return
        known.remove(handler)
        logger.removeHandler(handler)
        handler.close()
        if known:
            _set_level(logger)
            return
        level, propagate = _before.pop(name)
        # Only if nobody has set another level since.
        if logger.level == _set.pop(name, None):
            logger.setLevel(level)
        logger.propagate = propagate
        for other in [h for h in logger.handlers if isinstance(h, _ToRoot)]:
            logger.removeHandler(other)


def _set_level(logger: logging.Logger) -> None:
    """Set the logger's level to the least of its handlers: records below it cost nothing."""
    # The user has set a level after us: that one counts.
    if _set.get(logger.name, logger.level) != logger.level:
        return
    wanted = min(handler.level for handler in _ours[logger.name])
    before = _before[logger.name][0]
    logger.setLevel(min(wanted, before) if before else wanted)
    _set[logger.name] = logger.level
