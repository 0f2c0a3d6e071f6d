"""Loggers: those of Parsl are called ``parsl``, Flow's ``flow``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TextIO

import flow_core
from flow_core import AUTO_LOGNAME as AUTO_LOGNAME

DEFAULT_FORMAT = (
    "%(created)f %(asctime)s %(processName)s-%(process)d %(threadName)s-%(thread)d %(name)s:%(lineno)d %(funcName)s "
    "%(levelname)s: %(message)s"
)


def _name(name: str) -> str:
    return f"flow{name[len('parsl') :]}" if name == "parsl" or name.startswith("parsl.") else name


def set_stream_logger(
    name: str = "parsl", level: int = 10, format_string: str | None = None, stream: TextIO | None = None
) -> Callable[[], None]:
    """Show what is logged; return a function that ends it."""
    return _ending(flow_core.set_stream_logger(_name(name), level, format_string or DEFAULT_FORMAT, stream))


def set_file_logger(
    filename: str | os.PathLike[str], name: str = "parsl", level: int = 10, format_string: str | None = None
) -> Callable[[], None]:
    """Write what is logged to a file; return a function that ends it."""
    return _ending(flow_core.set_file_logger(filename, _name(name), level, format_string or DEFAULT_FORMAT))


def _ending(end: Callable[[], None] | None) -> Callable[[], None]:
    """Return what a logger of Flow gave back, if that ends it."""
    return (lambda: None) if end is None else end
