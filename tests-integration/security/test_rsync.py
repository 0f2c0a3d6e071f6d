"""rsync with another user who may write where outputs go, and with directories that are larger than they may be.

The ssh of these tests runs the far side's command on this machine.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from security_attacker import Attacker

from flow_core.errors import StagingError
from flow_core.files import Directory, File
from flow_core.interfaces.call import NodeContext, TaskStep
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging.rsync import RsyncMover, RSyncStaging
from flow_staging.transfer.limits import SizeLimits
from flow_staging.transfer.retry import RetryPolicy

QUICK = RetryPolicy(tries=2, first_delay_s=0.01)
SSH = """#!/bin/sh
tr '\\0' ' ' </proc/$PPID/cmdline >>{log}
while [ "$1" = -o ]; do shift 2; done
shift
echo "$@" >>{log}
exec sh -c "$*"
"""
PLANT = "import os, sys; os.mkdir(sys.argv[1]); os.chmod(sys.argv[1], 0o777)"


@pytest.fixture
def ssh(tmp_path: Path) -> Path:
    """An ssh that goes nowhere, and logs command lines beside it."""
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    made = tmp_path / "ssh"
    made.write_text(SSH.format(log=tmp_path / "log"))
    made.chmod(0o755)
    return made


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of outputs to which everybody may write, as to /tmp."""
    made = tmp_path / "shared"
    made.mkdir()
    made.chmod(0o1777)
    return made


def run(step: TaskStep, node: Path) -> object:
    return pickle.loads(pickle.dumps(step)).run(lambda: None, NodeContext(executor="here", working_dir=str(node)))


def outgoing(path: Path, file: File) -> Transfer:
    return Transfer(file, path, Direction.OUT, 7, "w")


def incoming(path: Path, file: File) -> Transfer:
    return Transfer(file, path, Direction.IN, 7, "w")


def names(method: RSyncStaging, path: Path, file: File) -> str:
    return str(method.step([outgoing(path, file)]).mover.partial)  # type: ignore[attr-defined]


def test_what_another_user_puts_where_outputs_wait_gets_none(ssh: Path, shared: Path, attacker: Attacker) -> None:
    traps = [shared / name for name in (".flow-rsync-partial", ".~tmp~")]
    assert [attacker.run(PLANT, trap) for trap in traps] == ["", ""]
    before = [(trap.stat().st_mtime_ns, trap.stat().st_ino) for trap in traps]
    made = shared.parent / "made"
    made.write_text("mine")
    method = RSyncStaging("here", ssh=str(ssh), retry=QUICK)
    run(method.step([outgoing(made, File(str(shared / "out")))]), shared.parent / "node")
    assert (shared / "out").read_text() == "mine"
    assert [(trap.stat().st_mtime_ns, trap.stat().st_ino) for trap in traps] == before
    method.close()
    assert sorted(os.listdir(shared)) == [".flow-rsync-partial", ".~tmp~", "out"]


def test_where_outputs_wait_is_taken_before_anybody_can_see_its_name(ssh: Path, shared: Path) -> None:
    made = shared.parent / "made"
    made.write_text("mine")
    method = RSyncStaging("here", ssh=str(ssh), retry=QUICK)
    used = set()
    for _ in range(2):
        step = method.step([outgoing(made, File(str(shared / "out")))])
        (waiting,) = [path for path in shared.iterdir() if path.name != "out"]
        assert waiting.name == step.mover.partial  # type: ignore[attr-defined]
        assert (waiting.stat().st_mode & 0o777, waiting.stat().st_uid) == (0o700, os.geteuid())
        used.add(waiting.name)
        run(step, shared.parent / "node")
        assert os.listdir(shared) == ["out"]
    assert f"--partial-dir={waiting.name}" in (shared.parent / "log").read_text()  # so others can see it
    assert len(used) == 2
    assert all(re.fullmatch(r"\.flow-rsync-partial-[0-9a-f]{16}", name) for name in used)


def test_outputs_that_never_came_leave_nothing(ssh: Path, shared: Path) -> None:
    method = RSyncStaging("here", ssh=str(ssh), retry=QUICK)
    for number in range(3):
        method.step([outgoing(shared.parent / "made", File(str(shared / str(number))))])
    assert len(os.listdir(shared)) == 3
    method.close()
    assert os.listdir(shared) == []


