"""SSHChannel and its kin on a real OpenSSH server, and what works over them."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flow_providers.adhoc.provider import AdHocProvider
from flow_providers.channels.interactive import SSHInteractiveLoginChannel
from flow_providers.channels.local import LocalChannel
from flow_providers.channels.oauth import OAuthSSHChannel
from flow_providers.channels.ssh import SSHChannel
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.errors import (
    AuthException,
    BadHostKeyException,
    BadOption,
    BadPermsScriptPath,
    BadScriptPath,
    ChannelExecFailed,
    ChannelTimeout,
    ChannelUnavailable,
    FileCopyException,
    FileExists,
    SchedulerUnavailable,
    ScriptPathError,
    SSHException,
    SubmitException,
)
from flow_providers.interfaces.job_state import JobState
from flow_providers.local.provider import LocalProvider
from flow_providers.spec import provider_from, spec_of
from flow_providers.testing.contract import ProviderContract

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


@pytest.fixture
def home(ssh_server: dict[str, str]) -> Iterator[Path]:
    """Give a directory that the user there may write to; pytest's own are closed to others by each run of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="flow-ssh-test-"))
    if os.getuid() == 0:
        subprocess.run(["chown", ssh_server["SSH_TEST_USER"], folder], check=True, timeout=10)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def channel(ssh_server: dict[str, str], home: Path) -> Iterator[SSHChannel]:
    channel = make(ssh_server, script_dir=str(home / "scripts"))
    yield channel
    channel.close()


def make(server: dict[str, str], **options: object) -> SSHChannel:
    given: dict[str, object] = {
        "port": int(server["SSH_TEST_PORT"]),
        "username": server["SSH_TEST_USER"],
        "key_filename": server["SSH_TEST_KEY"],
        "known_hosts": server["SSH_TEST_KNOWN_HOSTS"],
        **options,
    }
    return SSHChannel(server["SSH_TEST_HOST"], **given)  # type: ignore[arg-type]  # checked by the constructor


ODD = [
    "out#1?.txt",
    "data[1]*.txt",
    " two  spaces ",
    "-rf",
    "~",
    'quote\'s "and" $HOME `id`',
    "a\nb",
    "naïve ☃",
    "x" * 250,
]


@pytest.mark.parametrize("name", [*ODD, os.fsdecode(b"no text \xff")])
def test_a_name_is_a_name(channel: SSHChannel, home: Path, tmp_path: Path, name: str) -> None:
    for made in (channel, LocalChannel()):
        folder = str(home / type(made).__name__ / f"in {name[:40]}")
        (tmp_path / name).write_text(name, errors="surrogateescape")
        assert made.push_file(str(tmp_path / name), folder) == f"{folder}/{name}"
        assert os.listdir(folder) == [name]
        assert made.isdir(folder)
        back = made.pull_file(f"{folder}/{name}", str(tmp_path / type(made).__name__))
        assert Path(back).name == name
        assert Path(back).read_bytes() == os.fsencode(name)


def test_a_link_to_nothing_is_not_overwritten(channel: SSHChannel, home: Path, tmp_path: Path) -> None:
    channel.push_bytes(b"x", "a", str(home / "there"))
    os.symlink("nowhere", tmp_path / "a")
    for made in (channel, LocalChannel()):
        with pytest.raises(FileExists):
            made.pull_file(str(home / "there" / "a"), str(tmp_path))


def test_a_command_gives_its_exit_code_and_output(channel: SSHChannel) -> None:
    code, out, err = channel.execute_wait("echo out; echo err >&2; exit 7", 20)
    assert (code, out, err) == (7, "out\n", "err\n")


def test_a_command_killed_by_a_signal_says_128_and_the_signal(channel: SSHChannel) -> None:
    assert channel.execute_wait("kill -9 $$", 20).exit_code == 137


def test_variables_arrive_unharmed(channel: SSHChannel) -> None:
    assert channel.execute_wait('printf %s "$A"', 20, envs={"A": 'it\'s $x "y"'}).stdout == 'it\'s $x "y"'


