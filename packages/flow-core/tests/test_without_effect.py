"""Options that change nothing, by themselves or beside others, are said to do so, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel_apps import Load, add

import flow_core as flow
from flow_core import without_effect
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import File
from flow_core.memo.memoizer import BasicMemoizer


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(without_effect, "_said", set())
    return


def memoizer(folder: Path) -> BasicMemoizer:
    return BasicMemoizer(checkpoint_dir=folder / "checkpoint")


def chooser(labels: list[str], _task: object) -> str:
    return labels[0]


INEFFECTIVE: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "checkpoint_period": (lambda _: {"checkpoint_period": 60, "checkpoint_mode": "dfk_exit"}, "mode='periodic'"),
    "checkpoint_mode": (lambda _: {"app_cache": False, "checkpoint_mode": "dfk_exit"}, "app_cache=False"),
    "checkpoint_files": (lambda path: {"app_cache": False, "checkpoint_files": [str(path)]}, "app_cache=False"),
    "memoizer": (lambda path: {"app_cache": False, "memoizer": memoizer(path)}, "app_cache=False"),
    "checkpoint_files with memoizer": (
        lambda path: {"memoizer": memoizer(path), "checkpoint_files": [str(path)]},
        "give it to the memoizer",
    ),
    "checkpoint_period with memoizer": (
        lambda path: {"memoizer": memoizer(path), "checkpoint_period": 60},
        "give it to the memoizer",
    ),
    "checkpoint_mode with memoizer": (
        lambda path: {"memoizer": memoizer(path), "checkpoint_mode": "task_exit"},
        "at the end of the run only",
    ),
    "log_format": (lambda _: {"log_format": "json", "initialize_logging": False}, "initialize_logging=False"),
    "log_level": (lambda _: {"log_level": "DEBUG", "initialize_logging": False}, "initialize_logging=False"),
    "usage_address": (lambda _: {"usage_address": "host:1"}, "usage_tracking=True"),
    "max_idletime": (lambda _: {"strategy": "none", "max_idletime": 5.0}, "strategy='none'"),
    "executor_chooser": (lambda _: {"executor_chooser": chooser}, "there is one executor"),
    "staging": (
        lambda _: {"staging": [], "executors": [ThreadPoolExecutor(storage_access=[])]},
        "storage_access of its own",
    ),
}


@pytest.mark.parametrize("name", INEFFECTIVE)
def test_a_config_says_which_of_its_options_change_nothing(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, why = INEFFECTIVE[name]
    flow.Config(**make(tmp_path))
    lines = [record.getMessage() for record in caplog.records if record.name == "flow.options"]
    assert len(lines) == 1
    assert lines[0].startswith(f"Config: {name.partition(' ')[0]}")
    assert why in lines[0]


EFFECTIVE: list[Callable[[Path], dict[str, Any]]] = [
    lambda _: {},
    lambda _: {"checkpoint_mode": "periodic", "checkpoint_period": 60},
    lambda path: {"memoizer": memoizer(path), "checkpoint_mode": "dfk_exit"},
    lambda _: {
        "log_format": "json",
        "log_level": 30,
        "usage_tracking": True,
        "usage_address": "host:1",
        "max_idletime": 5.0,
    },
    lambda _: {"executor_chooser": chooser, "executors": [ThreadPoolExecutor("a"), ThreadPoolExecutor("b")]},
    lambda _: {"staging": [], "executors": [ThreadPoolExecutor("a", storage_access=[]), ThreadPoolExecutor("b")]},
    lambda _: {"app_cache": False},
]


@pytest.mark.parametrize("number", range(len(EFFECTIVE)))
def test_a_config_whose_options_all_count_says_nothing(
    number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flow.Config(**EFFECTIVE[number](tmp_path))
    assert not [record for record in caplog.records if record.name == "flow.options"]


def test_the_log_of_a_run_has_it_too_also_of_options_set_later(load: Load, tmp_path: Path) -> None:
    config = flow.Config(run_dir=tmp_path / "runinfo")
    config.usage_address = "host:1"
    with flow.load(config) as kernel:
        text = (kernel.run_dir / "flow.log").read_text()
    assert "WARNING" in text
    assert "Config: usage_address='host:1' has no effect" in text


def test_it_is_said_once_a_process(caplog: pytest.LogCaptureFixture) -> None:
    for address in ("a:1", "a:1", "b:1"):
        flow.Config(usage_address=address)
    assert caplog.text.count("has no effect") == 2


def test_what_is_remembered_of_warnings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(without_effect, "_MOST", 3)
    for number in range(10):
        without_effect.warn_of("x", [f"{number}"])
    assert len(without_effect._said) <= 3


@pytest.mark.parametrize(
    "option", [{"ignore_for_cache": ["x"]}, {"cache_files": "names"}, {"cache_globals": "named"}], ids=str
)
@pytest.mark.parametrize("decorator", [flow.python_app, flow.bash_app, flow.join_app])
def test_an_app_that_is_not_cached_says_that_options_of_caching_change_nothing(
    option: dict[str, Any], decorator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def function(x: int) -> Any: ...

    decorator(cache=True, **option)(function)
    assert "no effect" not in caplog.text
    decorator(**option)(function)
    assert f"app 'function': {next(iter(option))} has no effect without cache=True" in caplog.text


def test_a_hash_that_is_handed_to_submit_is_said_to_count_for_nothing(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = load()
    assert kernel.submit(int, "3").result(10) == 3
    assert "fn_hash" not in caplog.text
    assert kernel.submit(int, "3", fn_hash="x").result(10) == 3
    assert "submit(): fn_hash has no effect" in caplog.text
    assert add(1).result(10) == 2


def test_a_local_file_says_that_nobody_is_asked_for_another_version(caplog: pytest.LogCaptureFixture) -> None:
    File("http://host/a", refresh="task")
    File("a.txt")
    assert not caplog.records
    File("a.txt", refresh="task")
    assert "File('a.txt'): refresh='task' has no effect" in caplog.text
