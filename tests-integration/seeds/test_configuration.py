"""Chapters: configuration and execution; several executors, blocks, and what is said of a wrong configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import flow
from flow import Config, python_app
from flow.addresses import address_by_hostname
from flow.config_file import load_config
from flow.errors import ConfigurationError, FlowError, NoDataFlowKernelError
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider


@python_app
def where():
    import os

    return os.getpid()


def test_the_default_configuration_runs_on_threads(own_run: Path):
    with flow.load():
        assert where().result() == os.getpid()


def test_a_configuration_may_name_some_options_only(own_run: Path):
    with flow.load(Config(executors=[ThreadPoolExecutor()], lazy_errors=True)) as kernel:
        assert kernel.config.retries == 0
        assert where().result() == os.getpid()


def test_apps_choose_among_several_executors(own_run: Path):
    @python_app(executors=["workers"])
    def on_workers():
        import os

        return os.getpid()

    @python_app(executors=["threads"])
    def on_threads():
        import os

        return os.getpid()

    config = Config(
        executors=[
            HighThroughputExecutor(label="workers", max_workers=1, provider=LocalProvider(max_blocks=1)),
            ThreadPoolExecutor(label="threads", max_threads=2),
        ]
    )
    with flow.load(config):
        assert on_workers().result() != os.getpid()
        assert on_threads().result() == os.getpid()


def test_the_monitoring_example_of_the_guide_runs(own_run: Path):
    config = Config(
        executors=[
            HighThroughputExecutor(label="local_htex", cores_per_worker=1, max_workers=4, address=address_by_hostname())
        ],
        monitoring=MonitoringHub(
            hub_address=address_by_hostname(), hub_port=55055, monitoring_debug=False, resource_monitoring_interval=10
        ),
        strategy=None,
    )
    with flow.load(config):
        assert where().result() != os.getpid()
    assert (own_run / "runinfo" / "monitoring.db").exists()


def test_runs_get_numbered_directories(own_run: Path):
    directories = []
    for _ in range(2):
        with flow.load(Config()) as kernel:
            directories.append(Path(kernel.run_dir))
    assert [directory.name for directory in directories] == ["000", "001"]
    assert all(directory.parent == own_run / "runinfo" for directory in directories)
    assert (directories[0] / "flow.log").exists()


def test_the_same_configuration_can_be_loaded_again(own_run: Path):
    config = Config(executors=[HighThroughputExecutor(label="again", max_workers=1)])
    for _ in range(2):
        with flow.load(config):
            assert isinstance(where().result(), int)


def test_the_repr_of_a_configuration_is_an_expression_for_it():
    config = Config(executors=[ThreadPoolExecutor(label="eight", max_threads=8)], retries=3)
    again = eval(repr(config), {"Config": Config, "ThreadPoolExecutor": ThreadPoolExecutor})
    assert repr(again) == repr(config)
    assert again.retries == 3


def test_a_dictionary_is_no_configuration(own_run: Path):
    with pytest.raises(ConfigurationError, match="Config"):
        flow.load({"sites": []})


def test_an_unknown_option_is_named_with_the_nearest(own_run: Path):
    with pytest.raises(ConfigurationError, match=r"retires.*retries"):
        Config(retires=3)


def test_a_wrong_type_is_named():
    with pytest.raises(ConfigurationError, match="retries"):
        Config(retries="many")


def test_two_executors_with_one_label_are_refused():
    with pytest.raises(ConfigurationError, match="twin"):
        Config(executors=[ThreadPoolExecutor(label="twin"), ThreadPoolExecutor(label="twin")])


def test_an_unknown_label_in_an_app_is_named_with_those_there_are(own_run: Path):
    @python_app(executors=["gpus"])
    def lost():
        return None

    with flow.load(Config(executors=[ThreadPoolExecutor(label="cpus")])), pytest.raises(FlowError, match=r"gpus.*cpus"):
        lost().result(timeout=30)


def test_an_app_called_with_nothing_loaded_says_what_to_do(own_run: Path):
    with pytest.raises(NoDataFlowKernelError, match="load"):
        where()


def test_loading_twice_says_to_clear(own_run: Path):
    with flow.load(Config()), pytest.raises(ConfigurationError, match="clear"):
        flow.load(Config())


@pytest.mark.parametrize("executor", ["threads", "htex"])
def test_an_argument_that_cannot_be_sent_is_named(own_run: Path, executor: str):
    import threading

    @python_app
    def takes(lock):
        return "took it"

    chosen = ThreadPoolExecutor() if executor == "threads" else HighThroughputExecutor(label="h", max_workers=1)
    with flow.load(Config(executors=[chosen])):
        future = takes(threading.Lock())
        if executor == "threads":
            assert future.result(timeout=30) == "took it"
        else:
            with pytest.raises(FlowError, match="lock"):
                future.result(timeout=30)


def test_a_file_with_a_typo_tells_its_line(tmp_path: Path):
    path = tmp_path / "site.py"
    path.write_text("from flow import Config\n\nconfig = Config(retires=2)\n")
    with pytest.raises(ConfigurationError, match=r"site\.py, line 3: .*retires.*retries"):
        load_config(path)
    path.write_text("from flow import Config\nconfig = Config(\n")
    with pytest.raises(ConfigurationError, match=r"site\.py, line 2: SyntaxError"):
        load_config(path)
    path.write_text("from flow import Config\nsettings = Config()\n")
    with pytest.raises(ConfigurationError, match="binds no name 'config'"):
        load_config(path)


def test_a_packaged_configuration_is_loaded_by_name():
    assert load_config("flow.configs.local_threads").executors[0].label == "threads"