@pytest.mark.parametrize("command", ["yes", "yes >&2"])
def test_a_command_that_prints_without_end_is_killed(channel: SSHChannel, command: str, home: Path) -> None:
    with pytest.raises(ChannelExecFailed, match="more than 67,108,864 bytes"):
        channel.execute_wait(f"echo $$ >{home}/pid; exec {command}", 100)
    (ended,) = [int(line) for line in (home / "pid").read_text().split()]
    with suppress(psutil.NoSuchProcess):
        psutil.wait_procs([psutil.Process(ended)], timeout=10)
    assert not psutil.pid_exists(ended)


def test_much_output_on_both_streams_does_not_block(channel: SSHChannel) -> None:
    result = channel.execute_wait(
        "head -c 3000000 /dev/zero | tr '\\0' e >&2; head -c 3000000 /dev/zero | tr '\\0' o", 50
    )
    assert (len(result.stdout), len(result.stderr)) == (3_000_000, 3_000_000)


def test_a_command_that_is_too_slow_is_killed_with_all_it_started(channel: SSHChannel, home: Path) -> None:
    with pytest.raises(ChannelTimeout, match="did not end within") as caught:
        channel.execute_wait(f"echo before; sleep 987 & echo $! > {home}/child; sleep 987", 1.5)
    assert caught.value.stdout == "before\n"
    child = int((home / "child").read_text())
    if psutil.pid_exists(child):
        psutil.wait_procs([psutil.Process(child)], timeout=10)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert channel.execute_wait("echo again", 20).stdout == "again\n"


def test_a_started_process_can_be_polled_waited_for_and_terminated(channel: SSHChannel) -> None:
    short = channel.execute_no_wait("exit 5")
    assert short.wait(30) == 5
    long = channel.execute_no_wait("sleep 987 & sleep 987; wait")
    assert long.poll() is None
    long.terminate()
    assert long.poll() in {137, 143}


def test_files_go_there_and_come_back(channel: SSHChannel, home: Path, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "data").write_bytes(data)
    path = channel.push_file(str(tmp_path / "data"), str(home / "a/b"))
    assert path == str(home / "a/b/data")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE((home / "a").stat().st_mode) == 0o700
    back = channel.pull_file(path, str(tmp_path / "back"))
    assert Path(back).read_bytes() == data
    with pytest.raises(FileExists):
        channel.pull_file(path, str(tmp_path / "back"))


def test_a_pushed_file_replaces_an_older_one_whole(channel: SSHChannel, home: Path) -> None:
    channel.push_bytes(b"one", "x", str(home))
    channel.push_bytes(b"two", "x", str(home))
    assert (home / "x").read_bytes() == b"two"
    assert os.listdir(home) == ["x"]


def test_what_cannot_be_written_is_named(channel: SSHChannel, home: Path) -> None:
    channel.push_bytes(b"", "file", str(home))
    with pytest.raises((BadScriptPath, FileCopyException), match="file"):
        channel.push_bytes(b"", "x", str(home / "file"))
    with pytest.raises(FileCopyException, match="missing"):
        channel.pull_file(str(home / "missing"), str(home / "back"))


@pytest.mark.skipif(os.getuid() != 0, reason="as a plain user the test and the user there are the same")
def test_a_directory_of_somebody_else_is_named(channel: SSHChannel, tmp_path: Path) -> None:
    closed = Path(tempfile.mkdtemp(prefix="flow-ssh-closed-"))
    closed.chmod(0o755)
    with pytest.raises(BadPermsScriptPath, match=rf"{closed}.*no permission"):
        channel.push_bytes(b"", "x", str(closed))
    refused = rf"directory {closed}/%s on .*: Permission denied\. .*script_dir="
    with pytest.raises(BadPermsScriptPath, match=refused % "deeper"):
        channel.makedirs(str(closed / "deeper"))
    provider = SlurmProvider(channel=channel)
    channel.script_dir = str(closed / "scripts")
    with pytest.raises(ScriptPathError, match=refused % "scripts"):
        provider.submit("true", 1)
    closed.rmdir()


def test_a_command_that_cannot_be_started_is_named(ssh_server: dict[str, str]) -> None:
    channel = make(ssh_server, envs={"TMPDIR": "/nowhere/at/all"})
    with pytest.raises(ChannelExecFailed, match=r"cannot start sleep 1.*/nowhere/at/all"):
        channel.execute_no_wait("sleep 1")
    channel.close()


