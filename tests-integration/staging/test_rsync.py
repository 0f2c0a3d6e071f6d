"""rsync over a real sshd, as root in a network namespace of its own."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from staging_servers import QUICK, incoming, outgoing, same, visible
from staging_services import SERVICES, missing, need_programs, started

from flow_core.errors import ConfigurationError, StagingError
from flow_core.files import Directory, File, Glob
from flow_core.interfaces.call import NodeContext
from flow_staging.rsync import RSyncStaging
from flow_staging.transfer import handle
from flow_staging.transfer.limits import SizeLimits

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
    here, there = node / "a b", node / "out" / "b"

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
def test_a_link_cut_between_two_hosts_and_healed_only_delays(side, submit, tmp_path, big_file, direction, monkeypatch):
    """Both ends live in network namespaces of their own; the link goes down in the middle of the file."""
    if not (side.root / "net" / "id").exists():
        missing("a network namespace (root)", "netns.sh")
    ssh = counting_ssh(tmp_path, side.ssh)
    policy = "tries=60, first_delay_s=0.05, max_delay_s=0.2, connect_timeout_s=1, stall_timeout_s=2, timeout_s=50"
    method = f"flow_staging.RSyncStaging({side.prefix!r}, ssh={ssh!r}, retry=flow_staging.RetryPolicy({policy}))"
    near, far = (tmp_path / "node" / "big", big_file) if direction == "in" else (big_file, submit / "big")
    monkeypatch.setenv("FLOW_CACHE", str(tmp_path / "node" / ".flow-cache"))
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
    method = RSyncStaging(side.prefix, ssh=f"{ssh} -o ServerAliveInterval=1", retry=QUICK)
    step = method.step([outgoing(big_file, str(submit / "big"))])
    (tmp_path / "step").write_bytes(pickle.dumps(step))
    node = f"import pickle, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_rsync; test_rsync.run("
    node += f"pickle.loads(open({str(tmp_path / 'step')!r}, 'rb').read()), {str(tmp_path)!r})"
    side.net("rate", "2", "150mbit")
    try:
        process = subprocess.Popen([sys.executable, "-c", node], start_new_session=True)
        wait_for(process, lambda: max(map(size_of, submit.rglob("*")), default=0) > 10 << 20)
        for child in children(process.pid):
            with contextlib.suppress(ProcessLookupError):  # with the one before it
                os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait(10)
    finally:
        side.net("rate", "2", "none")
    assert not (submit / "big").exists()
    left = submit / step.mover.partial / "big"
    while not left.exists():  # the far side keeps what it has
        assert visible(submit)
    again = method.step([outgoing(big_file, str(submit / "big"))])
    assert again.mover.partial == step.mover.partial
    run(again, tmp_path)
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


@pytest.mark.parametrize("prefix", ["", "-oProxyCommand=x", "me@-oProxyCommand=x", "a b", "/path"])
def test_a_wrong_prefix_is_refused(prefix):
    with pytest.raises(ConfigurationError, match="user@host"):
        RSyncStaging(prefix)


def many(submit: Path, count: int) -> list[Path]:
    paths = [submit / f"{n}[1] *" for n in range(count)]
    for n, path in enumerate(paths):
        path.write_text(f"file {n}")
    paths[0].chmod(0o755)
    return paths


@pytest.mark.services
def test_small_files_that_tasks_wait_for_come_by_one_rsync(side, submit, tmp_path):
    method = side.staging(counting_ssh(tmp_path, side.ssh))
    node, paths = tmp_path / "node", many(submit, 30)
    (submit / "big").write_bytes(b"x" * 100_000)
    wanted = [*paths, submit / "big"]
    steps = [method.step([incoming(str(path), node / str(n), n)]) for n, path in enumerate(wanted)]
    for step in steps:
        run(step, node)
    assert [(node / str(n)).read_bytes() for n in range(31)] == [path.read_bytes() for path in wanted]
    assert (node / "0").stat().st_mode & 0o100
    assert not (node / "1").stat().st_mode & 0o100
    assert (tmp_path / "count").read_text() == "xx"  # one for all small files, one for the big one
    method.close()


@pytest.mark.services
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_file_for_many_tasks_of_a_node_comes_once_until_it_changes(side, submit, tmp_path, size):
    method = side.staging(counting_ssh(tmp_path, side.ssh))
    path, node = submit / "x", tmp_path / "node"
    for version in (b"a", b"b"):
        path.write_bytes(version * size)
        os.utime(path, ns=(7, 1_000_000_000 + ord(version)))  # within one second, and of one size
        for n in range(5):
            run(method.step([incoming(str(path), node / str(n), n)]), node)
            assert (node / str(n)).read_bytes() == version * size
            if n == 2:
                (node / str(n)).write_bytes(b"spoiled by an app")
    assert (tmp_path / "count").read_text() == "xx"
    method.close()


@pytest.mark.services
def test_a_file_that_vanishes_from_a_list_is_named_and_keeps_no_other_back(side, submit, tmp_path):
    method, node = side.staging(), tmp_path / "node"
    paths = many(submit, 3)
    steps = [method.step([incoming(str(path), node / str(n), n)]) for n, path in enumerate(paths)]
    paths[1].unlink()
    run(steps[0], node)
    with pytest.raises(StagingError, match="No such file"):
        run(steps[1], node)
    run(steps[2], node)
    assert visible(node) == ["0", "2"]
    method.close()


@pytest.mark.services
def test_without_lists_files_come_one_by_one(side, submit, tmp_path):
    method, node = side.staging(counting_ssh(tmp_path, side.ssh)), tmp_path / "node"
    paths = many(submit, 3)
    steps = [method.step([incoming(str(path), node / str(n), n)]) for n, path in enumerate(paths)]
    method.close()  # the lists are gone, as they are for a login that may not read them
    for n, step in enumerate(steps):
        run(step, node)
        assert (node / str(n)).read_text() == f"file {n}"
    assert (tmp_path / "count").read_text() == "x" * 4  # the first look for the list, then one a file


@pytest.mark.services
def test_a_changed_file_is_never_taken_for_the_one_that_was_planned(side, submit, tmp_path):
    """What is there when the node asks is what the task gets, as ever; it is not kept as the older version."""
    method, node = side.staging(), tmp_path / "node"
    (submit / "x").write_text("old")
    old = method.step([incoming(str(submit / "x"), node / "a")])
    (submit / "x").write_text("newer")
    run(old, node)
    assert (node / "a").read_text() == "newer"
    run(method.step([incoming(str(submit / "x"), node / "b")]), node)
    assert (node / "b").read_text() == "newer"
    method.close()


def test_lists_of_what_is_waited_for_go_with_the_method(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    method = RSyncStaging("me@host")
    for path in many(tmp_path, 3):
        method.step([incoming(str(path), tmp_path / "node")])
    (folder,) = (tmp_path / "tmp").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert next(folder.iterdir()).read_bytes().count(b"\0") == 3
    method.close()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_lists_go_without_being_closed_too_and_those_of_killed_processes_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (path,) = many(tmp_path, 1)
    code = f"""
