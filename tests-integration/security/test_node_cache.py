"""What was brought to a node is run there: nothing of another user's is taken for it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from security_attacker import Attacker

from flow_core.remote import node_cache
from flow_executors.launching import node_launch
from flow_executors.launching.launch_line import PythonSearch, search_code
from flow_executors.launching.node_bundle import Archive
from flow_executors.launching.node_python import PYTHON

PLANT = """
import os, sys
root, kind, name, code = sys.argv[1:]
place = os.path.join(root, kind, name)
os.makedirs(os.path.join(place, "bin"))
open(os.path.join(place, ".flow-ready"), "w").close()
with open(os.path.join(place, "bin", "python"), "w") as file:
    file.write(code)
os.chmod(file.name, 0o755)
"""
LINK = "import os, sys; os.symlink(sys.argv[1], sys.argv[2])"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A cache that all users of the node share."""
    made = tmp_path / "cache"
    made.mkdir()
    made.chmod(0o1777)
    return made


def test_an_environment_that_another_user_has_planted_is_not_run(
    tmp_path: Path, tools_of_node: Path, shared: Path, attacker: Attacker
) -> None:
    (tmp_path / "env/bin").mkdir(parents=True)
    python = tmp_path / "env/bin/python"
    python.write_text(f"#!/bin/sh\necho 'flow {sys.version_info[0]}.{sys.version_info[1]}'\n")
    python.chmod(0o755)
    with tarfile.open(tmp_path / "env.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "env/bin", "bin")
    digest = hashlib.sha256((tmp_path / "env.tar.gz").read_bytes()).hexdigest()
    code = f"#!/bin/sh\ntouch {tmp_path}/was-run\necho 'flow {sys.version_info[0]}.{sys.version_info[1]}'\n"
    planted = attacker.run(PLANT, shared / str(os.geteuid()), "environment", digest[:32], code)
    planted += attacker.run(PLANT, shared, "environment", digest[:32], code)
    assert planted == ""
    search = PythonSearch(
        f"{sys.version_info[0]}.{sys.version_info[1]}", (), environment=Archive(tmp_path / "env.tar.gz", digest, None)
    )
    for path in (os.environ["PATH"], str(tools_of_node)):  # with a Python that brings it, and without any
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{search_code(search)}\necho {PYTHON}"],
            env={"PATH": path, "HOME": "/nonexistent", "FLOW_CACHE": str(shared)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, "another user's" in done.stderr) == (127, True), done.stderr
    assert not (tmp_path / "was-run").exists()


def test_a_link_of_another_user_to_a_directory_of_ones_own_is_no_cache(
    tmp_path: Path, shared: Path, attacker: Attacker
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(0o700)
    assert attacker.run(LINK, mine, shared / "link") == ""
    with pytest.raises(OSError, match="another user's"):
        node_cache.private(str(shared / "link"))
    (shared / "own").symlink_to(mine)
    assert node_cache.private(str(shared / "own"))
    mine.chmod(0o770)
    with pytest.raises(OSError, match="others could write"):
        node_cache.private(str(mine))


def test_archives_that_another_user_has_planted_are_not_sent_to_nodes(
    tmp_path: Path, shared: Path, attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOW_CACHE", str(shared))
    assert attacker.run("import os, sys; os.makedirs(sys.argv[1])", shared / str(os.geteuid()) / "archives") == ""
    launch = object.__new__(node_launch.NodeLaunch)
    launch._fallback = tmp_path / "own"
    assert launch._cache() == tmp_path / "own" / "archives"