def test_a_server_of_another_age_is_another_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as old, ThreadPoolExecutor(1) as pool:

        def greet() -> None:
            with old.accept()[0] as visitor:
                visitor.sendall(b"SSH-1.0-Old\r\n")
                visitor.recv(100)

        pool.submit(greet)
        channel = SSHChannel("127.0.0.1", port=old.getsockname()[1], connect_timeout=20)
        with pytest.raises(SSHException, match=r"127\.0\.0\.1 failed: Incompatible version"):
            channel.execute_wait("true", 20)


def test_directories_can_be_made_and_asked_for(channel: SSHChannel, home: Path) -> None:
    folder = str(home / "x/y/z")
    assert not channel.isdir(folder)
    channel.makedirs(folder)
    assert channel.isdir(folder)
    channel.makedirs(folder, exist_ok=True)
    with pytest.raises(FileExists):
        channel.makedirs(folder)


def test_relative_paths_are_those_of_the_home_there(channel: SSHChannel) -> None:
    assert channel.abspath("x") == channel.abspath("~/x") == channel.execute_wait("cd; pwd", 20).stdout.strip() + "/x"


def test_a_connection_that_dropped_is_made_again(channel: SSHChannel) -> None:
    channel.execute_wait("true", 20)
    transport = channel._transport
    assert transport is not None
    transport.close()
    assert channel.execute_wait("echo back", 20).stdout == "back\n"


def test_a_server_session_that_is_killed_is_unavailable_and_then_works_again(channel: SSHChannel) -> None:
    with pytest.raises(ChannelUnavailable, match="broke while a command ran"):
        channel.execute_wait("kill -9 $(ps -o ppid= -p $PPID); sleep 3", 30)
    assert channel.execute_wait("echo back", 20).stdout == "back\n"


def test_nobody_listening_is_unavailable(ssh_server: dict[str, str]) -> None:
    with pytest.raises(ChannelUnavailable, match="cannot be reached"):
        make(ssh_server, port=1).execute_wait("true", 20)


def test_an_unknown_host_is_refused(ssh_server: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(BadHostKeyException, match="not found in known_hosts"):
        make(ssh_server, known_hosts=str(tmp_path / "empty")).execute_wait("true", 20)


def test_a_changed_host_key_is_refused(ssh_server: dict[str, str], tmp_path: Path) -> None:
    name = f"[{ssh_server['SSH_TEST_HOST']}]:{ssh_server['SSH_TEST_PORT']}"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True, timeout=20
    )
    (tmp_path / "known").write_text(f"{name} {(tmp_path / 'other.pub').read_text()}")
    for accept in (False, True):
        with pytest.raises(BadHostKeyException, match="somebody may be in between"):
            make(ssh_server, known_hosts=str(tmp_path / "known"), accept_new_host=accept).execute_wait("true", 20)


class Between:
    """Somebody between a client and a server, who at first hands everything on, and then answers by himself."""

    def __init__(self, server: dict[str, str]) -> None:
        self._behind = (server["SSH_TEST_HOST"], int(server["SSH_TEST_PORT"]))
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self.answers_himself = False
        self.logins: list[str] = []
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                self._sockets.append(client)
                threading.Thread(target=self._answer if self.answers_himself else self._hand_on, args=[client]).start()

    def _hand_on(self, client: socket.socket) -> None:
        server = socket.create_connection(self._behind, timeout=20)
        server.settimeout(None)
        self._sockets.append(server)
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=self._copy, args=[one, other], daemon=True).start()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)

    def _answer(self, client: socket.socket) -> None:
        import paramiko

        logins = self.logins

        class Robber(paramiko.ServerInterface):
            def check_auth_password(self, username: str, password: str) -> int:
                logins.append(password)
                return paramiko.AUTH_FAILED

            def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
                logins.append(username)
                return paramiko.AUTH_SUCCESSFUL

            def check_auth_none(self, username: str) -> int:
                logins.append(username)
                return paramiko.AUTH_FAILED

            def get_allowed_auths(self, username: str) -> str:
                return "publickey,password"

        transport = paramiko.Transport(client)
        transport.add_server_key(paramiko.ECDSAKey.generate())
        with suppress(paramiko.SSHException, EOFError, OSError):
            transport.start_server(server=Robber())
            transport.join(20)

    def cut(self) -> None:
        """End all connections; who connects again meets somebody else."""
        self.answers_himself = True
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._door.close()
        for one in self._sockets:
            one.close()


