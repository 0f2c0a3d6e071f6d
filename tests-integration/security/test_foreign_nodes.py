"""A node on which another user has made the directories that a run has on the host that submits: they prove nothing.

Directories for all users (``/tmp``, ``/scratch``) are each node's own on many clusters, and the paths of jobs are shown
to everybody by the scheduler.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
from security_attacker import Attacker

from flow_executors.common.run_marker import make_marker
from flow_executors.errors import ExecutorError
from flow_executors.launching import node_loader
from flow_executors.launching.launch_line import PythonSearch, search_code
from flow_executors.launching.node_launch import owners_of
from flow_executors.launching.node_python import PYTHON, path_code
from flow_executors.manager import start
from flow_executors.manager.log_cap import LogCap
from flow_executors.wire.auth import read_secret
from flow_executors.worker.bootstrap import open_log
from flow_providers import SlurmProvider
from flow_providers.channels.local import LocalChannel
from flow_providers.interfaces.job_extras import JobExtras, secret_variable
from flow_providers.launchers import SimpleLauncher

KEY = b"open sesame\n"
# Makes all that was there anew, with a link to somebody else's file at the place of each output.
PLANT = """
import os, sys
top, precious, script, *outputs = sys.argv[1:]
os.makedirs(os.path.dirname(script))
os.chmod(top, 0o777)
open(script, "w").close()
for output in outputs:
    os.symlink(precious, output)
"""
CODE = """
import os, sys
marker, folder, witness = sys.argv[1:]
os.makedirs(os.path.dirname(marker))
open(marker, "wb").write(b"x" * 32)
os.makedirs(folder)
open(f"{folder}/json.py", "w").write(f"import os; open({witness!r}, 'w').write(str(os.geteuid()))")
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A directory of a node in which all users may make some."""
    made = tmp_path / "scratch"
    made.mkdir()
    made.chmod(0o1777)
    return made


@pytest.mark.timeout(60)
def test_a_job_writes_nothing_where_another_user_has_made_its_directory(
    node: Path, tmp_path: Path, attacker: Attacker
) -> None:
    programs, precious = tmp_path / "bin", tmp_path / "precious"
    programs.mkdir()
    precious.write_text("of the owner")
    (programs / "sbatch").write_text(f'#!/bin/bash\ncp "${{@: -1}}" {tmp_path}/spooled\necho 17\n')
    (programs / "sbatch").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    scripts = node / "run" / "scripts"
    channel = LocalChannel(script_dir=str(scripts), envs={"PATH": path}, userhome=str(tmp_path))
    provider = SlurmProvider(channel=channel, launcher=SimpleLauncher())
    secret = secret_variable("block key")
    provider.submit(
        f'cp "${secret}" {tmp_path}/seen; echo said', 1, extras=JobExtras("fabc", secrets=(("block key", KEY),))
    )
    (script,) = scripts.glob("*.sh")
    outputs = [script.with_suffix(end) for end in (".out", ".err", ".exit")]
    (node / "run").rename(tmp_path / "elsewhere")  # the node has none of it
    assert attacker.run(PLANT, node / "run", precious, script, *outputs) == ""
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        ["bash", tmp_path / "spooled"], cwd=tmp_path, capture_output=True, timeout=50, check=False,
        env={"PATH": path, "TMPDIR": str(tmp_path / "tmp")}, start_new_session=True,
    )  # fmt: skip
    assert precious.read_text() == "of the owner"
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_bytes() == KEY  # the one that came along


@pytest.mark.timeout(60)
def test_code_that_another_user_lays_where_the_script_is_elsewhere_is_not_run(
    node: Path, tmp_path: Path, attacker: Attacker
) -> None:
    run, code = node / "run", node / "project"
    run.mkdir()
    marker = make_marker(run)
    command = path_code(str(code), marker.path, marker.sha256)
    run.rename(tmp_path / "elsewhere")
    witness = tmp_path / "witness"
    assert attacker.run(CODE, marker.path, code, witness) == ""
    subprocess.run(
        ["bash", "-c", f"{command}\n{attacker.python} -c 'import json'"], timeout=50, check=True, cwd="/",
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert not witness.exists()


PYTHON_OF_OTHERS = """
import os, sys
path, link, witness = sys.argv[1:]
os.makedirs(os.path.dirname(path))
open(path, "w").write(f"#!/bin/sh\\nid -u >>{witness}\\n")
os.chmod(path, 0o755)
os.makedirs(os.path.dirname(link))
os.symlink("/bin/sh", link)  # the program is the system's, and what lies beside it is not
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_python_that_another_user_lays_where_the_scripts_is_elsewhere_is_not_run(
    node: Path, tmp_path: Path, attacker: Attacker, kind: str
) -> None:
    witness = tmp_path / "witness"
    paths = {"file": node / "one" / "bin" / "python", "link": node / "two" / "bin" / "python"}
    assert attacker.run(PYTHON_OF_OTHERS, paths["file"], paths["link"], witness) == ""
    found = looked_for(str(paths[kind]))
    assert found.returncode == 127
    assert f"{paths[kind]}: another user of this node has made it" in found.stderr
    assert not witness.exists()


