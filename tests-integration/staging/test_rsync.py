"""rsync over a real sshd, as root in a network namespace of its own."""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from staging_servers import QUICK, incoming, outgoing, same, visible
from staging_services import SERVICES, missing, need_programs, started

from flow_core.errors import ConfigurationError, StagingError
from flow_core.files import File
from flow_core.interfaces.call import NodeContext
from flow_staging.rsync import RSyncStaging

NETNS = SERVICES / "netns.sh"
MOVING = Path(__file__).with_name("moving.py")
CUTTER = Path(__file__).with_name("cutting_ssh.py")


@dataclass
class Side:
    """The submit side as the node sees it."""

    prefix: str
    ssh: str
    root: Path

    def staging(self, ssh: str = "") -> RSyncStaging:
        return RSyncStaging(self.prefix, ssh=ssh or self.ssh, retry=QUICK)

    def net(self, *words: str) -> None:
        if (self.root / "net" / "id").exists():
            subprocess.run([str(NETNS), words[0], str(self.root / "net"), *words[1:]], check=True, timeout=20)

    def cutting(self, mark: Path, after: int) -> str:
        return f"{shlex.quote(sys.executable)} {CUTTER} {mark} {after} {self.ssh}"


@pytest.fixture(scope="module")
def side():
    need_programs("rsync.sh", "rsync", "sshd", "ssh")
    directory = Path(tempfile.mkdtemp(prefix="flow-rsync-"))
    try:
        with started("rsync.sh", directory) as (address, port, key, known, user):
            ssh = f"ssh -F none -p {port} -i {key} -o UserKnownHostsFile={known}"
            yield Side(f"{user}@{address}", ssh, directory)
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def submit(tmp_path):
    path = tmp_path / "submit side"
    path.mkdir()
    return path


def run(step, node: Path, inner=lambda: None):
    return pickle.loads(pickle.dumps(step)).run(inner, NodeContext(executor="here", working_dir=str(node)))


@pytest.mark.services
def test_files_go_both_ways(side, submit, tmp_path, payload):
    (submit / "a b").write_bytes(payload)
    (submit / "a b").chmod(0o755)
    method, node = side.staging(), tmp_path / "node"
    into, out = File(str(submit / "a b")), File(str(submit / "deep" / "b$(x)"))
    here, there = (method.local_path(file, str(node)) for file in (into, out))

    def function() -> int:
        there.parent.mkdir(parents=True)
        there.write_bytes(here.read_bytes()[::-1])
        assert here.stat().st_mode & 0o100
        return 42

    steps = method.step([incoming(into.url, here)]), method.step([outgoing(there, out.url)])
    assert run(steps[1], node, lambda: run(steps[0], node, function)) == 42
    assert (submit / "deep" / "b$(x)").read_bytes() == payload[::-1]
    assert visible(submit) == ["a b", "b$(x)", "deep"]


@pytest.mark.services
@pytest.mark.parametrize("name", ["data[1].txt", "run*.csv", "-e", "#a?b\n\\"])
def test_a_name_is_a_name_and_no_pattern(side, submit, tmp_path, name):
    directory = submit / "run[1]"
    others = ("data1.txt", "run-final.csv", "axb", "a", "b", "backslash")
    for place in (submit / "run1", directory):
        place.mkdir()
        for other in others:
            (place / other).write_text("another file")
    wanted, node = directory / name, tmp_path / "node"
    fetch = side.staging().step([incoming(str(wanted), node / "in")])
    with pytest.raises(StagingError, match="No such file"):
        run(fetch, node)
    assert visible(node) == []
    wanted.write_text("this file")
    run(fetch, node)
    assert (node / "in").read_text() == "this file"
    run(side.staging().step([outgoing(node / "in", str(directory / f"{name} out"))]), node)
    assert (directory / f"{name} out").read_text() == "this file"


@pytest.mark.services
def test_a_file_cut_on_its_way_in_goes_on(side, submit, tmp_path, big_file):
    method = side.staging(side.cutting(tmp_path / "mark", 20 << 20))
    run(method.step([incoming(str(big_file), tmp_path / "node" / "big")]), tmp_path / "node")
    assert same(tmp_path / "node" / "big", big_file)
    assert visible(tmp_path / "node") == ["big"]


@pytest.mark.services
def test_a_file_cut_on_its_way_out_goes_on(side, submit, tmp_path, big_file):
    method = side.staging(side.cutting(tmp_path / "mark", 20 << 20))
    (tmp_path / "node").mkdir()
    shutil.copy(big_file, tmp_path / "node" / "big")
    run(method.step([outgoing(tmp_path / "node" / "big", str(submit / "big"))]), tmp_path / "node")
    assert same(submit / "big", big_file)
    assert visible(submit) == ["big"]


