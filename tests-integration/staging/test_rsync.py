"""rsync over a real sshd, as root in a network namespace of its own."""

from __future__ import annotations

import pickle
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from staging_servers import QUICK, incoming, outgoing, same, visible
from staging_services import need_programs, started

from flow_core.errors import ConfigurationError, StagingError
from flow_core.files import File
from flow_core.interfaces.call import NodeContext
from flow_staging.rsync import RSyncStaging

CUTTER = Path(__file__).with_name("cutting_ssh.py")


@dataclass
class Side:
    """The submit side as the node sees it."""

    prefix: str
    ssh: str
    root: Path

    def staging(self, ssh: str = "") -> RSyncStaging:
        return RSyncStaging(self.prefix, ssh=ssh or self.ssh, retry=QUICK)

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
