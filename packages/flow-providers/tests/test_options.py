from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from flow_providers import (
    CobaltProvider,
    CondorProvider,
    GridEngineProvider,
    KubernetesProvider,
    LSFProvider,
    PBSProProvider,
    SlurmProvider,
    TorqueProvider,
    channels,
    launchers,
    spec,
)
from flow_providers.channels.local import LocalChannel
from flow_providers.errors import BadOption, ProviderError
from flow_providers.local.provider import LocalProvider
from flow_providers.options import repr_of
from flow_providers.spec import ENTRY_POINTS, provider_from, spec_of
from flow_providers.walltime import walltime_hms, walltime_minutes, walltime_seconds


def test_an_option_of_the_wrong_type_is_refused_by_name() -> None:
    with pytest.raises(BadOption, match=r"LocalProvider: option max_blocks='ten' must be int"):
        LocalProvider(max_blocks="ten")  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(("option", "value"), [("nodes_per_block", True), ("parallelism", float("nan"))])
def test_what_is_a_number_to_python_alone_is_refused(option: str, value: object) -> None:
    with pytest.raises(BadOption, match=f"SlurmProvider: option {option}={value!r} must be a (whole )?number"):
        SlurmProvider("debug", **{option: value})  # type: ignore[arg-type]  # the point of the test


def test_a_command_is_not_waited_for_for_ever() -> None:
    with pytest.raises(BadOption, match=r"cmd_timeout=inf must be at most 1e\+06"):
        LocalProvider(cmd_timeout=float("inf"))


def test_an_unknown_option_is_refused_with_the_list_of_options() -> None:
    with pytest.raises(
        BadOption, match=r"max_block.*did you mean 'max_blocks'\?; its options are: channel, nodes_per_block"
    ):
        LocalProvider(max_block=1)  # type: ignore[call-arg]  # the point of the test


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (channels.LocalChannel, {"envs": "A=1"}),
        (channels.SSHChannel, {"hostname": "h", "port": "22"}),
        (channels.SSHInteractiveLoginChannel, {"hostname": "h", "answer": "123456"}),
        (channels.OAuthSSHChannel, {"hostname": "h", "token": 3}),
        (launchers.SingleNodeLauncher, {"task_blocks": 1.5}),
        (launchers.SrunLauncher, {"overrides": 3}),
        (launchers.SrunMPILauncher, {"overrides": None}),
        (launchers.AprunLauncher, {"overrides": ["-cc", "depth"]}),
        (launchers.MpiExecLauncher, {"overrides": 3}),
        (launchers.MpiRunLauncher, {"overrides": 3}),
        (launchers.JsrunLauncher, {"overrides": 3}),
        (launchers.GnuParallelLauncher, {"overrides": 3}),
        (launchers.WrappedLauncher, {"prepend": ["apptainer", "exec"]}),
    ],
)
def test_channels_and_launchers_check_their_options_too(kind: type, options: dict[str, object]) -> None:
    name = list(options)[-1]
    with pytest.raises(BadOption, match=rf"{kind.__name__}: option {name}="):
        kind(**options)


def test_repr_shows_the_options() -> None:
    assert "max_blocks=3" in repr(LocalProvider(max_blocks=3))


def test_repr_hides_secrets() -> None:
    class Login:
        def __init__(self) -> None:
            self._options = {"password": "hunter2", "user": "me"}

    assert repr_of(Login()) == "Login(password=***, user='me')"


def test_a_provider_can_be_made_again_from_its_spec(tmp_path) -> None:
    provider = LocalProvider(channel=LocalChannel(script_dir=str(tmp_path)), max_blocks=3, worker_init="module load x")
    assert repr(provider_from(spec_of(provider, secrets=True), trusted=True)) == repr(provider)


def test_what_would_be_run_neither_goes_into_a_file_nor_comes_out_of_one(tmp_path) -> None:
    channel = LocalChannel(script_dir=str(tmp_path), envs={"PATH": "/elsewhere"})
    provider = LocalProvider(channel=channel, worker_init="touch /x")
    for plain in (spec_of(provider), spec_of(provider, secrets=True)):
        again = provider_from(plain)
        assert isinstance(again, LocalProvider)
        assert again.worker_init == ""
        assert isinstance(again.channel, LocalChannel)
        assert again.channel.envs == {}
    assert "elsewhere" not in repr(spec_of(provider))


