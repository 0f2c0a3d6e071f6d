"""Distributions of this commit work with those of the last release, each way round, as far as their ranges allow it.

A new distribution among old ones, and an old one among new ones: what a user has who upgrades one of them. Where ranges
keep the two apart, pip does too, and there is nothing to run.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import release

pytestmark = [pytest.mark.releases, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
WORKLOAD = Path(__file__).with_name("workload.py")
EXPECTED = runpy.run_path(str(WORKLOAD), run_name="workload")["EXPECTED"]


NAMES = sorted(set(release.distributions()) - set(release.FOR_TESTS))


@dataclass
class Environment:
    """Wheels of both trees, and an environment to put them in."""

    python: Path
    now: dict[str, Path]
    then: dict[str, Path]

    def put(self, wheels: list[Path]) -> str:
        """Install wheels in place of what is there; return what does not fit, empty where ranges allow all."""
        pip = [release.uv(), "pip"]
        where = ["--python", str(self.python)]
        again = ["--no-deps", "--no-index", "--no-cache", "--reinstall"]
        subprocess.run([*pip, "install", "--quiet", *where, *again, *wheels], check=True, timeout=300)
        checked = subprocess.run([*pip, "check", *where], capture_output=True, text=True, timeout=60, check=False)
        return "" if checked.returncode == 0 else checked.stdout + checked.stderr


def wheels_of(folder: Path) -> dict[str, Path]:
    return {str(release.metadata(path)["Name"]): path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    now, then, place = (tmp_path_factory.mktemp(name) for name in ("now", "then", "place"))
    for one in release.distributions().values():
        last = release.last_release(one)
        if last is None:
            pytest.skip(f"{one.name} has no release in this clone: git fetch --tags")
        try:
            with release.tree_of(*last, one.name) as old:
                release.build_one(old, then)
        except release.Refused as error:
            pytest.skip(str(error))
        release.build_one(one, now)
    return Environment(release.install(sorted(now.glob("*.whl")), place), wheels_of(now), wheels_of(then))


@pytest.mark.parametrize("among", ["the last release", "this commit"])
@pytest.mark.parametrize("name", NAMES)
def test_one_distribution_of_another_time_among_the_others(
    environment: Environment, name: str, among: str, tmp_path: Path
) -> None:
    now, then = environment.now, environment.then
    rest, one = (then, now) if among == "the last release" else (now, then)
    if one[name].name == rest[name].name and one[name].read_bytes() == rest[name].read_bytes():
        pytest.skip(f"{name} is as it was released")
    misfits = environment.put([*(wheel for other, wheel in rest.items() if other != name), one[name]])
    if misfits:
        pytest.skip(f"ranges keep {one[name].name} from {among}: {misfits}")
    done = subprocess.run(
        [environment.python, WORKLOAD, tmp_path],
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    advice = (
        f"{one[name].name} does not work with {among}, though ranges allow it: raise the second part of its version"
    )
    assert done.returncode == 0, f"{advice}, and the ranges\n{done.stderr}"
    assert json.loads(done.stdout) == EXPECTED, advice
