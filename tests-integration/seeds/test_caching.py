"""Chapter: app caching."""

from __future__ import annotations

from pathlib import Path

import pytest

import flow
from flow import Config, bash_app, python_app


@python_app(cache=True)
def counted_double(x, log):
    with open(log, "a") as stream:
        stream.write(f"{x}\n")
    return x * 2


def runs(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.usefixtures("kernel")
def test_a_cached_app_runs_once_for_the_same_arguments(tmp_path: Path):
    log = tmp_path / "runs"
    assert counted_double(2, str(log)).result() == 4
    assert counted_double(2, str(log)).result() == 4
    assert runs(log) == 1
    assert counted_double(3, str(log)).result() == 6
    assert runs(log) == 2


@pytest.mark.usefixtures("kernel")
def test_identical_calls_in_flight_share_one_run(tmp_path: Path):
    log = tmp_path / "runs"
    futures = [counted_double(7, str(log)) for _ in range(10)]
    assert {future.result() for future in futures} == {14}
    assert runs(log) == 1


@pytest.mark.usefixtures("kernel")
def test_an_app_is_not_cached_unless_asked(tmp_path: Path):
    @python_app
    def note(log):
        with open(log, "a") as stream:
            stream.write("ran\n")

    log = tmp_path / "runs"
    note(str(log)).result()
    note(str(log)).result()
    assert runs(log) == 2


@pytest.mark.usefixtures("kernel")
def test_a_changed_body_is_another_app(tmp_path: Path):
    log = str(tmp_path / "runs")

    def version(number):
        namespace: dict[str, object] = {}
        source = f"def body(log):\n    with open(log, 'a') as s:\n        s.write('ran\\n')\n    return {number}\n"
        exec(compile(source, f"cell-{number}", "exec"), namespace)
        return python_app(namespace["body"], cache=True)

    assert version(1)(log).result() == 1
    assert version(2)(log).result() == 2
    assert version(1)(log).result() == 1
    assert runs(tmp_path / "runs") == 2


@pytest.mark.usefixtures("kernel")
def test_bash_apps_are_cached_too(tmp_path: Path):
    @bash_app(cache=True)
    def note(log, stdout=None):
        return f"echo ran >> {log}"

    log = tmp_path / "runs"
    note(str(log)).result()
    note(str(log)).result()
    assert runs(log) == 1


def test_caching_can_be_switched_off_for_all(own_run: Path):
    log = own_run / "runs"
    with flow.load(Config(app_cache=False)):
        counted_double(2, str(log)).result()
        counted_double(2, str(log)).result()
    assert runs(log) == 2


def test_failures_are_not_remembered(own_run: Path):
    @python_app(cache=True)
    def fails_once(path):
        import os

        if not os.path.exists(path):
            open(path, "w").close()
            raise RuntimeError("the first time")
        return "fine"

    with flow.load(Config()):
        with pytest.raises(RuntimeError):
            fails_once(str(own_run / "mark")).result()
        assert fails_once(str(own_run / "mark")).result() == "fine"