@pytest.mark.parametrize(
    "path", ["os:system", "mine.providers:P", "flow_providers.testing.contract:X", "flow_providersx:P"]
)
def test_a_file_makes_no_class_but_known_ones_and_imports_none(path) -> None:
    with pytest.raises(ProviderError, match="entry points"):
        provider_from({"class": path, "options": {}})


def test_classes_that_a_package_names_by_entry_points_are_known(monkeypatch) -> None:
    point = EntryPoint("mine", "flow_providers.local.provider:LocalProvider", ENTRY_POINTS)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: (point,) if group == ENTRY_POINTS else ())
    monkeypatch.setattr(spec, "_OURS", "nothing.")
    assert isinstance(provider_from({"class": point.value, "options": {}}), LocalProvider)


def test_the_spec_has_the_script_directory_that_was_offered(tmp_path) -> None:
    provider = LocalProvider()
    provider.offer_script_dir(str(tmp_path))
    again = provider_from(spec_of(provider))
    assert isinstance(again, LocalProvider)
    assert again.channel.script_dir == str(tmp_path)


def test_a_spec_of_something_else_is_refused() -> None:
    with pytest.raises(ProviderError, match="neither a provider nor a channel"):
        provider_from({"class": "subprocess:Popen", "options": {}}, trusted=True)


def test_walltimes_parse() -> None:
    assert walltime_seconds("01:02:03") == 3723
    assert walltime_seconds("10:00") == 600
    assert walltime_seconds("1-00:00:01") == 86401
    assert walltime_minutes("00:10:00") == 10
    assert walltime_minutes("00:10:01") == 11
    assert walltime_hms(90_000.2) == "25:00:01"


@pytest.mark.parametrize("text", ["", "ten", "1h", "00:00:00", "-1:00", "1:2:3:4"])
def test_a_walltime_that_does_not_parse_is_refused(text) -> None:
    with pytest.raises(BadOption, match="walltime"):
        walltime_seconds(text)


def test_importing_the_library_loads_nothing_heavy() -> None:
    code = (
        "import sys, flow_providers, flow_providers.channels, flow_providers.launchers\n"
        "flow_providers.LocalProvider()\n"
        "bad = {'paramiko', 'boto3', 'kubernetes', 'typeguard', 'jinja2', 'psutil', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


ONE_WORD = [
    (SlurmProvider, "partition"), (SlurmProvider, "account"), (SlurmProvider, "qos"), (SlurmProvider, "constraint"),
    (PBSProProvider, "queue"), (PBSProProvider, "account"), (PBSProProvider, "select_options"),
    (TorqueProvider, "queue"), (LSFProvider, "queue"), (LSFProvider, "project"), (GridEngineProvider, "queue"),
    (CobaltProvider, "queue"), (CobaltProvider, "account"), (CondorProvider, "project"),
]  # fmt: skip


@pytest.mark.parametrize("bad", ["a --output=/home/me/.bashrc", "a\u00a0-o", "a\u2028b", "a\x85b"])
@pytest.mark.parametrize(("kind", "option"), ONE_WORD)
def test_words_that_would_become_options_of_the_scheduler_are_refused(kind, option, bad) -> None:
    with pytest.raises(BadOption, match=rf"{option}=.*must be one word"):
        kind(**{option: bad})


@pytest.mark.parametrize("bad", ["a\ntouch /x", "a\r", "a\0b", "\x1b[31m", "a\x7f"])
@pytest.mark.parametrize(("kind", "option"), ONE_WORD)
def test_text_that_would_become_lines_of_a_submit_script_is_refused(kind, option, bad) -> None:
    with pytest.raises(BadOption, match=rf"{option}=.*control character"):
        kind(**{option: bad})


def test_lines_are_taken_where_lines_are_meant() -> None:
    provider = SlurmProvider(worker_init="module load x\nmodule load y", scheduler_options="#SBATCH -x\n#SBATCH -y")
    assert provider.worker_init.count("\n") == 1


def test_text_in_lists_and_mappings_is_looked_at_too() -> None:
    with pytest.raises(BadOption, match="node_selector"):
        KubernetesProvider(image="python:3.11", node_selector={"pool": "a\nb"})
    with pytest.raises(BadOption, match="transfer_input_files"):
        CondorProvider(transfer_input_files=["a", "b\nc"])


def test_grid_engine_gives_several_slots_in_a_parallel_environment_only():
    for options in ({"cores_per_node": 2}, {"nodes_per_block": 2}):
        with pytest.raises(BadOption, match="parallel_environment"):
            GridEngineProvider(**options)
        GridEngineProvider(parallel_environment="smp", **options)