import os, signal, sys
from pathlib import Path
from flow_core.files import Directory, File, Glob
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging import RSyncStaging
method = RSyncStaging("me@host")
method.step([Transfer(File({str(path)!r}), Path("in"), Direction.IN, 1, "here")])
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for end, left in (("well", 0), ("killed", 1)):
        environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
        done = subprocess.run([sys.executable, "-c", code, end], env=environment, capture_output=True, timeout=50)
        assert done.stderr == b""
        assert len(list((tmp_path / "tmp").iterdir())) == left
    method = RSyncStaging("me@host")
    method.step([incoming(str(path), tmp_path / "node")])
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    method.close()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.services
def test_a_file_beyond_the_limit_is_refused_before_it_comes(side, submit, tmp_path):
    (submit / "a").write_bytes(b"x" * 1001)
    (submit / "b").write_bytes(b"x" * 1000)
    method = RSyncStaging(side.prefix, ssh=side.ssh, retry=QUICK, limits=SizeLimits(max_bytes=1000))
    node = tmp_path / "node"
    with pytest.raises(StagingError, match=r"1,001 bytes.*limit of 1,000.*SizeLimits\(max_bytes"):
        run(method.step([incoming(str(submit / "a"), node / "a")]), node)
    assert not (node / "a").exists()
    run(method.step([incoming(str(submit / "b"), node / "b")]), node)
    assert (node / "b").read_bytes() == b"x" * 1000
    method.close()


@pytest.mark.services
def test_small_files_that_another_user_could_have_put_there_are_not_taken(side, submit, tmp_path):
    (submit / "a").write_bytes(b"honest")
    method, node = side.staging(), tmp_path / "node"
    run(method.step([incoming(str(submit / "a"), node / "a")]), node)
    (mirrored,) = (path for path in node.rglob("files/**/a"))
    state = mirrored.stat()
    mirrored.chmod(0o644)
    mirrored.write_bytes(b"poison")
    os.utime(mirrored, ns=(state.st_atime_ns, state.st_mtime_ns))
    root = next(path for path in mirrored.parents if path.name == "files").parent
    other = 65534
    os.chown(root, other, other)
    run(method.step([incoming(str(submit / "a"), node / "b")]), node)
    assert (node / "b").read_bytes() == b"honest"
    method.close()


