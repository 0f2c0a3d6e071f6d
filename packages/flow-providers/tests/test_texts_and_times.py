"""Texts where lists are meant, numbers where walltimes are meant, and bytes that are no text."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import flow_providers
from flow_providers import (
    CondorProvider,
    ExecutionProvider,
    GridEngineProvider,
    JetstreamProvider,
    LocalProvider,
    LSFProvider,
    PBSProProvider,
    SlurmProvider,
    TorqueProvider,
)
from flow_providers.channels.local import LocalChannel
from flow_providers.errors import BadOption, ProviderError, SubmitException
from flow_providers.option_checks import text_for_list
from flow_providers.walltime import walltime_hms, walltime_seconds


@pytest.mark.parametrize("given", [600, "600", 600.0])
def test_a_bare_number_is_no_walltime_and_both_of_its_meanings_are_offered(given) -> None:
    with pytest.raises(BadOption, match="'00:10:00' for 600 seconds, or '10:00:00' for 600 minutes"):
        LocalProvider(walltime=given)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (PBSProProvider, "#PBS -l walltime=25:00:00"),
        (TorqueProvider, "#PBS -l walltime=25:00:00"),
        (GridEngineProvider, "#$ -l h_rt=25:00:00"),
        (SlurmProvider, "#SBATCH --time=25:00:00"),
        (LSFProvider, "#BSUB -W 25:00"),
    ],
)
def test_days_in_a_walltime_reach_no_scheduler_that_does_not_know_them(kind, line, tmp_path) -> None:
    provider = kind(walltime="1-01:00:00", channel=LocalChannel(script_dir=str(tmp_path)))
    with contextlib.suppress(ProviderError):  # there is no such scheduler here
        provider.submit("true", 1)
    (script,) = tmp_path.glob("*.sh")
    assert line in script.read_text().splitlines()


@given(st.integers(1, 10**7))
def test_a_walltime_is_the_same_after_it_was_written_in_hours(seconds) -> None:
    days, rest = divmod(seconds, 86400)
    assert walltime_seconds(f"{days}-{walltime_hms(rest)}") == walltime_seconds(walltime_hms(seconds)) == seconds


@pytest.mark.parametrize("hint", [Sequence[str], int | Sequence[str], Sequence[str] | None, Iterable[str]])
def test_a_text_is_no_list(hint) -> None:
    assert text_for_list("abc", hint)
    assert not text_for_list(["abc"], hint)
    assert not text_for_list(None, hint)


def test_a_text_within_a_list_of_lists_is_none_either() -> None:
    assert text_for_list(["ab"], Sequence[Sequence[str]])
    assert not text_for_list([("a", "b")], Sequence[Sequence[str]])
    assert not text_for_list("abc", str | Sequence[str])
    assert not text_for_list("abc", str)


def test_options_that_are_lists_refuse_text() -> None:
    with pytest.raises(BadOption, match="security_groups='default' must be a list"):
        JetstreamProvider("image", "flavor", security_groups="default")
    with pytest.raises(BadOption, match="must be a list"):
        CondorProvider(transfer_input_files="input.txt")


def _all_providers(kind: type[ExecutionProvider] = ExecutionProvider) -> list[type[ExecutionProvider]]:
    return [one for sub in kind.__subclasses__() for one in (sub, *_all_providers(sub))]


@pytest.mark.parametrize("verb", ["status", "cancel"])
def test_no_provider_takes_one_id_for_a_list_of_its_letters(verb) -> None:
    for kind in _all_providers():
        if kind.__abstractmethods__:
            continue
        with pytest.raises(BadOption, match=rf"{verb} takes a list of job ids, not the single text 'abc'"):
            getattr(kind, verb)(object.__new__(kind), "abc")


def test_every_provider_of_the_library_is_among_those() -> None:
    named = [getattr(flow_providers, name) for name in flow_providers.__all__ if name.endswith("Provider")]
    assert set(named) - {ExecutionProvider} <= set(_all_providers())


def test_a_directory_whose_name_is_no_unicode_can_hold_jobs(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)
    worker_init = f"cd '{folder}'; echo there >here"
    provider = LocalProvider(worker_init=worker_init, channel=LocalChannel(script_dir=f"{folder}/scripts"))
    job = provider.submit("true", 1)
    while not (status := provider.status([job])[0]).terminal:
        time.sleep(0.02)
    assert status.exit_code == 0
    assert (Path(folder) / "here").exists()


def test_what_no_script_can_hold_is_refused_by_name(tmp_path: Path) -> None:
    provider = LocalProvider(worker_init="echo \ud800", channel=LocalChannel(script_dir=str(tmp_path)))
    with pytest.raises(SubmitException, match=r"d800.*worker_init"):
        provider.submit("true", 1)