@pytest.mark.services
@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_link_cut_between_two_hosts_and_healed_only_delays(side, submit, tmp_path, big_file, direction):
    """Both ends live in network namespaces of their own; the link goes down in the middle of the file."""
    if not (side.root / "net" / "id").exists():
        missing("a network namespace (root)", "netns.sh")
    ssh = counting_ssh(tmp_path, side.ssh)
    policy = "tries=60, first_delay_s=0.05, max_delay_s=0.2, connect_timeout_s=1, stall_timeout_s=2, timeout_s=50"
    method = f"flow_staging.RSyncStaging({side.prefix!r}, ssh={ssh!r}, retry=flow_staging.RetryPolicy({policy}))"
    near, far = (tmp_path / "node" / "big", big_file) if direction == "in" else (big_file, submit / "big")
    for host in ("1", "2"):
        side.net("rate", host, "150mbit")
    node = [str(NETNS), "exec", str(side.root / "net"), "1", sys.executable, "-W", "error", str(MOVING)]
    process = subprocess.Popen([*node, method, direction, str(far), str(near)])
    try:
        arriving = near.parent if direction == "in" else submit
        wait_for(process, lambda: max(map(size_of, arriving.rglob("*")), default=0) > 10 << 20)
        side.net("cut", "2")
        wait_for(process, lambda: len((tmp_path / "count").read_text()) > 1)  # it noticed, and tries again
        side.net("heal", "2")
        assert process.wait(50) == 0
    finally:
        process.kill()
        process.wait(10)
        side.net("heal", "2")
        for host in ("1", "2"):
            side.net("rate", host, "none")
    assert same(near, far)
    assert visible(arriving) == ["big"]


def counting_ssh(directory: Path, ssh: str) -> str:
    """An ssh that leaves a mark in ``count`` each time it is called."""
    script = directory / "ssh.sh"
    script.write_text(f'#!/bin/sh\nprintf x >>{shlex.quote(str(directory / "count"))}\nexec {ssh} "$@"\n')
    script.chmod(0o755)
    return str(script)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def wait_for(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    while not ready():
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.02)


@pytest.mark.services
def test_what_a_killed_node_has_sent_is_taken_up_by_the_next_try(side, submit, tmp_path, big_file):
    ssh = counting_ssh(tmp_path, side.ssh)
    slow = f"{ssh} -o ServerAliveInterval=1"
    method = f"flow_staging.RSyncStaging({side.prefix!r}, ssh={slow!r})"
    command = [sys.executable, str(MOVING), method, "out", str(submit / "big"), str(big_file)]
    side.net("rate", "2", "150mbit")
    try:
        process = subprocess.Popen(command, start_new_session=True)
        wait_for(process, lambda: max(map(size_of, submit.rglob("*")), default=0) > 10 << 20)
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait(10)
    finally:
        side.net("rate", "2", "none")
    assert not (submit / "big").exists()
    while not (submit / ".flow-rsync-partial" / "big").exists():  # the far side keeps what it has
        assert visible(submit)
    run(side.staging().step([outgoing(big_file, str(submit / "big"))]), tmp_path)
    assert same(submit / "big", big_file)
    assert visible(submit) == ["big"]


def children(pid: int) -> list[int]:
    found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*(deeper for each in found for deeper in children(each)), *found]


@pytest.mark.services
@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_what_is_no_file_is_named(side, submit, tmp_path, kind):
    if kind == "directory":
        (submit / "x").mkdir()
    step = side.staging().step([incoming(str(submit / "x"), tmp_path / "node" / "x")])
    with pytest.raises(StagingError, match=r"task 7 on executor here.*(No such file|not a plain file)"):
        run(step, tmp_path / "node")
    assert visible(tmp_path / "node") == []


@pytest.mark.services
def test_a_refused_login_is_named(side, submit, tmp_path):
    (submit / "x").write_bytes(b"x")
    address = side.prefix.partition("@")[2]
    method = RSyncStaging(f"nobody-at-all@{address}", ssh=side.ssh, retry=QUICK)
    with pytest.raises(StagingError, match="ssh refuses the login"):
        run(method.step([incoming(str(submit / "x"), tmp_path / "node" / "x")]), tmp_path / "node")


@pytest.mark.services
def test_an_unknown_host_key_is_named(side, submit, tmp_path):
    (submit / "x").write_bytes(b"x")
    method = side.staging(side.ssh + " -o UserKnownHostsFile=/dev/null")
    ssh = side.ssh.rpartition(" -o ")[0] + " -o UserKnownHostsFile=/dev/null"
    method = side.staging(ssh)
    with pytest.raises(StagingError, match="host key is not known"):
        run(method.step([incoming(str(submit / "x"), tmp_path / "node" / "x")]), tmp_path / "node")


def test_a_node_without_rsync_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    step = RSyncStaging("me@host", retry=QUICK).step([incoming("/a", tmp_path / "node" / "a")])
    with pytest.raises(StagingError, match="rsync is not installed"):
        run(step, tmp_path / "node")


@pytest.mark.parametrize("prefix", ["", "-oProxyCommand=x", "a b", "/path"])
def test_a_wrong_prefix_is_refused(prefix):
    with pytest.raises(ConfigurationError, match="user@host"):
        RSyncStaging(prefix)


def test_two_files_of_one_name_have_two_places():
    method = RSyncStaging("me@host")
    places = {method.local_path(File(path), "/wd") for path in ("/a/x", "/b/x")}
    assert len(places) == 2
    assert {place.name for place in places} == {"x"}