def test_a_key_that_was_taken_of_an_unknown_host_is_the_only_one_from_then_on(
    ssh_server: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("")
    between = Between(ssh_server)
    options = {"port": between.port, "known_hosts": str(tmp_path / "empty"), "accept_new_host": True}
    channel = SSHChannel(
        "127.0.0.1",
        username=ssh_server["SSH_TEST_USER"],
        key_filename=ssh_server["SSH_TEST_KEY"],
        password="hunter2",
        **options,  # type: ignore[arg-type]  # checked by the constructor
    )
    try:
        assert channel.execute_wait("echo right", 20).stdout == "right\n"
        between.cut()
        with suppress(
            ChannelUnavailable, BadHostKeyException
        ):  # the channel may not know yet that its connection was cut
            channel.execute_wait("true", 20)
        assert between.logins == []
        with pytest.raises(BadHostKeyException, match="somebody may be in between"):
            channel.execute_wait("true", 20)
        assert between.logins == []
    finally:
        channel.close()
        between.close()


def test_a_wrong_key_is_refused(ssh_server: dict[str, str], tmp_path: Path) -> None:
    key = str(tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=20)
    with pytest.raises(AuthException, match="refused the login"):
        make(ssh_server, key_filename=key).execute_wait("true", 20)


def test_a_channel_can_be_pickled_and_its_password_is_not_shown(ssh_server: dict[str, str]) -> None:
    channel = make(ssh_server, password="hunter2")
    channel.execute_wait("true", 20)
    again = pickle.loads(pickle.dumps(channel))
    assert again.execute_wait("echo hi", 20).stdout == "hi\n"
    assert "hunter2" not in repr(channel)
    assert "hunter2" not in str(spec_of(LocalProvider(channel=channel)))
    channel.close()
    again.close()


def one_time_code(server: dict[str, str], ahead: int) -> str:
    return subprocess.check_output(
        ["oathtool", "--totp", "-d", "6", "--now", f"+{ahead} seconds", server["SSH_TEST_TOTP"]], text=True, timeout=10
    ).strip()


@pytest.mark.skipif(os.getuid() != 0, reason="the server with a second factor needs root")
class TestSecondFactor:
    def channel(self, server: dict[str, str], **options: object) -> SSHInteractiveLoginChannel:
        given: dict[str, object] = {
            "username": server["SSH_TEST_USER"],
            "port": int(server["SSH_TEST_2FA_PORT"]),
            "known_hosts": server["SSH_TEST_KNOWN_HOSTS"],
            **options,
        }
        return SSHInteractiveLoginChannel(server["SSH_TEST_HOST"], **given)  # type: ignore[arg-type]  # checked

    def test_password_and_one_time_code_log_in_once_for_many_commands(self, ssh_server: dict[str, str]) -> None:
        asked = []

        def answer(question: str) -> str:
            asked.append(question)
            return one_time_code(ssh_server, 0) if "One-time" in question else ssh_server["SSH_TEST_PASSWORD"]

        channel = self.channel(ssh_server, answer=answer)
        assert channel.execute_wait("whoami", 30).stdout.strip() == ssh_server["SSH_TEST_USER"]
        assert channel.execute_wait("echo again", 30).stdout == "again\n"
        assert len(asked) == 2
        channel.close()

    def test_a_wrong_password_is_refused(self, ssh_server: dict[str, str]) -> None:
        with pytest.raises(AuthException, match="refused the login"):
            self.channel(ssh_server, answer=lambda question: "wrong").execute_wait("true", 30)

    def test_a_question_nobody_can_answer_is_named(self, ssh_server: dict[str, str]) -> None:
        channel = self.channel(ssh_server, password=ssh_server["SSH_TEST_PASSWORD"])
        with pytest.raises(AuthException, match=r"One-time.*give answer="):
            channel.execute_wait("true", 30)

    def test_an_unknown_host_is_not_told_any_password(self, ssh_server: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "empty").write_text("")
        asked: list[str] = []
        channel = self.channel(ssh_server, known_hosts=str(tmp_path / "empty"), answer=lambda q: asked.append(q) or "")
        with pytest.raises(BadHostKeyException):
            channel.execute_wait("true", 30)
        assert asked == []

    def test_a_token_answers_the_question(self, ssh_server: dict[str, str]) -> None:
        channel = OAuthSSHChannel(
            ssh_server["SSH_TEST_HOST"],
            ssh_server["SSH_TEST_USER"],
            port=int(ssh_server["SSH_TEST_2FA_PORT"]),
            known_hosts=ssh_server["SSH_TEST_KNOWN_HOSTS"],
            token=iter([ssh_server["SSH_TEST_PASSWORD"], one_time_code(ssh_server, 30)]).__next__,
        )
        assert channel.execute_wait("echo in", 30).stdout == "in\n"
        channel.close()


class TestLocalProviderOverSSH(ProviderContract):
    @pytest.fixture
    def provider(self, channel: SSHChannel) -> Iterator[LocalProvider]:
        provider = LocalProvider(channel=channel)
        yield provider
        provider.cancel(provider.find(""))


class TestAdHocProvider(ProviderContract):
    unknown_job = "1:nothing"

    @pytest.fixture
    def provider(self, ssh_server: dict[str, str], home: Path) -> Iterator[AdHocProvider]:
        channels = [make(ssh_server, script_dir=str(home / name)) for name in ("one", "two")]
        provider = AdHocProvider(channels=channels)
        yield provider
        provider.cancel(provider.find(""))
        provider.close()

    def test_each_job_goes_to_the_host_with_the_fewest(self, provider: AdHocProvider) -> None:
        jobs = [provider.submit("sleep 600", 1) for _ in range(4)]
        assert sorted(job.partition(":")[0] for job in jobs) == ["0", "0", "1", "1"]
        assert provider.cancel(jobs) == [True] * 4

    def test_a_host_that_is_away_is_passed_over(self, ssh_server: dict[str, str], home: Path, tmp_path: Path) -> None:
        away = make(ssh_server, port=1, script_dir=str(home))
        here = LocalChannel(script_dir=str(tmp_path / "here"))
        provider = AdHocProvider(channels=[away, here])
        job = provider.submit("true", 1)
        assert job.startswith("1:")
        assert self.until_ended(provider, job).state is JobState.COMPLETED
        assert provider.status(["0:x", job])[0].state is JobState.UNKNOWN
        with pytest.raises(SchedulerUnavailable):
            provider.status(["0:x"])

    def test_when_no_host_takes_it_each_says_why(self, ssh_server: dict[str, str], home: Path) -> None:
        provider = AdHocProvider(channels=[make(ssh_server, port=port, script_dir=str(home)) for port in (1, 2)])
        with pytest.raises(SubmitException, match="no host took the job"):
            provider.submit("true", 1)

    def test_an_heir_finds_the_jobs_on_all_hosts(self, provider: AdHocProvider) -> None:
        jobs = [provider.submit("sleep 600", 1) for _ in range(2)]
        heir = provider_from(spec_of(provider))
        assert sorted(heir.find("f")) == sorted(jobs)
        assert heir.cancel(jobs) == [True, True]
        heir.close()


def test_an_adhoc_provider_needs_hosts() -> None:
    with pytest.raises(BadOption, match="at least one channel"):
        AdHocProvider(channels=[])


class TestSlurmOverSSH(ProviderContract):
    """The login node of a cluster, seen from elsewhere."""

    @pytest.fixture
    def provider(self, slurm: dict[str, str], ssh_server: dict[str, str], home: Path) -> Iterator[SlurmProvider]:
        channel = make(ssh_server, script_dir=str(home / "scripts"), envs=slurm)
        provider = SlurmProvider("debug", channel=channel, exclusive=False)
        provider.fresh_s = 0.2
        yield provider
        provider.cancel(provider.find(""))
        provider.close()
