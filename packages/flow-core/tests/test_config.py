"""What a Config accepts, and what its errors say."""

from __future__ import annotations

import concurrent.futures
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow_core.apps.app import AppBase
from flow_core.apps.decorators import bash_app, join_app, python_app
from flow_core.checkpoint.period import period_seconds
from flow_core.config import Config, checked_config
from flow_core.errors import ConfigurationError
from flow_core.executors.futures import FuturesExecutor
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.events import EventKind
from flow_core.interfaces.scaling import ScalingView
from flow_core.option_records import options_of
from flow_core.staging.noop import NoOpFileStaging


class Array:
    """Like an array: comparing gives no truth."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = object.__hash__


@pytest.mark.parametrize("option", ["exit_mode", "strategy", "checkpoint_mode", "log_format", "log_level"])
def test_an_array_for_one_of_several_texts_is_refused_by_the_options_name(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} cannot be "):
        Config(**{option: Array()})  # type: ignore[arg-type]  # the point


def two_blocks(view: ScalingView) -> int:
    return 2


class Sink:
    wants = EventKind.ALL

    def start(self, run: object) -> None: ...
    def emit(self, events: object) -> None: ...
    def close(self, timeout_s: float) -> int:
        return 0


class Deaf:
    start = emit = close = Sink.emit


class HalfAMethod:
    can_stage_in = can_stage_out = stage = close = Sink.emit


class Stores(ThreadPoolExecutor):
    def __init__(self, storage_access: object = (5,)) -> None:
        super().__init__("stores", storage_access=storage_access)  # type: ignore[arg-type]  # the point of the test


@pytest.fixture
def pool() -> Iterator[concurrent.futures.Executor]:
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        yield executor


def test_the_default_is_one_thread_executor() -> None:
    executors = Config().executors
    assert [type(executor) for executor in executors] == [ThreadPoolExecutor]
    assert isinstance(executors[0], ThreadPoolExecutor)
    assert executors[0].label == "threads"


def test_two_default_configs_do_not_share_their_executor() -> None:
    assert Config().executors[0] is not Config().executors[0]


def test_the_defaults_are_those_of_the_documents() -> None:
    config = Config()
    assert (config.app_cache, config.lazy_errors, config.initialize_logging) == (True, True, True)
    assert (config.retries, config.run_dir, config.strategy, config.max_idletime) == (0, "runinfo", "simple", 120.0)
    assert (config.checkpoint_mode, config.checkpoint_files, config.usage_tracking) == (None, None, False)


def test_an_executor_of_the_standard_library_is_welcome(pool: concurrent.futures.Executor) -> None:
    assert Config(executors=[pool]).executors == [pool]


def test_repr_makes_an_equal_config() -> None:
    config = Config(
        executors=[ThreadPoolExecutor(label="a", max_threads=3), ThreadPoolExecutor(label="b")],
        checkpoint_mode="periodic",
        checkpoint_period="00:10:00",
        retries=2,
        staging=[NoOpFileStaging()],
        name='it\'s "quoted"',
    )
    names = {"Config": Config, "ThreadPoolExecutor": ThreadPoolExecutor, "NoOpFileStaging": NoOpFileStaging}
    assert repr(eval(repr(config), names)) == repr(config)


@pytest.mark.parametrize(
    "executor",
    [
        FuturesExecutor("pool", concurrent.futures.ThreadPoolExecutor),
        FuturesExecutor("pool", concurrent.futures.ThreadPoolExecutor(3)),
        ThreadPoolExecutor(label="t", max_threads=3, working_dir="w", storage_access=[NoOpFileStaging()]),
        concurrent.futures.ThreadPoolExecutor(3),
    ],
)
def test_the_repr_of_every_executor_makes_an_equal_one(executor: Any) -> None:
    names = {
        "Config": Config,
        "FuturesExecutor": FuturesExecutor,
        "ThreadPoolExecutor": ThreadPoolExecutor,
        "NoOpFileStaging": NoOpFileStaging,
        "concurrent": concurrent,
    }
    config = Config(executors=[executor], run_dir=Path("some/where"), max_idletime=math.inf)
    twin = eval(repr(config), names)
    assert repr(twin) == repr(config)
    assert type(twin.executors[0]) is type(executor)


def test_repr_gives_functions_by_their_dotted_name() -> None:
    two_blocks.__module__ = "site_rules"
    assert "strategy=site_rules.two_blocks" in repr(Config(strategy=two_blocks))


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("exectors", [], "did you mean 'executors'"),
        ("retrys", 1, "did you mean 'retries'"),
        ("executors", [], r"executors=\[\]"),
        ("executors", "threads", "list of executors, not text"),
        ("executors", {"a": 1}, "not a dictionary"),
        ("executors", 5, "list of executors"),
        ("executors", ThreadPoolExecutor(), r"executors=\[...\]"),
        ("executors", [ThreadPoolExecutor], r"did you mean ThreadPoolExecutor\(\)"),
        ("executors", [5], r"executors\[0\]"),
        ("executors", [ThreadPoolExecutor(), ThreadPoolExecutor()], "two executors have the label 'threads'"),
        ("executors", [ThreadPoolExecutor(label="all")], "cannot be a label"),
        ("executors", [ThreadPoolExecutor(label="a/b")], "cannot be a label"),
        ("app_cache", 1, "app_cache must be True or False"),
        ("lazy_errors", "yes", "lazy_errors"),
        ("usage_tracking", 3, "usage_tracking"),
        ("retries", -1, "retries must be a whole number"),
        ("retries", True, "retries"),
        ("retries", 1.5, "retries"),
        ("data_management_max_threads", 0, "data_management_max_threads"),
        ("max_worker_kills", 0, "max_worker_kills"),
        ("max_pending", 0, "max_pending"),
        ("max_idletime", -1, "max_idletime"),
        ("max_idletime", "120", "max_idletime"),
        ("strategy_period", 0, "strategy_period"),
        ("checkpoint_mode", "task-exit", "did you mean 'task_exit'"),
        ("checkpoint_period", "30 minutes", "HH:MM:SS"),
        ("checkpoint_files", "runinfo/000/checkpoint", "list of directories"),
        ("checkpoint_files", [5], "checkpoint_files"),
        ("exit_mode", "leave", "exit_mode"),
        ("log_format", "xml", "log_format"),
        ("log_format", "%(asctme)s %(message)s", "log_format .* is no format of the logging module"),
        ("log_format", "%(message)", "log_format .* is no format of the logging module"),
        ("log_level", "debug", "log_level cannot be 'debug'; known are DEBUG"),
        ("log_level", True, "log_level"),
        ("log_level", 0, "log_level"),
        ("strategy", "simpel", "did you mean 'simple'"),
        ("strategy", 5, "strategy"),
        ("run_dir", "", "run_dir"),
        ("run_dir", 5, "run_dir"),
        ("name", 5, "name must be text"),
        ("retry_handler", "often", "retry_handler"),
        ("monitoring", 5, "monitoring must be an event sink"),
        ("monitoring", Sink, r"did you mean Sink\(\)"),
        ("sinks", Sink(), "sinks must be a list"),
        ("sinks", [Sink(), 5], r"sinks\[1\]"),
        ("memoizer", 5, "memoizer"),
        ("staging", "http", "staging must be a list"),
        ("staging", [5], r"staging\[0\]"),
        ("sinks", [Deaf()], r"sinks\[0\] must be an event sink.*it has no wants"),
        ("staging", [HalfAMethod()], r"staging\[0\] must be a staging method.*it has no local_path, step\(\)"),
        ("executors", [Stores()], r"executors\[0\]: storage_access\[0\] must be a staging method"),
        ("executors", [Stores("ftp")], r"executors\[0\]: storage_access must be a list"),
        ("strategy_period", 1e10, "strategy_period must be at most"),
    ],
)
def test_a_wrong_option_is_named(option: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Config(**{option: value})


def test_too_many_positional_options_are_a_configuration_error() -> None:
    many: list[Any] = [None] * 50
    with pytest.raises(ConfigurationError, match="at most"):
        Config(*many)


def test_options_may_be_changed_and_are_checked_again() -> None:
    config = Config()
    config.retries = 2
    config.checkpoint_mode = "dfk_exit"
    config.validate()
    config.retries = -2
    with pytest.raises(ConfigurationError, match="retries"):
        config.validate()


def test_a_misspelt_attribute_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'retries'"):
        Config().retry = 2  # type: ignore[attr-defined]  # the mistake under test


def test_a_copy_has_lists_of_its_own() -> None:
    config = Config()
    twin = config.copy()
    twin.retries = 5
    twin.executors.append(ThreadPoolExecutor(label="more"))
    assert (config.retries, len(config.executors)) == (0, 1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sites": []}, "expected a Config, received a dictionary"),
        (Config, r"did you mean Config\(\)"),
        ("config.py", "received text"),
        (None, "received None"),
    ],
)
def test_what_is_no_config_is_refused_with_advice(given: object, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        checked_config(given)


@pytest.mark.parametrize(("period", "seconds"), [("01:00:00", 3600), ("100:00:01", 360001), (1.5, 1.5), ("0:0:9", 9)])
def test_periods_are_times_or_seconds(period: str | float, seconds: float) -> None:
    assert period_seconds(period) == seconds


@pytest.mark.parametrize("period", ["", "10", "1:00", "00:60:00", "00:00:61", "-1:00:00", "00:00:00", 0, True, "1:a:2"])
def test_other_periods_are_refused(period: Any) -> None:
    with pytest.raises(ConfigurationError, match="checkpoint_period"):
        period_seconds(period)


def test_decorators_show_the_options_of_apps_with_the_defaults_of_their_constructor() -> None:
    known = {option.name: option.default for option in options_of(AppBase)}
    shown = inspect.signature(python_app).parameters
    bash = inspect.signature(bash_app).parameters
    assert {name: one.default for name, one in bash.items() if name != "function"} == known
    assert set(bash) - set(shown) == {"warn_signal"}
    assert str(shown["walltime"]) == "walltime: float | None = None"
    joined = set(inspect.signature(join_app).parameters) - {"function"}
    assert joined == set(known) - {
        "executors",
        "rerun_on_loss",
        "snapshot",
        "warn_before_end_s",
        "warn_signal",
        "grow_on_retry",
    }


@pytest.mark.parametrize("kind", [Config, ThreadPoolExecutor])
def test_each_option_is_a_documented_parameter_and_an_attribute(kind: Any) -> None:
    made = kind()
    names = [option.name for option in options_of(kind)]
    assert names == list(inspect.signature(kind).parameters)
    for name in names:
        assert f"\n    {name}: " in kind.__doc__
        assert f"{name}=" in repr(made)
        assert hasattr(made, name)
