"""Nodes that share nothing with the script but the network: two hosts, each with a disk and a cache of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from staging_servers import QUICK, Page, WebServer
from staging_services import need_modules, need_programs

import flow_core as flow
from flow_core.errors import StagingError
from flow_core.files import File
from flow_executors import HighThroughputExecutor
from flow_providers import AdHocProvider
from flow_staging import FTPInTaskStaging, HTTPInTaskStaging, RSyncStaging, S3Staging

sys.path.insert(0, str(Path(__file__).parents[1] / "providers"))

from provider_services import host_channels, service  # needs the line above

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.services,
    pytest.mark.skipif(os.geteuid() != 0, reason="networks of their own need root"),
]
SIZE = 200_000


@flow.python_app
def work(flags: str, plan: list[str], size: int, inputs: Any = (), outputs: Any = ()) -> int:
    """Do in each try what the plan says; the tries of one task are counted on the node's own disk."""
    import os
    import signal
    import time

    with open(flags, "a+") as stream:
        stream.write("x")
        stream.flush()
        number = stream.tell() - 1
    with open(inputs[0]) as stream:
        given = stream.read()
    action = plan[min(number, len(plan) - 1)]
    text = f"try {number} of {given} ".ljust(size, ".")
    if action == "nothing":
        return number
    with open(outputs[0], "w") as stream:
        if action in ("fail", "kill"):
            stream.write(text[: size // 2])
            stream.flush()
            if action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("it fails half-way")
        stream.write(text)
    if action == "kill soon":
        parent = os.getpid()
        if not os.fork():
            time.sleep(0.02)
            os.kill(parent, signal.SIGKILL)
            os._exit(0)
    return number


@flow.python_app
def read(inputs: Any = ()) -> str:
    with open(inputs[0]) as stream:
        return stream.read()


@flow.python_app
def seen(*paths: str) -> list[bool]:
    import os

    return [os.path.exists(path) for path in paths]


@flow.python_app
def left(directory: str) -> list[str]:
    import os

    return os.listdir(directory)


@dataclass
class Side:
    """Where files are that nodes reach by one scheme: their URLs, and how the test itself writes and reads them."""

    url: Callable[[str], str]
    put: Callable[[str, str], object]
    get: Callable[[str], str | None]


@dataclass
class World:
    """Two nodes, named ``one`` and ``two``, and the sides."""

    base: Path
    sides: dict[str, Side]

    def task(self, plan: list[str], given: File, made: File, node: str = "one") -> Any:
        flags = str(self.base / f"flags-{uuid.uuid4().hex}")
        return work.options(executors=[node])(flags, plan, SIZE, inputs=[given], outputs=[made])


def of_directory(root: Path, url: Callable[[str], str]) -> Side:
    def get(name: str) -> str | None:
        return (root / name).read_text() if (root / name).exists() else None

    return Side(url, lambda name, text: (root / name).write_text(text), get)


def of_web(web: WebServer) -> Side:
    def get(name: str) -> str | None:
        page = web.pages.get(f"/{name}")
        return page.body.decode() if page is not None and isinstance(page.body, bytes) else None

    def put(name: str, text: str) -> None:
        web.pages[f"/{name}"] = Page(text.encode(), etag=f'"{uuid.uuid4().hex}"')

    return Side(lambda name: web.url(f"/{name}"), put, get)


def of_bucket(client: Any) -> Side:
    def get(name: str) -> str | None:
        try:
            body: bytes = client.get_object(Bucket="far", Key=name)["Body"].read()
        except client.exceptions.NoSuchKey:
            return None
        return body.decode()

    return Side(
        lambda name: f"s3://far/{name}", lambda name, text: client.put_object(Bucket="far", Key=name, Body=text), get
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    pytest.importorskip("paramiko")
    need_modules("moto.sh", "moto", "boto3", "flask", "pyftpdlib")
    need_programs("rsync.sh", "rsync", "sshd", "ssh")
    outside, base = tmp_path_factory.mktemp("hosts"), tmp_path_factory.mktemp("hidden")
    from staging_ftp import FtpServer
    from staging_moto import moto_server

    hidden = {"HOSTS_TEST_DIR": str(outside / "d"), "HOSTS_TEST_HIDE": str(base)}
    with (
        service("hosts", "sshd", hidden) as hosts,
        pytest.MonkeyPatch.context() as patch,
        moto_server(outside / "moto", host=(here := hosts["HOSTS_TEST_HERE"])) as moto,
        submit_side(outside, here, hosts) as ssh,
    ):
        import boto3

        login = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in login.items():
            patch.setenv(name, value)
        endpoint = f"http://{here}:{moto}"
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="far")
        web = WebServer(host=here)
        for name in ("ftp", "submit"):
            (base / name).mkdir()
        ftp = FtpServer(base / "ftp", host=here)
        sides = {
            "http": of_web(web),
            "ftp": of_directory(base / "ftp", lambda name: ftp.url(f"/{name}")),
            "s3": of_bucket(client),
            "rsync": of_directory(base / "submit", lambda name: str(base / "submit" / name)),
        }
        methods = [
            RSyncStaging(f"{hosts['HOSTS_TEST_USER']}@{here}", ssh=ssh, retry=QUICK),
            HTTPInTaskStaging(upload=True, retry=QUICK),
            FTPInTaskStaging(retry=QUICK),
            S3Staging(endpoint_url=endpoint, in_task=True, retry=QUICK),
        ]
        exports = "; ".join(f"export {name}={value}" for name, value in {**login, "FLOW_CACHE": base / "cache"}.items())
        executors = [
            HighThroughputExecutor(
                label=label,
                address=here,
                max_workers_per_node=2,
                working_dir=str(base / "node"),
                storage_access=methods,
                provider=AdHocProvider(
                    channels=[channel], worker_init=f"mkdir -p {base / 'node'}; {exports}", init_blocks=1, max_blocks=1
                ),
            )
            for label, channel in zip(("one", "two"), host_channels(hosts, base / "scripts"), strict=True)
        ]
        config = flow.Config(executors=executors, run_dir=str(base / "runinfo"), retries=3, strategy_period=0.5)
        try:
            with flow.load(config):
                yield World(base, sides)
        finally:
            web.close()
            ftp.close()
            client.close()


def submit_side(outside: Path, here: str, hosts: dict[str, str]) -> Any:
    """Run an sshd where the script is, for rsync; gives the ssh command of the nodes."""
    from contextlib import contextmanager

    keys = Path(hosts["HOSTS_TEST_KEY"]).parent

    @contextmanager
    def running() -> Iterator[str]:
        (outside / "sshd_config").write_text(
            f"ListenAddress {here}:2222\nHostKey {keys / 'host_key'}\nPidFile {outside / 'sshd.pid'}\n"
            f"AuthorizedKeysFile {keys / 'id.pub'}\nAuthenticationMethods publickey\nStrictModes no\nUsePAM no\n"
            "UseDNS no\nPrintMotd no\nMaxStartups 100\n"
        )
        public = " ".join((keys / "host_key.pub").read_text().split()[:2])
        (outside / "known").write_text(f"[{here}]:2222 {public}\n")
        sshd = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-f", str(outside / "sshd_config"), "-E", str(outside / "log")]
        )
        ssh = f"ssh -F none -p 2222 -i {keys / 'id'} -o UserKnownHostsFile={outside / 'known'}"
        try:
            for _ in range(100):
                login = [*ssh.split(), "-o", "BatchMode=yes", f"{hosts['HOSTS_TEST_USER']}@{here}", "true"]
                if subprocess.run(login, capture_output=True, timeout=20, check=False).returncode == 0:
                    break
                with pytest.raises(subprocess.TimeoutExpired):
                    sshd.wait(0.1)
            yield ssh
        finally:
            sshd.terminate()
            sshd.wait(20)

    return running()


def test_the_nodes_see_nothing_of_the_script(world):
    hidden = [str(world.base / "runinfo" / "000" / "flow.log"), str(world.base / "submit"), str(world.base / "ftp")]
    for node in ("one", "two"):
        assert seen.options(executors=[node])(*hidden).result(120) == [False] * 3


@pytest.mark.parametrize("scheme", ["http", "ftp", "s3", "rsync"])
def test_a_task_that_is_killed_in_between_reads_and_writes_whole_files(world, scheme):
    side = world.sides[scheme]
    side.put("in", "the input")
    made = world.task(["kill", "ok"], File(side.url("in")), File(side.url("out")))
    assert made.result(120) == 1
    assert made.outputs[0].result(60).url == side.url("out")
    assert side.get("out") == "try 1 of the input ".ljust(SIZE, ".")
    given_on = read.options(executors=["two"])(inputs=[made.outputs[0]])  # by the other node, from the other side
    assert given_on.result(120) == side.get("out")


ACTIONS = ("ok", "fail", "kill", "nothing", "kill soon")


@example(scheme="rsync", plan=["kill", "fail", "ok"], older=True)
@example(scheme="ftp", plan=["kill soon", "ok"], older=False)
@example(scheme="s3", plan=["nothing"], older=True)
@example(scheme="http", plan=["fail", "kill", "nothing", "fail"], older=False)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    scheme=st.sampled_from(["http", "ftp", "s3", "rsync"]),
    plan=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=4).filter(
        lambda plan: sum("kill" in action for action in [*plan, *plan[-1:] * 3]) < 3  # which would stop the task
    ),
    older=st.booleans(),
)
def test_what_is_published_is_what_a_successful_try_wrote_whole(world, scheme, plan, older):
    side, name = world.sides[scheme], uuid.uuid4().hex
    side.put(f"in-{name}", name)
    before = "what others have put there" if older else None
    if before is not None:
        side.put(f"out-{name}", before)
    made = world.task(plan, File(side.url(f"in-{name}")), File(side.url(f"out-{name}")))
    error = made.exception(240)
    published = side.get(f"out-{name}")
    whole = [
        f"try {number} of {name} ".ljust(SIZE, ".")
        for number in range(12)
        if plan[min(number, len(plan) - 1)] in ("ok", "kill soon")
    ]
    if error is None:
        assert made.outputs[0].exception(60) is None
        assert published in whole
    else:
        assert made.outputs[0].exception(60) is not None
        lasting = [before, *(text for text in whole if "kill soon" in plan)]  # killed after it had published
        assert published in lasting


def test_two_nodes_see_one_version_within_a_run(world):
    side = world.sides["http"]
    side.put("versions", "first")
    file = File(side.url("versions"))
    assert read.options(executors=["one"])(inputs=[file]).result(120) == "first"
    side.put("versions", "second")
    with pytest.raises(StagingError, match="tasks see one version in a run"):
        read.options(executors=["two"])(inputs=[file]).result(120)
    assert read.options(executors=["one"])(inputs=[file]).result(120) == "first"
    assert read.options(executors=["two"])(inputs=[File(file.url, refresh="task")]).result(120) == "second"


def test_nothing_of_tasks_is_left_on_the_nodes(world):
    for node in ("one", "two"):
        names = left.options(executors=[node])(str(world.base / "node")).result(120)
        assert not [name for name in names if name.startswith(".flow-staged")]