def test_what_a_killed_script_has_left_is_removed_by_the_next_when_it_is_old(ssh: Path, shared: Path) -> None:
    old, fresh, other = (shared / f".flow-rsync-partial{end}" for end in ("", "-fresh", "-link"))
    for path in (old, fresh):
        path.mkdir()
        (path / "half").write_text("half")
    other.symlink_to(shared.parent)
    os.utime(old, (1, 1))
    method = RSyncStaging("here", ssh=str(ssh), retry=QUICK)
    method.step([outgoing(shared.parent / "made", File(str(shared / "out")))])
    assert not old.exists()
    assert (fresh / "half").exists()
    assert other.is_symlink()


def test_a_name_that_another_user_has_taken_is_not_used_again(ssh: Path, shared: Path, attacker: Attacker) -> None:
    method, file = RSyncStaging("here", ssh=str(ssh), retry=QUICK), File(str(shared / "out"))
    first = names(method, shared.parent / "made", file)
    assert "FileExistsError" in attacker.run(PLANT, shared / first)
    (shared / first).rmdir()  # as rsync does when all is there
    assert attacker.run(PLANT, shared / first) == ""
    second = names(method, shared.parent / "made", file)
    assert second != first
    assert names(method, shared.parent / "made", file) == second  # of the try before: it is gone on with
    method.close()
    assert os.listdir(shared) == [first]


def test_a_file_of_a_directory_that_is_beyond_the_limit_is_named_and_nothing_stays(ssh: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "small").write_bytes(b"x" * 1000)
    method = RSyncStaging("here", ssh=str(ssh), retry=QUICK, limits=SizeLimits(max_bytes=1000))
    run(method.step([incoming(tmp_path / "node" / "in", Directory(str(tree)))]), tmp_path / "node")
    assert (tmp_path / "node" / "in" / "small").stat().st_size == 1000
    shutil.rmtree(tmp_path / "node")
    (tree / "deep" / "large one").write_bytes(b"x" * 1001)
    with pytest.raises(StagingError, match=r"deep/large one has at least 1,001 bytes.*limit of 1,000.*max_bytes"):
        run(method.step([incoming(tmp_path / "node" / "in", Directory(str(tree)))]), tmp_path / "node")
    assert os.listdir(tmp_path / "node") == []


def test_a_file_that_has_grown_beyond_the_limit_since_it_was_planned_is_refused(ssh: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    method = RSyncStaging("here", ssh=str(ssh), retry=QUICK, limits=SizeLimits(max_bytes=100_000))
    step = method.step([incoming(tmp_path / "node" / "in", File(str(tmp_path / "file")))])
    (tmp_path / "file").write_bytes(b"x" * 100_001)
    with pytest.raises(StagingError, match=r"file has at least 100,001 bytes.*limit of 100,000"):
        run(step, tmp_path / "node")
    assert not (tmp_path / "node" / "in").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 MiB."""
    made = tmp_path / "disk"
    made.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300m", "none", str(made)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, timeout=20, check=False).returncode != 0:
        pytest.skip("a file system can be mounted by root only")
    yield made
    subprocess.run(["umount", "-l", str(made)], timeout=20, check=True)


def test_a_directory_without_end_stops_before_the_disk_is_full(ssh: Path, tmp_path: Path, small_disk: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        with (tree / str(number)).open("wb") as file:
            file.truncate(10 << 20)
    method = RSyncStaging("here", ssh=str(ssh), retry=QUICK, limits=SizeLimits(keep_free_bytes=150 << 20))
    with pytest.raises(StagingError, match=r"the disk of .* has .* free, of which 157,286,400 are kept"):
        run(method.step([incoming(small_disk / "in", Directory(str(tree)))]), small_disk)
    assert os.listdir(small_disk) == []


@pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh here")
def test_who_files_come_from_gets_neither_the_agent_nor_a_port(tmp_path: Path) -> None:
    """Whatever the configuration of ssh offers to logins by hand."""
    config = tmp_path / "config"
    config.write_text("Host *\nForwardAgent yes\nForwardX11 yes\nLocalForward 4711 localhost:22\n")
    *_, ssh = RsyncMover("user@host", f"ssh -F {config}", RetryPolicy())._command()
    told = subprocess.run([*ssh.split(), "-G", "host"], capture_output=True, text=True, timeout=30, check=True).stdout
    options = dict(line.split(" ", 1) for line in told.splitlines() if " " in line)
    assert (options["forwardagent"], options["forwardx11"], options["clearallforwardings"]) == ("no", "no", "yes")
