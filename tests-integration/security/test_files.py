"""Files that another user has put where this user's runs look: none is trusted by its place."""

from __future__ import annotations

import json
import os
import pickle
import re
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from security_attacker import Attacker

import flow
from flow import Config, python_app
from flow.executors import HighThroughputExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider
from flow_core.checkpoint.find import get_all_checkpoints
from flow_core.errors import ConfigurationError
from flow_core.kernel.kernel import DataFlowKernel
from flow_core.own_files import NotOwnFile
from flow_executors.testing.local_run import processes_of, wait_until
from flow_monitor.errors import DatabaseError
from flow_monitor.queries import workflows
from flow_monitor.queries.database import open_database
from flow_monitor.schema.engine import writing_engine
from flow_monitor.testing.made import make_database
from flow_monitor.testing.synthetic import SyntheticRun
from flow_providers.jobs.cli import main as jobs_command
from flow_providers.jobs.ledger import JobLedger, default_ledger

LIST = """
import os, sys
for top in sys.argv[1:]:
    try:
        print(os.listdir(top) if os.path.isdir(top) else len(open(top, "rb").read()))
    except PermissionError:
        print("denied")
"""


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return Path.touch, (self.marker,)


@python_app(cache=True)
def square(x: int) -> int:
    return x * x


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory with runs into which everybody may write."""
    made = tmp_path / "runinfo"
    made.mkdir()
    made.chmod(0o777)
    return made


def end_projector(kernel: DataFlowKernel, planted: Path) -> None:
    """Remove what is not to be written to, so that the process which waits for that can do its work and end."""
    planted.unlink()
    wait_until(lambda: not processes_of(kernel.run_id), "processes of the run are left")


def give(top: Path, attacker: Attacker) -> None:
    for path in (top, *top.rglob("*")):
        os.chown(path, attacker.uid, attacker.gid, follow_symlinks=False)


def test_a_checkpoint_of_another_user_is_not_unpickled_unless_its_owner_is_named(
    shared: Path, attacker: Attacker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    with monkeypatch.context() as theirs:
        theirs.setattr("flow_core.memo.stored.is_immutable", lambda _: False)
        theirs.setattr("flow_core.memo.stored.dump", lambda _: pickle.dumps(Evil(marker)))
        with flow.load(Config(run_dir=str(shared), checkpoint_mode="task_exit", exit_mode="wait")):
            assert square(4).result() == 16
    give(shared / "000", attacker)
    config = Config(run_dir=str(shared), checkpoint_files=get_all_checkpoints(shared))
    with pytest.warns(UserWarning, match="belongs to user 'flow-attacker'.*trust_owner"), flow.load(config):
        assert square(4).result() == 16
    assert not marker.exists()
    config = Config(run_dir=str(shared), checkpoint_files=get_all_checkpoints(shared), trust_owner=["flow-attacker"])
    with flow.load(config):
        square(4).result()
    assert marker.exists()


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_who_trusts_a_colleague_does_not_trust_all_who_may_write_to_the_colleagues_file(
    shared: Path, attacker: Attacker, mode: int
) -> None:
    with flow.load(Config(run_dir=str(shared), checkpoint_mode="task_exit", exit_mode="wait")):
        assert square(4).result() == 16
    give(shared / "000", attacker)
    (shared / "000").chmod(0o755)
    (shared / "000" / "checkpoint" / "tasks.log").chmod(mode)
    config = Config(run_dir=str(shared), checkpoint_files=get_all_checkpoints(shared), trust_owner=["flow-attacker"])
    with pytest.warns(UserWarning, match=f"others may write to it .mode {mode:o}.: chmod go-w"), flow.load(config):
        assert square(4).result() == 16
    (shared / "000").chmod(0o700)  # to which others do not come, whatever its mode
    with warnings.catch_warnings(), flow.load(config):
        warnings.simplefilter("error")
        assert square(4).result() == 16


def test_a_ledger_of_another_user_is_neither_read_nor_written(
    shared: Path, attacker: Attacker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "marker"
    bad = tmp_path / "bin"
    bad.mkdir(mode=0o755)
    for name in ("squeue", "scancel", "sacct"):
        (bad / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (bad / name).chmod(0o755)
    options = {"class": "flow_providers.channels.local:LocalChannel", "options": {"envs": {"PATH": f"{bad}:/bin"}}}
    spec = {"class": "flow_providers.cluster.slurm.provider:SlurmProvider", "options": {"channel": options}}
    planted = shared / "jobs.ledger"
    ledger = JobLedger(planted)
    ledger.intend("faaaabbbbcccc", run_id="r", owner="htex", job_name="x", provider=spec)
    ledger.submitted("faaaabbbbcccc", "77")
    planted.chmod(0o666)
    for arguments in (["jobs", "ls"], ["jobs", "ls", "--ask"], ["jobs", "cancel", "--all"]):
        assert jobs_command([*arguments, "--ledger", str(planted)]) == 1  # others may write to it
        assert "chmod go-w" in capsys.readouterr().err
    os.chown(planted, attacker.uid, attacker.gid)
    assert jobs_command(["jobs", "cancel", "--all", "--ledger", str(planted)]) == 1
    assert "belongs to the user" in capsys.readouterr().err
    os.chown(planted, os.geteuid(), -1)
    planted.chmod(0o600)
    jobs_command(["jobs", "ls", "--ask", "--ledger", str(planted)])  # one's own: still nothing of it is run
    assert not marker.exists()
    os.chown(planted, attacker.uid, attacker.gid)
    before = planted.read_bytes()
    assert default_ledger(shared).name == f"jobs-{os.geteuid()}.ledger"
    with flow.load(Config([HighThroughputExecutor(max_workers=1, provider=LocalProvider())], run_dir=str(shared))):
        assert square(3).result() == 9
    assert planted.read_bytes() == before
    assert [json.loads(line) for line in default_ledger(shared).read_bytes().splitlines()]


def test_what_is_planted_as_a_link_is_not_written_through(shared: Path, attacker: Attacker, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    for name in ("jobs.ledger", "monitoring.db"):
        (shared / name).symlink_to(mine)
        os.chown(shared / name, attacker.uid, attacker.gid, follow_symlinks=False)
    config = Config(
        [HighThroughputExecutor(max_workers=1, provider=LocalProvider())],
        run_dir=str(shared),
        monitoring=MonitoringHub(logging_endpoint=f"sqlite:///{shared / 'monitoring.db'}"),
    )
    with warnings.catch_warnings(), flow.load(config) as kernel:
        warnings.simplefilter("ignore")
        assert square(5).result() == 25
    assert mine.read_text() == "mine"
    end_projector(kernel, shared / "monitoring.db")
    assert "symbolic link" in (shared / "000" / "flow.log").read_text()


TAKE = "import os, sys; os.close(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)); os.chmod(sys.argv[1], 0o666)"


@pytest.fixture
def planted(request: pytest.FixtureRequest, shared: Path, attacker: Attacker, tmp_path: Path) -> tuple[Path, bytes]:
    """What lies at the place of the database, and what is in it."""
    database, kind = shared / "monitoring.db", str(request.param)
    if kind in ("theirs", "full"):
        assert attacker.run(TAKE, database) == ""
        if kind == "full":
            database.write_bytes(
                make_database(tmp_path, SyntheticRun(run_id="theirs", tasks=5, samples=0)).read_bytes()
            )
    elif kind == "open":
        make_database(shared, SyntheticRun(run_id="mine", tasks=5, samples=0))
        database.chmod(0o666)
    elif kind == "second name":
        made = make_database(tmp_path, SyntheticRun(run_id="mine", tasks=5, samples=0))
        made.chmod(0o600)
        os.link(made, database)
    else:
        assert attacker.run("import os, sys; os.mkfifo(sys.argv[1], 0o666)", database) == ""
        return database, b""
    return database, database.read_bytes()


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        ("theirs", "belongs to user 'flow-attacker'"),
        ("full", "belongs to user 'flow-attacker'"),
        ("open", "others may write to it .mode 666.: chmod go-w"),
        ("second name", "another name elsewhere"),
        ("pipe", "no plain file"),
    ],
    indirect=["planted"],
)
@pytest.mark.timeout(60)
def test_a_database_that_others_can_change_is_not_written_to(
    planted: tuple[Path, bytes], reason: str, shared: Path
) -> None:
    database, before = planted
    with pytest.raises(NotOwnFile, match=f"{reason}.*name another one in logging_endpoint"):
        writing_engine(f"sqlite:///{database}")
    hub = MonitoringHub(logging_endpoint=f"sqlite:///{database}")
    with warnings.catch_warnings(), flow.load(Config(run_dir=str(shared), monitoring=hub)) as kernel:
        warnings.simplefilter("ignore")
        assert square(5).result() == 25
    assert re.search(reason, (kernel.run_dir / "flow.log").read_text())
    if before:
        assert database.read_bytes() == before
    end_projector(kernel, database)


def test_a_database_that_another_user_puts_in_the_place_of_ones_own_is_not_written_to(
    shared: Path, attacker: Attacker
) -> None:
    database = shared / "monitoring.db"
    engine = writing_engine(f"sqlite:///{database}")
    assert attacker.run("import os, sys; os.unlink(sys.argv[1])", database) == ""
    assert attacker.run(TAKE, database) == ""
    with pytest.raises(NotOwnFile, match="belongs to user"), engine.connect():
        pass
    engine.dispose()
    assert database.read_bytes() == b""


@pytest.mark.parametrize(("mode", "group"), [("private", False), ("group", True)])
def test_a_run_is_closed_to_others_and_open_to_the_group_if_so_wished(
    tmp_path: Path, attacker: Attacker, mode: str, group: bool
) -> None:
    script = (
        "import sys, flow\n"
        "from flow import *\n"
        "from flow.executors import HighThroughputExecutor\n"
        "from flow.monitoring import MonitoringHub\n"
        "@bash_app(cache=True)\n"
        "def say(stdout=AUTO_LOGNAME): return 'echo secret'\n"
        "top = sys.argv[1]\n"
        "hub = MonitoringHub(logging_endpoint=f'sqlite:///{top}/monitoring.db')\n"
        "with flow.load(Config([HighThroughputExecutor(max_workers=1)], run_dir=top, run_dir_mode=sys.argv[2],\n"
        "                      monitoring=hub, checkpoint_mode='task_exit', exit_mode='wait')):\n"
        "    say().result()\n"
    )
    top = tmp_path / "deep" / "runinfo"
    subprocess.run([sys.executable, "-c", script, str(top), mode], check=True, timeout=120, umask=0o022)
    places = [top / "000", top / "monitoring.db", top / "000" / "flow.log", top / "000" / "checkpoint" / "tasks.log"]
    assert attacker.run(LIST, *places).split() == ["denied"] * 4
    for path in (top, *top.rglob("*")):
        os.chown(path, -1, attacker.gid)
    assert ("denied" not in attacker.run(LIST, *places)) is group
    assert not list(top.rglob("flow_block_key"))  # its manager has read it
    secrets = [path for path in top.rglob("*") if ".secrets" in path.name or path.name in ("keys", "live")]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in secrets if path.is_dir())


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_a_run_directory_that_another_user_has_made_first_is_not_used(
    tmp_path: Path, attacker: Attacker, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its name can be foreseen, and who owns it can put another job script in the place of a run's."""
    common = tmp_path / "common"
    common.mkdir()
    common.chmod(0o1777)
    monkeypatch.chdir(common)
    (tmp_path / "mine").mkdir()
    made = "os.mkdir(sys.argv[1], 0o777)" if kind == "directory" else "os.symlink(sys.argv[2], sys.argv[1])"
    assert attacker.run(f"import os, sys; os.umask(0); {made}", common / "runinfo", tmp_path / "mine") == ""
    with pytest.raises(ConfigurationError, match=r"belongs to user 'flow-attacker'.*trust_owner=\['flow-attacker'\]"):
        flow.load(Config())
    assert os.listdir(common / "runinfo") == []
    with flow.load(Config(trust_owner=["flow-attacker"])):
        assert square(3).result() == 9


