"""Config with Parsl's options, and the objects that its options take."""

from __future__ import annotations

import os
from abc import ABCMeta
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import update_wrapper
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, cast

import flow_core
from flow.compat.parsl.adapters.basic_memoizer import BasicMemoizer, Memoizer as OwnMemoizerOfParsl
from flow.compat.parsl.adapters.own_memoizer import OwnMemoizer
from flow.compat.parsl.adapters.tasks import record_of
from flow.compat.parsl.adapters.translated import by_position
from flow_core import TaskView
from flow_core.checkpoint.find import get_all_checkpoints
from flow_core.errors import ConfigurationError
from flow_core.graph.resolver import DEEP
from flow_core.option_names import did_you_mean
from flow_core.without_effect import warn_of

DISABLED, LEVEL_1, LEVEL_2, LEVEL_3 = range(4)
"""Levels of usage tracking: Flow sends the same with each of the last three, and only where ``usage_address`` says."""


# -- logs


class LogConfig(metaclass=ABCMeta):
    """What is logged to the run's directory, and how."""

    options: Mapping[str, object] = MappingProxyType({})

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class FileLogging(LogConfig):
    """A log of lines of text."""

    def __init__(self, *, format_string: str | None = None, level: int = 10) -> None:
        self.format_string, self.level = format_string, level
        self.options = {"initialize_logging": True, "log_level": level, "log_format": format_string or "text"}


class JSONLogging(LogConfig):
    """A log with an object of JSON in each line."""

    def __init__(self, *, level: int = 10) -> None:
        self.level = level
        self.options = {"initialize_logging": True, "log_level": level, "log_format": "json"}


class NoopLogging(LogConfig):
    """No log."""

    options = MappingProxyType({"initialize_logging": False})


# -- the Config

_ORDER = (
    "executors", "memoizer", "dependency_resolver", "exit_mode", "garbage_collect", "internal_tasks_max_threads",
    "retries", "retry_handler", "run_dir", "std_autopath", "strategy", "strategy_period", "max_idletime", "monitoring",
    "usage_tracking", "project_name", "initialize_logging",
)  # fmt: skip
_PARSLS = {
    "garbage_collect": True,
    "internal_tasks_max_threads": 10,
    "project_name": None,
    "usage_tracking": 0,
    "initialize_logging": True,
    "memoizer": None,
    "retry_handler": None,
    "std_autopath": None,
}
"""Options that Flow does not have, or that take something else there."""


class Config(flow_core.Config):
    """A configuration with Parsl's options; those of Flow are taken, too."""

    _told: dict[str, object]

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        """Return a Config; the names of options are checked by ``__init__``, once they are Flow's."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **options: Any) -> None:
        given = by_position("Config", _ORDER, args, options)
        told = {name: given.get(name, usual) for name, usual in _PARSLS.items()}
        object.__setattr__(self, "_told", dict(told))
        in_flow = _in_flow(given)
        unknown = [name for name in in_flow if name not in self._options]
        if unknown:
            known = tuple(sorted({*_ORDER, *self._options}))
            raise ConfigurationError(f"Config has no option {unknown[0]!r}{did_you_mean(unknown[0], known)}")
        super().__init__(**in_flow)
        object.__setattr__(self, "_told", told)  # what it was given, not what Flow's constructor made of that

    if not TYPE_CHECKING:  # else type checkers would take it that any attribute may be set

        def __setattr__(self, name: str, value: object) -> None:
            if name in _PARSLS:
                self._told[name] = value
                for option, one in _in_flow({name: value}).items():
                    super().__setattr__(option, one)
            else:
                super().__setattr__(name, value)

    @property
    def garbage_collect(self) -> object:
        """As it was given; Flow never keeps tasks that have ended."""
        return self._told["garbage_collect"]

    @property
    def internal_tasks_max_threads(self) -> object:
        """As it was given: Flow's ``data_management_max_threads``."""
        return self._told["internal_tasks_max_threads"]

    @property
    def project_name(self) -> object:
        """As it was given: Flow's ``name`` of the workflow."""
        return self._told["project_name"]

    def with_checkpoints(self) -> Config:
        """Return a copy that names the checkpoints which Parsl loads without being told: all of the run directory."""
        twin = cast("Config", self.copy())
        told = self._told["memoizer"]
        if isinstance(told, BasicMemoizer) and told.checkpoint_mode and told.checkpoint_files is None:
            twin.checkpoint_files = get_all_checkpoints(os.fspath(self.run_dir))
        return twin


