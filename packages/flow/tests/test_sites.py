"""The packaged configurations of sites: importable anywhere, and what they say of themselves makes equal ones."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import flow.configs
from flow_core.config import Config

FOLDER = Path(flow.configs.__file__).parent
ALL = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
SITES = [name for name in ALL if not name.startswith("local_")]


def names() -> dict[str, object]:
    """What a script that uses everything has imported."""
    known: dict[str, object] = {"Config": Config, "flow": flow, "flow_executors": import_module("flow_executors")}
    import_module("flow_executors.addresses")
    for module in ("flow_executors", "flow_providers", "flow_providers.channels", "flow_providers.launchers"):
        home = import_module(module)
        known |= {name: getattr(home, name) for name in home.__all__ if not name.startswith("_")}
    return {**known, "GlobusStaging": import_module("flow_staging").GlobusStaging}


@pytest.mark.parametrize("name", SITES)
def test_what_a_configuration_says_of_itself_makes_an_equal_one(name: str) -> None:
    config = import_module(f"flow.configs.{name}").config
    assert isinstance(config, Config)
    config.validate()
    again = eval(repr(config), names())
    assert repr(again) == repr(config)


@pytest.mark.parametrize("name", SITES)
def test_what_users_must_edit_is_marked(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    marked = text.partition("# -- edit these\n")[2].partition("# -- down to here\n")[0].splitlines()
    assert marked
    assert all(line.partition(" = ")[0].isupper() and "  # " in line for line in marked)
    assert "YOUR_" not in text.partition("# -- down to here\n")[2]
    body = text.partition("# -- down to here\n")[2]
    assert all(line.partition(" = ")[0] in body for line in marked), "each is used"


def test_all_sites_of_the_checklist_are_there() -> None:
    wanted = "ad_hoc bluewaters cc_in2p3 comet cooley cori ec2 frontera kubernetes_cluster midway osg stampede2"
    assert set(SITES) == {*wanted.split(), "summit", "theta"}


def test_importing_them_asks_nobody_anything() -> None:
    code = (
        "import socket, subprocess\n"
        "def refuse(*a, **k): raise AssertionError('asked')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse\n"
        "subprocess.Popen.__init__ = refuse\n" + "".join(f"import flow.configs.{name}\n" for name in SITES)
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
