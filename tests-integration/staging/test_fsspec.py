"""Files by fsspec's file systems: its own memory, local and http ones, and sftp against a real sshd."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from staging_fsspec import Served, azurite, gcs, on_disk, s3, webdav
from staging_servers import QUICK, Page, incoming, outgoing, same, visible
from staging_services import need_modules, need_programs, started

import flow_core as flow
from flow_core import Directory, File, Glob
from flow_core.errors import ConfigurationError, StagingError, WrongDigest
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.call import NodeContext
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider
from flow_staging.fsspec_files import FsspecStaging

fsspec = pytest.importorskip("fsspec")

ODD = ["a b%20c", "data[1]*.txt", "q?x=1", "h#1", "x::y", "naïve ☃"]


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


@pytest.fixture(scope="module")
def sshd():
    need_programs("rsync.sh", "sshd", "ssh")
    need_modules("moto.sh", "paramiko")
    directory = Path(tempfile.mkdtemp(prefix="flow-sftp-"))
    try:
        with started("rsync.sh", directory) as (address, port, key, known, user):
            yield f"sftp://{user}@{address}:{port}", {"key_filename": key, "known_hosts": known}
    finally:
        shutil.rmtree(directory)


def go(method, *transfers):
    return method.stage(list(transfers)).result(50)


def refused(method, *transfers) -> str:
    with pytest.raises(StagingError, match="task 7") as caught:
        go(method, *transfers)
    return str(caught.value)


SERVED = ["webdav", "s3"]
SERVICES = [pytest.param(name, marks=pytest.mark.services) for name in ("sftp", "gs", "abfs")]


@pytest.fixture(params=["memory", "local", *SERVICES, *SERVED])
def there(request, tmp_path):
    """A method, a URL of a directory that it reaches, and what gives the content of a file in that."""
    with contextlib.ExitStack() as stack:
        served = serve(request.param, request.getfixturevalue, tmp_path, stack)
        method = FsspecStaging(served.protocol, storage_options={served.protocol: served.options}, retry=QUICK)
        yield method, served.url, served.content, served.names
        method.close()


def serve(kind, fixture, tmp_path, stack) -> Served:
    root = tmp_path / "root"
    root.mkdir()
    if kind == "memory":
        fs = fixture("memory")
        names = lambda: sorted(path.removeprefix("/top/") for path in fs.find("/top"))  # noqa: E731
        return Served("memory", "memory://top", {}, lambda name: fs.cat_file(f"/top/{name}"), names)
    if kind == "local":
        return on_disk("local", f"local://{root}", {}, root)
    if kind == "sftp":
        url, options = fixture("sshd")
        return on_disk("sftp", f"{url}{root}", options, root)
    if kind == "gs":
        need_modules("gcs.sh", "gcp_storage_emulator", "gcsfs")
        return stack.enter_context(gcs(tmp_path / "gcs.log"))
    if kind == "abfs":
        need_modules("azurite.sh", "adlfs")
        need_programs("azurite.sh", "azurite-blob")
        return stack.enter_context(azurite(tmp_path))
    needs = {"webdav": ("wsgidav", "webdav4", "cheroot"), "s3": ("s3fs",)}
    need_modules("moto.sh", *needs[kind])
    if kind == "webdav":
        return stack.enter_context(webdav(root))
    fixture("s3_login")
    return stack.enter_context(s3(fixture("moto")))


@pytest.mark.filterwarnings("ignore:Sending a large body")  # of what adlfs sends with
def test_files_go_out_and_come_back(there, tmp_path, big_file):
    method, url, content, names = there
    for number, body in enumerate((b"", b"old", b"newer")):
        (tmp_path / "f").write_bytes(body)
        go(method, outgoing(tmp_path / "f", f"{url}/new/dir/f"))
        assert content("new/dir/f") == body
        go(method, incoming(f"{url}/new/dir/f", tmp_path / f"b{number}"))
        assert (tmp_path / f"b{number}").read_bytes() == body
    go(method, outgoing(big_file, f"{url}/big"), outgoing(tmp_path / "f", f"{url}/small"))
    go(method, incoming(f"{url}/big", tmp_path / "big"))
    assert same(tmp_path / "big", big_file)
    assert names() == ["big", "new/dir/f", "small"]


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_a_name(there, tmp_path, name):
    method, url, content, names = there
    if url.startswith("memory") and "::" in name:
        pytest.skip("fsspec's memory keeps such names apart from the others")
    for other in ("data1.txt", "a b c", "q", "h", "x"):
        (tmp_path / "o").write_text("another file")
        go(method, outgoing(tmp_path / "o", f"{url}/d[1]/{other}"))
    (tmp_path / "f").write_text("this file")
    cannot = {"webdav": "webdav4 cannot write names", "gs": "gcsfs takes '#'"}.get(url.partition(":")[0])
    if cannot and any(mark in name for mark in ("%?#" if url.startswith("webdav") else "#")):
        assert cannot in refused(method, outgoing(tmp_path / "f", f"{url}/d[1]/{name}"))
        assert cannot in refused(method, incoming(f"{url}/d[1]/{name}", tmp_path / "back"))
        assert len(names()) == 5
        return
    go(method, outgoing(tmp_path / "f", f"{url}/d[1]/{name}"))
    assert content(f"d[1]/{name}") == b"this file"
    go(method, incoming(f"{url}/d[1]/{name}", tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "this file"
    assert len(names()) == 6


def test_what_is_missing_is_named(there, tmp_path):
    method, url, *_ = there
    said = refused(method, incoming(f"{url}/nothing", tmp_path / "in" / "a"))
    assert "no such file" in said
    assert f"{url.partition('@')[2] or url}/nothing" in said
    assert "tried" not in said
    (tmp_path / "f").write_text("x")
    go(method, outgoing(tmp_path / "f", f"{url}/dir/f"))
    assert "directory" in refused(method, incoming(f"{url}/dir", tmp_path / "in" / "a"))
    assert not (tmp_path / "in" / "a").exists()


def test_versions_tell_what_has_changed(there, tmp_path):
    method, url, *_ = there
    looked = lambda: method.look([File(f"{url}/f"), File(f"{url}/none")]).result(30)  # noqa: E731
    assert looked() == ("", "")
    (tmp_path / "f").write_text("one")
    go(method, outgoing(tmp_path / "f", f"{url}/f"))
    first = looked()
    assert first[0]
    assert looked() == first
    (tmp_path / "f").write_text("another")
    go(method, outgoing(tmp_path / "f", f"{url}/f"))
    assert looked() != first


def test_many_looks_at_once_get_their_own_answers(there, tmp_path):
    method, url, *_ = there
    (tmp_path / "f").write_text("one")
    go(method, outgoing(tmp_path / "f", f"{url}/f"))
    files = [File(f"{url}/{name}") for name in ("f", "none") * 8]
    for _ in range(4):
        found = method.look(files).result(50)
        assert None not in found
        assert set(found[1::2]) == {""}
        assert len(set(found[0::2])) == 1


def test_what_a_task_did_not_send_whole_has_no_name(there, tmp_path):
    method, url, _, names = there
    (tmp_path / "f").write_bytes(b"x")
    refused(method, outgoing(tmp_path / "f", f"{url}/d/f"), outgoing(tmp_path / "missing", f"{url}/d/g"))
    assert names() == []


def test_directories_and_patterns(there, tmp_path, monkeypatch):
    method, url, _, names = there
    monkeypatch.chdir(tmp_path)

    @flow.python_app
    def make(outputs=()):
        for output in outputs:
            root = Path(output.folder if output.kind == "pattern" else output)
            (root / "sub").mkdir(parents=True, exist_ok=True)
            for name in ("a[1].txt", "sub/b.txt", "c.csv"):
                (root / name).write_text(name)

    @flow.python_app
    def listed(directory):
        return sorted(str(path.relative_to(directory)) for path in Path(directory).rglob("*.*"))

    executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), method])
    with flow.load(flow.Config(executors=[executor])):
        made = make(outputs=[Directory(f"{url}/all"), Glob(f"{url}/some/**/*.txt")])
        assert made.exception(40) is None
        assert listed(made.outputs[0]).result(40) == ["a[1].txt", "c.csv", "sub/b.txt"]
        assert [file.url for file in made.outputs[1].result(10)] == [
            f"{url}/some/{name}" for name in ("a[1].txt", "sub/b.txt")
        ]
    assert names() == ["all/a[1].txt", "all/c.csv", "all/sub/b.txt", "some/a[1].txt", "some/sub/b.txt"]


def test_a_digest_is_looked_at_and_serves_the_cache(memory, tmp_path):
    memory.pipe_file("/f", b"content")
    method = FsspecStaging("memory", retry=QUICK)
    transfer = incoming("memory://f", tmp_path / "a")
    wrong = type(transfer)(File("memory://f", sha256="0" * 64), tmp_path / "b", transfer.direction, 7, "here")
    with pytest.raises(WrongDigest):
        go(method, wrong)
    assert not (tmp_path / "b").exists()
    go(method, transfer)
    assert (tmp_path / "a").read_bytes() == b"content"
    method.close()


def test_files_of_a_web_server(web, tmp_path, payload):
    pytest.importorskip("aiohttp")
    web.pages["/a"] = Page(payload)
    method = FsspecStaging(["http"], retry=QUICK)
    go(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    assert "no such file" in refused(method, incoming(web.url("/none"), tmp_path / "b"))
    method.close()


@pytest.mark.services
@pytest.mark.timeout(120)
def test_a_worker_moves_files_by_sftp(sshd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url, options = sshd
    root = tmp_path / "root"
    root.mkdir()
    (root / "in.txt").write_text("ab")

    @flow.python_app
    def double(inputs=(), outputs=()):
        from pathlib import Path

        Path(outputs[0]).write_text(Path(inputs[0]).read_text() * 2)

    method = FsspecStaging("sftp", storage_options={"sftp": options}, retry=QUICK, in_task=True)
    executor = HighThroughputExecutor(
        max_workers=1,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
        storage_access=[NoOpFileStaging(), method],
        working_dir=str(tmp_path / "wd"),
    )
    with flow.load(flow.Config(executors=[executor])):
        made = double(inputs=[File(f"{url}{root}/in.txt")], outputs=[File(f"{url}{root}/out.txt")])
        assert made.outputs[0].result(60).url == f"{url}{root}/out.txt"
    assert (root / "out.txt").read_text() == "abab"
    assert visible(root) == ["in.txt", "out.txt"]


@pytest.mark.services
def test_a_server_of_an_unknown_key_gets_nothing(sshd, tmp_path):
    url, options = sshd
    (tmp_path / "empty").touch()
    unknown = {**options, "known_hosts": str(tmp_path / "empty")}
    method = FsspecStaging("sftp", storage_options={"sftp": unknown}, retry=QUICK)
    said = refused(method, incoming(f"{url}/etc/hostname", tmp_path / "a"))
    assert "known_hosts" in said
    assert "tried" not in said
    method.close()
    key = tmp_path / "another"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=30)
    other = {**options, "key_filename": str(key), "look_for_keys": False, "allow_agent": False}
    wrong = FsspecStaging("sftp", storage_options={"sftp": other}, retry=QUICK)
    assert "refuses the login" in refused(wrong, incoming(f"{url}/etc/hostname", tmp_path / "a"))
    wrong.close()


@pytest.mark.services
def test_a_connection_that_broke_is_made_anew(sshd, tmp_path):
    from flow_staging.fsspec_systems import systems

    url, options = sshd
    (tmp_path / "f").write_text("x")
    method = FsspecStaging("sftp", storage_options={"sftp": options}, retry=QUICK, cache=None)
    go(method, incoming(f"{url}{tmp_path}/f", tmp_path / "a"))
    for system in [each for kept in systems._kept.values() for each in kept]:
        system._fs.client.get_transport().sock.close()
    go(method, incoming(f"{url}{tmp_path}/f", tmp_path / "b"))
    assert (tmp_path / "b").read_text() == "x"
    method.close()


def test_what_is_not_installed_is_named(tmp_path):
    method = FsspecStaging(["dropbox", "nonsense"], retry=QUICK)
    assert "dropbox" in refused(method, incoming("dropbox://a/b", tmp_path / "a")).lower()
    assert "knows of no file system" in refused(method, incoming("nonsense://a/b", tmp_path / "a"))
    method.close()
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
sys.modules["fsspec"] = None
from pathlib import Path
from staging_fsspec import Served, on_disk, s3, webdav
from staging_servers import QUICK, incoming
from flow_staging.fsspec_files import FsspecStaging
try:
    FsspecStaging("memory", retry=QUICK).stage([incoming("memory://a", Path({str(tmp_path / "a")!r}))]).result(30)
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert "pip install fsspec" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    "options",
    [
        {"protocols": ["file"]},
        {"protocols": ["gs://"]},
        {"protocols": ["gs"], "storage_options": {"token": "x"}},
        {"protocols": ["gs"], "storage_options": {"gs": "token"}},
    ],
)
def test_wrong_options_are_refused_at_once(options):
    with pytest.raises(ConfigurationError, match="FsspecStaging"):
        FsspecStaging(**options)


def test_secrets_are_not_shown(tmp_path):
    method = FsspecStaging(["sftp"], storage_options={"sftp": {"password": "hunter2"}}, in_task=True)
    assert "hunter2" not in repr(method)
    step = method.step([incoming("sftp://h/f", Path("f"))])
    assert "hunter2" not in repr(step)
    assert pickle.loads(pickle.dumps(step)) == step
    assert NodeContext(executor="here") is not None
    method.close()


def test_ftp_is_left_to_its_own_methods():
    with pytest.raises(ConfigurationError, match="FTPSeparateTaskStaging"):
        FsspecStaging(["ftp"])