@pytest.mark.services
def test_the_outputs_of_a_task_go_by_one_login_and_are_shown_together(side, submit, tmp_path):
    ssh = counting_ssh(tmp_path, side.ssh)
    node = tmp_path / "node"
    made = [(node / "out" / f"{n}", submit / f"dir {n % 3}" / f"{n}*") for n in range(30)]

    def function() -> None:
        for here, there in made:
            here.parent.mkdir(parents=True, exist_ok=True)
            here.write_text(str(there))

    run(side.staging(ssh).step([outgoing(here, str(there)) for here, there in made]), node, function)
    assert [there.read_text() for _, there in made] == [str(there) for _, there in made]
    assert visible(submit) == sorted(["dir 0", "dir 1", "dir 2", *(f"{n}*" for n in range(30))])
    assert (tmp_path / "count").read_text() == "x"


@pytest.mark.services
def test_if_one_output_cannot_be_written_the_task_fails_and_names_it(side, submit, tmp_path):
    node = tmp_path / "node"
    node.mkdir()
    (submit / "wall").write_text("a file, where a directory is wanted")
    made = [(node / "a", submit / "a"), (node / "b", submit / "wall" / "b")]
    for here, _ in made:
        here.write_text("x")
    with pytest.raises(StagingError, match="wall/b"):
        run(side.staging().step([outgoing(here, str(there)) for here, there in made]), node)
    assert (submit / "wall").read_text() == "a file, where a directory is wanted"


@pytest.mark.services
def test_directories_in_each_other_and_patterns_of_one_directory_are_all_brought_out(side, submit, tmp_path):
    node = tmp_path / "node"
    for name in ("tree/a.txt", "inner/b.txt", "plots/c.png", "plots/d.txt", "single"):
        (node / name).parent.mkdir(parents=True, exist_ok=True)
        (node / name).write_text(name)
    transfers = [
        replace(outgoing(node / "tree", "x"), file=Directory(str(submit / "out"))),
        replace(outgoing(node / "inner", "x"), file=Directory(str(submit / "out" / "deep"))),
        replace(outgoing(node / "plots", "x"), file=Glob(str(submit / "out" / "*.png"))),
        outgoing(node / "single", str(submit / "out" / "single")),
    ]
    run(side.staging().step(transfers), node)
    assert visible(submit) == ["a.txt", "b.txt", "c.png", "deep", "out", "single"]
    assert (submit / "out" / "deep" / "b.txt").read_text() == "inner/b.txt"
    assert visible(node) == sorted(
        ["tree", "a.txt", "inner", "b.txt", "plots", "c.png", "d.txt", "single"]
    )  # and no links in the app's own


SLOW = {"tries": 2, "least_speed": 10_000_000, "least_speed_window_s": 3}
TOO_SLOW = r"too slow: .* where least_speed=1e\+07, least_speed_window_s=3"


@pytest.fixture
def slow_link(side):
    if not (side.root / "net" / "id").exists():
        pytest.skip("only root can slow the link down")
    for host in ("1", "2"):
        side.net("rate", host, "2mbit")
    yield
    for host in ("1", "2"):
        side.net("rate", host, "none")


@pytest.mark.services
@pytest.mark.usefixtures("slow_link")
def test_a_link_that_is_too_slow_is_given_up_and_how_far_it_is_is_told(side, submit, tmp_path, monkeypatch):
    monkeypatch.setattr(handle, "_TELL_S", 1.0)
    node, told = tmp_path / "node", []
    node.mkdir()
    (node / "x").write_bytes(os.urandom(4 << 20))
    method = RSyncStaging(side.prefix, ssh=side.ssh, retry=replace(QUICK, **SLOW))
    step = method.step([outgoing(node / "x", str(submit / "x"))])
    with pytest.raises(StagingError, match=TOO_SLOW):
        step.run(lambda: None, NodeContext(executor="here", working_dir=str(node), tell=told.extend))
    assert {(each.direction, each.total) for each in told if each.moved} == {("out", 4 << 20)}
    assert max(each.moved for each in told) > 100_000


@pytest.mark.services
@pytest.mark.usefixtures("slow_link")
def test_a_file_that_comes_too_slowly_is_given_up(side, submit, tmp_path):
    (submit / "x").write_bytes(os.urandom(4 << 20))
    policy = ", ".join(f"{name}={value}" for name, value in SLOW.items())
    method = f"flow_staging.RSyncStaging({side.prefix!r}, ssh={side.ssh!r}, retry=flow_staging.RetryPolicy({policy}))"
    command = [str(NETNS), "exec", str(side.root / "net"), "1", sys.executable, str(MOVING), method, "in"]
    done = subprocess.run(
        [*command, str(submit / "x"), str(tmp_path / "x")], capture_output=True, text=True, timeout=60, check=False
    )
    assert re.search(TOO_SLOW, done.stderr)
    assert not (tmp_path / "x").exists()
