"""A name is a name: odd ones go both ways through real servers, and to executors."""

from __future__ import annotations

import os
import uuid
import zipfile
from urllib.parse import quote, unquote

import pytest
from staging_moto import moto_server
from staging_servers import QUICK, Page, incoming, outgoing, visible
from staging_services import need_modules

import flow_core as flow
from flow_core import File
from flow_core.errors import StagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.staging.noop import NoOpFileStaging
from flow_staging import FTPSeparateTaskStaging, HTTPSeparateTaskStaging, ZipFileStaging

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer

ODD = [
    "out#1.txt",
    "what?.txt",
    "100%25.txt",
    "a%20b.txt",
    " two  spaces ",
    "data[1]*.txt",
    "-rf",
    'quote\'s "and" $HOME `id`',
    "semi;colon&amp|pipe",
    "back\\slash",
    "plus+equals=",
    "~tilde",
    "naïve ☃.txt",
    "x" * 250,
]


@flow.python_app(executors=["here"])
def doubled(inputs=(), outputs=()):
    with open(inputs[0]) as source:
        text = source.read()
    with open(outputs[0], "w") as out:
        out.write(text * 2)
    return os.path.basename(inputs[0])


@pytest.mark.parametrize("name", ODD)
def test_ftp_moves_just_the_file_of_that_name(ftp, tmp_path, name):
    (tmp_path / "a").write_text(name)
    method = FTPSeparateTaskStaging(retry=QUICK)
    method.stage([outgoing(tmp_path / "a", ftp.url(f"/{quote(name)}"))]).result(50)
    assert visible(ftp.root) == [name]
    written = name.replace("%", "%25")  # all else may be written as it is
    method.stage([incoming(ftp.url(f"/{written}"), tmp_path / "back")]).result(50)
    assert (tmp_path / "back").read_text() == name
    method.close()


def test_ftp_takes_names_that_are_no_text(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "other\xff").write_text("a neighbour, called by one byte that is no UTF-8")
    server = FtpServer(root, encoding="latin-1")
    (tmp_path / "a").write_text("bytes")
    method = FTPSeparateTaskStaging(retry=QUICK)
    method.stage([outgoing(tmp_path / "a", server.url("/a%FF%E9"))]).result(50)
    method.stage([incoming(server.url("/a%FF%E9"), tmp_path / "back")]).result(50)
    assert (tmp_path / "back").read_text() == "bytes"
    with pytest.raises(StagingError, match="no such file"):
        method.stage([incoming(server.url("/%FFnone"), tmp_path / "back")]).result(50)
    method.close()
    server.close()


@pytest.mark.parametrize("name", ODD)
def test_zip_moves_just_the_member_of_that_name(tmp_path, name):
    if "\\" in name:
        pytest.skip("members have no backslashes in their names")
    (tmp_path / "d.zip").mkdir()
    (tmp_path / "a").write_text(name)
    method = ZipFileStaging()
    for archive in ("d.zip/a.zip", "a.jar!"):
        method.stage([outgoing(tmp_path / "a", f"zip:{tmp_path}/{archive}/{quote(name)}")]).result(50)
        with zipfile.ZipFile(tmp_path / archive.rstrip("!")) as made:
            assert made.namelist() == [name]
        method.stage([incoming(f"zip:{tmp_path}/{archive}/{name.replace('%', '%25')}", tmp_path / "back")]).result(50)
        assert (tmp_path / "back").read_text() == name
    method.close()


class Decoded(dict):
    """Pages found by what a path means, however much of it is quoted."""

    def get(self, path, default=None):
        return super().get(unquote(path[1:]), default)


@pytest.mark.parametrize("name", ODD)
def test_http_asks_for_just_that_path(web, tmp_path, name):
    web.pages = Decoded({name: Page(name.encode())})
    method = HTTPSeparateTaskStaging(retry=QUICK)
    method.stage([incoming(web.url(f"/{quote(name)}"), tmp_path / "back")]).result(50)
    assert (tmp_path / "back").read_text() == name
    method.close()


def test_http_refuses_a_name_that_would_be_cut(web, tmp_path):
    web.pages["/out"] = Page(b"another file")
    method = HTTPSeparateTaskStaging(retry=QUICK)
    with pytest.raises(StagingError, match=r"'#1\.txt' would not be sent to the server: write '%23'"):
        method.stage([incoming(web.url("/out#1.txt"), tmp_path / "back")]).result(50)
    assert not web.seen
    method.close()


def test_files_are_called_on_executors_what_they_are_called(web, ftp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    web.pages["/a%20b%23.txt"] = Page(b"x")
    methods = [NoOpFileStaging(), HTTPSeparateTaskStaging(retry=QUICK), FTPSeparateTaskStaging(retry=QUICK)]
    with flow.load(flow.Config(executors=[ThreadPoolExecutor("here", storage_access=methods)])):
        first = doubled(inputs=[File(web.url("/a%20b%23.txt"))], outputs=[File(ftp.url("/out#1?.txt"))])
        again = doubled(inputs=[first.outputs[0]], outputs=[File("data[1]*.txt")])
        assert (first.result(50), again.result(50)) == ("a b#.txt", "out#1?.txt")
        assert (tmp_path / "data[1]*.txt").read_text() == "xxxx"
        assert str(first.outputs[0].result()) == ftp.url("/out#1?.txt")
    assert visible(ftp.root) == ["out#1?.txt"]


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    need_modules("moto.sh", "moto", "boto3", "flask")
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def bucket(moto, monkeypatch):
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import boto3

    client = boto3.client("s3", endpoint_url=moto)
    name = f"b{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    yield client, name
    client.close()


@pytest.fixture
def s3(moto, bucket):
    from flow_staging.s3 import S3Staging

    method = S3Staging(endpoint_url=moto, retry=QUICK)
    yield method
    method.close()


@pytest.mark.services
@pytest.mark.parametrize("name", [*ODD, "a?versionId=1", "//two", "../up", "dir/", "a/./b"])
def test_s3_moves_just_the_object_of_that_key(s3, bucket, tmp_path, name):
    client, box = bucket
    (tmp_path / "a").write_text(name)
    url = f"s3://{box}/{name}" + ("?versionId=" if "versionId" in name else "")
    client.put_object(Bucket=box, Key=name[:-1], Body=b"a prefix of it")
    s3.stage([outgoing(tmp_path / "a", url)]).result(50)
    assert name in [each["Key"] for each in client.list_objects_v2(Bucket=box)["Contents"]]
    s3.stage([incoming(url, tmp_path / "back")]).result(50)
    assert (tmp_path / "back").read_text() == name


@pytest.mark.services
def test_a_version_of_an_object_is_fetched_and_never_written(s3, bucket, tmp_path):
    client, box = bucket
    old, new = (client.put_object(Bucket=box, Key="a", Body=body)["VersionId"] for body in (b"old", b"new"))
    for version, content in ((old, "old"), (new, "new"), ("", "new")):
        s3.stage([incoming(f"s3://{box}/a?versionId={version}", tmp_path / "a.txt")]).result(50)
        assert (tmp_path / "a.txt").read_text() == content
    with pytest.raises(StagingError, match="a version of an object cannot be written"):
        s3.stage([outgoing(tmp_path / "a.txt", f"s3://{box}/a?versionId={old}")]).result(50)
    with pytest.raises(StagingError, match="versionId=none"):
        s3.stage([incoming(f"s3://{box}/a?versionId=none", tmp_path / "a.txt")]).result(50)
    assert client.get_object(Bucket=box, Key="a")["Body"].read() == b"new"
