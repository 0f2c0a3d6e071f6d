"""Machines that are set up otherwise: homes that are links, processes that are hidden, masks that hide nothing.

The user of these runs is the second user of the machine, with the system's Python and the packages of this one.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from security_attacker import Attacker

SCRIPT = """
import os, sys, zipfile
import flow
from flow import Config, bash_app, python_app
from flow.executors import HighThroughputExecutor, LowLatencyExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider
from flow_core.staging.noop import NoOpFileStaging
from flow_staging import ZipFileStaging

@python_app(cache=True)
def double(x):
    import os
    return 2 * x, os.getcwd()

@python_app
def writable(top, inputs=()):
    import os
    assert ".flow-staged-" in inputs[0].filepath
    found = [os.path.join(folder, name) for folder, folders, files in os.walk(top) for name in (*folders, *files)]
    return [path for path in found if os.stat(path).st_mode & 0o022 and not path.endswith((".stdout", "manager.log"))]

@bash_app
def say(inputs=(), outputs=(), stdout=flow.AUTO_LOGNAME):
    return f"cp {inputs[0]} {outputs[0]}; echo said"

if __name__ == "__main__":
    os.umask(int(sys.argv[1], 8))
    hub = MonitoringHub(resource_monitoring_interval=0.1)
    kind = LowLatencyExecutor if "direct" in sys.argv else HighThroughputExecutor
    executor = kind(
        max_workers=1, provider=LocalProvider(init_blocks=1, max_blocks=1),
        storage_access=[NoOpFileStaging(), ZipFileStaging()],
    )
    with open("in.txt", "w") as file:
        file.write("mine")
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("member", b"x")
    config = Config(
        [executor], monitoring=hub, checkpoint_mode="task_exit", exit_mode="wait", run_dir_mode=sys.argv[2]
    )
    with flow.load(config) as kernel:
        assert double(2).result()[0] == 4
        made = say(inputs=[flow.File("in.txt")], outputs=[flow.File("out.txt")])
        assert made.result() == 0
        with open("out.txt") as file:
            assert file.read() == "mine"
        found = writable(os.path.abspath("runinfo"), inputs=[flow.File(f"zip:{os.path.abspath('a.zip')}/member")])
        if found.result():
            sys.exit(f"others may write to {found.result()}")
    flow.clear()
    from flow_core.checkpoint.find import get_all_checkpoints
    with flow.load(Config([HighThroughputExecutor(max_workers=1)], checkpoint_files=get_all_checkpoints("runinfo"))):
        assert double(2).result()[0] == 4
    print("fine")
"""
HIDDEN = 'mount --make-rprivate / && mount -t proc -o hidepid=2 proc /proc && ! test -d /proc/1 -a -n "$NEVER" && '
SEEN = "import os; print(any(os.stat(f'/proc/{n}').st_uid == 0 for n in os.listdir('/proc') if n.isdigit()))"


class User:
    """The second user, with what it takes to run scripts of Flow."""

    def __init__(self, who: Attacker, home: Path) -> None:
        self.who, self.home = who, home
        self.path = os.pathsep.join(path for path in sys.path if path and ("site-packages" in path or "/src" in path))

    def run(self, *command: object, setup: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program of the system's Python in the home; root does ``setup`` before, in a mount namespace."""
        words = [self.who.python, *map(str, command)]
        become = f"setpriv --reuid={self.who.uid} --regid={self.who.gid} --clear-groups --inh-caps=-all"
        script = f'{setup} cd "$HOME" && exec {become} "$@"'
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            ["unshare", "-m", "sh", "-ec", script, "sh", *words],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            env={"HOME": str(self.home), "PATH": path, "PYTHONPATH": self.path, "LANG": "C.UTF-8"},
        )


@pytest.fixture
def user(attacker: Attacker, tmp_path: Path) -> User:
    home = tmp_path / "homes" / "user"
    home.mkdir(parents=True)
    os.chown(home, attacker.uid, attacker.gid)
    home.chmod(0o700)
    made = User(attacker, home)
    (tmp_path / "script.py").write_text(SCRIPT)
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("unshare and setpriv are not installed")
    tried = made.run("-c", "import sys, zmq, orjson, flow; print(sys.version_info[:2])")
    if tried.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip(f"another user cannot run the packages of this Python: {(tried.stdout + tried.stderr)[-200:]}")
    return made


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["by the interchange", "direct"])
def test_a_run_with_the_processes_of_others_hidden_lacks_nothing(user: User, tmp_path: Path, way: str) -> None:
    assert user.run("-c", SEEN).stdout == "True\n"
    assert user.run("-c", SEEN, setup=HIDDEN).stdout == "False\n"
    done = user.run(tmp_path / "script.py", "022", "private", way, setup=HIDDEN)
    assert done.stderr == ""
    assert (done.returncode, done.stdout) == (0, "fine\n")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("of", ["the administrator", "the user"])
def test_a_home_that_is_a_link_is_a_home(user: User, tmp_path: Path, of: str) -> None:
    link = tmp_path / "home"
    link.symlink_to(user.home)
    if of == "the user":
        os.chown(link, user.who.uid, user.who.gid, follow_symlinks=False)
    user.home = link
    done = user.run(tmp_path / "script.py", "022", "private")
    assert done.stderr == ""
    assert (done.returncode, done.stdout) == (0, "fine\n")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("mask", "mode", "kept"), [("002", "group", 0o750), ("000", "umask", 0o755), ("000", "private", 0o700)]
)
def test_a_mask_that_lets_others_write_lets_nobody_change_a_run(
    user: User, tmp_path: Path, mask: str, mode: str, kept: int
) -> None:
    """With umask 002, and a group that is a whole project, who could add a job script would run code as the user."""
    done = user.run(tmp_path / "script.py", mask, mode)
    assert done.stderr == ""
    assert (done.returncode, done.stdout) == (0, "fine\n")
    top = user.home / "runinfo"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (top, top / "000")] == [kept, kept]
    paths = [path for path in (top, *top.rglob("*")) if path.name not in ("manager.log",) and path.suffix != ".stdout"]
    assert len(paths) > 20
    assert [path for path in paths if path.lstat().st_mode & 0o022] == []


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("sticky", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_an_environment_of_another_user_has_nothing_written_where_that_user_could_change_it(
    attacker: Attacker, tmp_path: Path, sticky: bool, named: bool
) -> None:
    """As after ``sudo -E``: home, cache and temporary directory are the other user's, who has put links there."""
    theirs, goal, work, temporary = (tmp_path / name for name in ("theirs", "goal", "work", "temporary"))
    for path in (theirs, goal, work, temporary):
        path.mkdir()
    for name in (".cache", ".config", "cache"):
        (theirs / name).symlink_to(goal)
        os.chown(theirs / name, attacker.uid, attacker.gid, follow_symlinks=False)
    for path in (theirs, temporary):
        os.chown(path, attacker.uid, attacker.gid)
    temporary.chmod(0o1777 if sticky else 0o777)
    (tmp_path / "script.py").write_text(SCRIPT)
    names = {"HOME": str(theirs), "TMPDIR": str(temporary)}
    if named:
        names |= {"XDG_CACHE_HOME": str(theirs / "cache"), "FLOW_CACHE": str(theirs / "cache")}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), "022", "private"],
        cwd=work,
        env={**os.environ, **names},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")
    assert sorted(path.name for path in theirs.iterdir()) == [".cache", ".config", "cache"]
    assert [list(path.iterdir()) for path in (goal, temporary)] == [[], []]