@pytest.mark.timeout(60)
def test_the_scripts_python_is_taken_on_nodes_that_have_it(node: Path, tmp_path: Path) -> None:
    own = node / "venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text(f"#!/bin/sh\necho flow {MINOR} - 0\n")
    own.chmod(0o755)
    found = looked_for(str(own))
    assert (found.returncode, found.stdout.strip()) == (0, str(own)), found.stderr


LAY = """
import os, sys
path, text = sys.argv[1:]
open(path, "wb").write(bytes.fromhex(text))
os.chmod(path, 0o600 if path.endswith("key") else 0o644)
"""


def test_an_archive_that_another_user_lays_there_is_not_unpacked_though_it_is_the_right_one(
    node: Path, tmp_path: Path, attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The right one, until it has been looked at: who owns it can change it then.
    (tmp_path / "code").write_text("")
    with tarfile.open(tmp_path / "right.tar", "w") as archive:
        archive.add(tmp_path / "code", "code")
    content = (tmp_path / "right.tar").read_bytes()
    assert attacker.run(LAY, node / "archive", content.hex()) == ""
    (node / "link").symlink_to(node / "archive")
    told = {"kind": "runtime", "sha256": sha256(content).hexdigest(), "needs": None, "file": "PUSHED", "port": 0}
    for path, there in ((node / "archive", False), (node / "link", False), (tmp_path / "right.tar", True)):
        monkeypatch.setenv("PUSHED", str(path))
        place = tmp_path / "unpacked"
        if there:
            node_loader.make(told, [], str(place), True)
        else:
            with pytest.raises(SystemExit, match="another user's"):
                node_loader.make(told, [], str(place), True)
        assert (place / "code").exists() == there


def test_a_key_that_another_user_lays_there_is_not_used_and_a_pipe_is_not_waited_for(
    node: Path, attacker: Attacker
) -> None:
    assert attacker.run(LAY, node / "key", b"key".hex()) == ""
    os.mkfifo(node / "pipe", 0o600)
    for path in (node / "key", node / "pipe"):
        with pytest.raises(ExecutorError, match=r"belongs to user|no plain file"):
            read_secret(path)
        with pytest.raises(OSError, match="another user's, or no plain file"):
            node_loader.own(str(path))


MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


def looked_for(python: str) -> subprocess.CompletedProcess[str]:
    """Run what looks for a Python on a node, where the script's is at this path, of this user and root."""
    search = PythonSearch(MINOR, (python,), drivers=python, owners=owners_of(sys.executable))
    code = f"set -euo pipefail\n{search_code(search)}\necho {PYTHON}"
    return subprocess.run(
        ["bash", "-c", code], env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip


LOGS = """
import os, sys
folder, precious, *names = sys.argv[1:]
os.makedirs(folder)
os.chmod(folder, 0o777)
for name in names:
    os.symlink(precious, f"{folder}/{name}")
"""


def test_logs_are_not_written_through_links_in_a_directory_that_another_user_has_made(
    node: Path, tmp_path: Path, attacker: Attacker
) -> None:
    precious, folder = tmp_path / "precious", node / "run" / "block-0"
    precious.write_text("of the owner\n" * 1000)
    before = precious.read_bytes()
    assert attacker.run(LOGS, folder, precious, "manager.log", "worker_0.log") == ""
    with pytest.raises(PermissionError, match="symbolic link"):
        start._log_in(folder, "manager.log")
    with pytest.raises(OSError, match="worker_0"):
        open_log(str(folder / "worker_0.log"))
    LogCap([str(folder / "worker_0.log")], 1000).look()
    assert precious.read_bytes() == before
    os.close(open_log(str(folder / "worker_1.log")))
    start._log_in(folder, "other.log").close()