def _in_flow(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return Flow's options for those that were given in Parsl's terms."""
    options = dict(given)
    if not options.pop("garbage_collect", True):
        warn_of("Config", ["garbage_collect=False has no effect in Flow: tasks that have ended are never kept"])
    if "internal_tasks_max_threads" in options:
        options["data_management_max_threads"] = options.pop("internal_tasks_max_threads")
    if options.get("project_name", "") is None:
        del options["project_name"]
    if "project_name" in options:
        options["name"] = options.pop("project_name")
    if "usage_tracking" in options:
        options["usage_tracking"] = bool(options["usage_tracking"])
    logs = options.get("initialize_logging", True)
    if isinstance(logs, LogConfig):
        options.update(logs.options)
    memoizer = options.get("memoizer")
    if isinstance(memoizer, BasicMemoizer):
        options["memoizer"] = None
        options.update(memoizer.in_flow())
    elif isinstance(memoizer, OwnMemoizerOfParsl):
        options["memoizer"] = OwnMemoizer(memoizer)
    handler = options.get("retry_handler")
    if handler is not None and not isinstance(handler, _RetryHandler):
        options["retry_handler"] = _RetryHandler(handler) if callable(handler) else handler
    autopath = options.get("std_autopath")
    if autopath is not None and not isinstance(autopath, _StdAutopath):
        options["std_autopath"] = _StdAutopath(autopath) if callable(autopath) else autopath
    resolver = options.get("dependency_resolver")
    if isinstance(resolver, DependencyResolver):
        options["dependency_resolver"] = resolver.in_flow()
    return options


class _RetryHandler:
    """A retry handler that is given Parsl's record of the task."""

    def __init__(self, handler: Callable[..., float]) -> None:
        self.handler = handler
        update_wrapper(self, handler)

    def __call__(self, error: Exception, task: TaskView) -> float:
        return self.handler(error, record_of(task))


class _StdAutopath:
    """A function that names files of AUTO_LOGNAME, which is given Parsl's record of the task."""

    def __init__(self, autopath: Callable[..., Any]) -> None:
        self.autopath = autopath
        update_wrapper(self, autopath)

    def __call__(self, task: TaskView, stream: str) -> Any:
        return self.autopath(record_of(task), stream)


# -- futures in arguments


class DependencyResolver:
    """How futures are found in arguments, by two functions; Flow's is one for both."""

    def __init__(self, traverse_to_gather: Callable[..., Any], traverse_to_unwrap: Callable[..., Any]) -> None:
        self.traverse_to_gather, self.traverse_to_unwrap = traverse_to_gather, traverse_to_unwrap

    def in_flow(self) -> Callable[..., object] | None:
        """Return Flow's resolver."""
        if self is SHALLOW_DEPENDENCY_RESOLVER:
            return None
        return DEEP if self is DEEP_DEPENDENCY_RESOLVER else self._resolved

    def _resolved(self, value: object, result: Callable[[Future[Any]], object]) -> object:
        futures = list(self.traverse_to_gather(value))
        for future in futures:
            result(future)
        # Flow asks twice: while the futures are looked for, they are not done yet.
        return self.traverse_to_unwrap(value) if all(future.done() for future in futures) else value


def shallow_traverse_to_gather(value: object) -> list[Future[Any]]:
    """Return the future that an argument is."""
    return [value] if isinstance(value, Future) else []


def shallow_traverse_to_unwrap(value: object) -> object:
    """Return the result of the future that an argument is, or the argument."""
    return value.result() if isinstance(value, Future) else value


def deep_traverse_to_gather(value: object) -> list[Future[Any]]:
    """Return the futures in an argument: in lists, tuples, sets and dicts at any depth."""
    if isinstance(value, Future):
        return [value]
    if isinstance(value, list | tuple | set | frozenset):
        return [one for item in value for one in deep_traverse_to_gather(item)]
    if isinstance(value, dict):
        return [one for pair in value.items() for item in pair for one in deep_traverse_to_gather(item)]
    return []


def deep_traverse_to_unwrap(value: Any) -> object:
    """Return an argument with results in the place of futures: in lists, tuples, sets and dicts at any depth."""
    if isinstance(value, Future):
        return value.result()
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(deep_traverse_to_unwrap(item) for item in value)
    if type(value) is dict:
        return {deep_traverse_to_unwrap(key): deep_traverse_to_unwrap(item) for key, item in value.items()}
    return value


SHALLOW_DEPENDENCY_RESOLVER = DependencyResolver(shallow_traverse_to_gather, shallow_traverse_to_unwrap)
DEEP_DEPENDENCY_RESOLVER = DependencyResolver(deep_traverse_to_gather, deep_traverse_to_unwrap)
