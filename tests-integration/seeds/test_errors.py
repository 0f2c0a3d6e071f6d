"""Chapter: error handling."""

from __future__ import annotations

from pathlib import Path

import pytest

import flow
from flow import Config, python_app
from flow.configs.local_threads import config as local_threads
from flow.errors import DependencyError


@python_app
def fail():
    raise ValueError("the sample is empty")


@python_app
def passes(*before):
    return "done"


@pytest.mark.usefixtures("kernel")
def test_exceptions_keep_their_type_and_text():
    with pytest.raises(ValueError, match="the sample is empty"):
        fail().result()


@pytest.mark.usefixtures("kernel")
def test_the_place_of_the_failure_is_told():
    error = fail().exception()
    import traceback

    assert "in fail" in "".join(traceback.format_exception(error))


@pytest.mark.usefixtures("kernel")
def test_only_what_depends_on_a_failed_task_fails():
    a = passes()
    b, c = passes(a), fail_after(a)
    d, e = passes(b), passes(c)
    f = passes(d, e)
    assert d.result() == "done"
    with pytest.raises(KeyError):
        c.result()
    for future in (e, f):
        with pytest.raises(DependencyError) as caught:
            future.result()
        assert isinstance(caught.value.__cause__, KeyError)


@python_app
def fail_after(*before):
    raise KeyError("C failed")


def test_a_failed_app_is_tried_again_so_many_times(own_run: Path):
    @python_app
    def third_time_lucky(path):
        with open(path, "a+") as stream:
            stream.write("tried\n")
            stream.seek(0)
            if len(stream.readlines()) < 3:
                raise RuntimeError("not yet")
        return "lucky"

    local_threads.retries = 2
    try:
        with flow.load(local_threads):
            assert third_time_lucky(str(own_run / "tries")).result() == "lucky"
            with pytest.raises(RuntimeError, match="not yet"):
                fail_three_times(str(own_run / "more")).result()
    finally:
        local_threads.retries = 0
    assert (own_run / "more").read_text().count("tried") == 3


@python_app
def fail_three_times(path):
    with open(path, "a") as stream:
        stream.write("tried\n")
    raise RuntimeError("not yet")


def test_without_retries_a_task_is_tried_once(own_run: Path):
    with flow.load(Config()), pytest.raises(RuntimeError):
        fail_three_times(str(own_run / "once")).result()
    assert (own_run / "once").read_text() == "tried\n"
