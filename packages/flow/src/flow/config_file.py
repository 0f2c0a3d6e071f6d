"""Configurations kept in files of their own: a Python file that binds a Config to the name ``config``."""

from __future__ import annotations

import os
import runpy
import traceback
from importlib import import_module

from flow_core.config import Config
from flow_core.errors import ConfigurationError

_OURS = "flow.configs."


def load_config(source: str | os.PathLike[str], *, name: str = "config") -> Config:
    """Return the Config that a file (``sites/midway.py``) or a module (``flow.configs.local_htex``) defines.

    Args:
        source: Path of a Python file, or the dotted name of a module.
        name: The name the Config is bound to.

    Raises:
        ConfigurationError: there is no such file or module, it fails, or binds no Config; says where and what to do.
    """
    where = os.fspath(source)
    namespace = _run_file(where) if _is_file(where) else _import(where)
    if name not in namespace:
        raise ConfigurationError(f"{where}: binds no name {name!r}; write `{name} = Config(...)` in it")
    config = namespace[name]
    if not isinstance(config, Config):
        raise ConfigurationError(f"{where}: {name!r} is a {type(config).__name__}, not a Config")
    return config


def _is_file(where: str) -> bool:
    """Whether a file is meant: not one that has the name of one of Flow's modules, which others could put there."""
    return where.endswith(".py") or (not where.startswith(_OURS) and os.path.exists(where))


def _run_file(path: str) -> dict[str, object]:
    try:
        return runpy.run_path(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise ConfigurationError(f"{_line_of(error, path)}: {type(error).__name__}: {error}") from error


def _import(module: str) -> dict[str, object]:
    try:
        return vars(import_module(module))
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{module}: no such file or module ({error})") from error
    except Exception as error:
        raise ConfigurationError(f"{module}: fails on import: {type(error).__name__}: {error}") from error


def _line_of(error: Exception, path: str) -> str:
    if isinstance(error, SyntaxError):
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{path}, line {lines[-1]}" if lines else path