def test_names_that_another_user_has_made_leave_one_for_the_next_run(shared: Path, attacker: Attacker) -> None:
    made = "import os, sys; [os.mkdir(f'{sys.argv[1]}/{name}') for name in ('9' * 255, '8' * 200, '007', 'x')]"
    assert attacker.run(made, shared) == ""
    with flow.load(Config(run_dir=str(shared))) as kernel:
        assert kernel.run_dir.name == "008"
        assert square(3).result() == 9


PLANT = """
import os, shutil, sqlite3, sys, tempfile
database, suffix = sys.argv[1:]
with tempfile.TemporaryDirectory() as work:
    copy = work + "/m.db"
    shutil.copy(database, copy)
    own = sqlite3.connect(copy)
    own.execute("PRAGMA journal_mode=" + ("wal" if suffix == "-wal" else "delete"))
    if suffix == "-journal":  # what it holds is what would be put back: of a database with other words
        own.execute("UPDATE workflow SET workflow_name = 'EVIL'")
        own.commit()
        own.execute("PRAGMA cache_size=1")
        own.execute("BEGIN IMMEDIATE")
    own.execute("UPDATE workflow SET workflow_name = 'EVIL2', script = hex(randomblob(200000))")
    if suffix == "-wal":
        own.commit()
    shutil.copy(copy + suffix, database + suffix)
    os.chmod(database + suffix, 0o666)
"""


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_what_another_user_lays_beside_a_database_does_not_become_its_content(
    shared: Path, attacker: Attacker, suffix: str
) -> None:
    shared.chmod(0o1777)
    database = make_database(shared, SyntheticRun(run_id="mine", tasks=5, samples=0))
    database.chmod(0o644)
    before = database.read_bytes()
    assert attacker.run(PLANT, database, suffix) == ""
    assert Path(f"{database}{suffix}").stat().st_size > 0
    with (
        open_database(str(database)) as opened,
        pytest.raises(DatabaseError, match=r"has put it beside the database.*remove it"),
        opened.connect(),
    ):
        pass
    with pytest.raises(NotOwnFile, match="beside the database"):
        writing_engine(f"sqlite:///{database}")
    assert database.read_bytes() == before
    Path(f"{database}{suffix}").unlink()
    with open_database(str(database)) as opened, opened.connect() as connection:
        assert [run.run_id for run in workflows.page(connection).items] == ["mine"]


def test_an_empty_file_of_another_user_gets_no_page_of_a_private_database(shared: Path, attacker: Attacker) -> None:
    shared.chmod(0o1777)
    database = make_database(shared, SyntheticRun(run_id="mine", tasks=5, samples=0))
    database.chmod(0o600)
    assert attacker.run("import sys; open(sys.argv[1], 'w')", f"{database}-wal") == ""
    with pytest.raises(NotOwnFile, match="beside the database"):
        writing_engine(f"sqlite:///{database}")
