"""Options that are misspelt."""

from __future__ import annotations

import pytest

from flow_core.apps.decorators import bash_app, join_app, python_app
from flow_core.executors.futures import FuturesExecutor
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import Directory, File, Glob
from flow_core.option_names import known_options
from flow_core.option_records import nearest


@pytest.mark.parametrize(
    ("made", "option", "meant"),
    [
        (python_app, "cach", "cache"),
        (bash_app, "executor", "executors"),
        (join_app, "walltimes", "walltime"),
        (ThreadPoolExecutor, "max_thread", "max_threads"),
        (FuturesExecutor, "labl", "label"),
    ],
)
def test_a_misspelt_option_is_an_error_that_names_the_one_that_is_meant(made, option, meant) -> None:
    with pytest.raises(TypeError, match=rf"{made.__name__}\(\) has no option '{option}': did you mean '{meant}'\?"):
        made(**{option: 1})


@pytest.mark.parametrize("kind", [File, Directory, Glob])
def test_a_misspelt_option_of_a_file_names_the_one_that_is_meant(kind: type[File]) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}\(\) has no option 'updat': did you mean 'update'\?"):
        kind("a*", updat=True)  # type: ignore[call-arg]  # that is what is tested


def test_a_misspelt_setting_of_an_app_names_the_one_that_is_meant() -> None:
    @python_app
    def makes() -> int:
        return 1

    with pytest.raises(TypeError, match=r"options\(\) has no option 'prioritty': did you mean 'priority'\?"):
        makes.options(prioritty=1)  # type: ignore[call-arg]  # that is what is tested


@pytest.mark.parametrize(
    ("wrong", "known", "near"),
    [
        ("bogus", ["cores", "gpus", "memory"], ""),
        ("gups", ["cores", "gpus"], "gpus"),
        ("mem", ["cores", "memory"], "memory"),
        ("ncores", ["cores", "memory"], "cores"),
        ("", ["cores"], ""),
    ],
)
def test_only_a_name_that_is_surely_meant_is_suggested(wrong: str, known: list[str], near: str) -> None:
    assert nearest(wrong, known) == near


def test_an_option_that_is_like_no_other_is_an_error_with_all_that_there_are() -> None:
    @known_options
    def makes(first: int, *, second: int = 2) -> int:
        return first + second

    with pytest.raises(TypeError, match="known are first, second"):
        makes(1, xyz=3)  # type: ignore[call-arg]  # that is what is tested
    assert makes(1, second=1) == makes(first=1, second=1) == 2
