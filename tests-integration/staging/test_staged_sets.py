"""Directories and patterns by the methods that move them: s3 on either side, rsync; through workers and back."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from staging_servers import QUICK
from staging_services import need_programs, started

import flow_core as flow
from flow_core import Directory, Glob
from flow_core.errors import MissingOutputs, StagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider
from flow_staging import RSyncStaging, S3Staging

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


@pytest.fixture
def bucket(moto, s3_login):
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto}")
    client.create_bucket(Bucket="bucket")
    for each in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=each["Key"])
    yield client
    client.close()


@pytest.fixture(scope="module")
def side():
    need_programs("rsync.sh", "rsync", "sshd", "ssh")
    directory = Path(tempfile.mkdtemp(prefix="flow-rsync-"))
    try:
        with started("rsync.sh", directory) as (address, port, key, known, user):
            yield f"{user}@{address}", f"ssh -F none -p {port} -i {key} -o UserKnownHostsFile={known}"
    finally:
        shutil.rmtree(directory)


@flow.python_app
def listed(directory):
    return {str(path.relative_to(directory)): path.read_text() for path in Path(directory).rglob("*") if path.is_file()}


@flow.python_app
def make(names, outputs=()):
    import os

    for output in outputs:
        root = output.folder if output.kind == "pattern" else output.filepath
        os.makedirs(root, exist_ok=True)
        for name in names:
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as stream:
                stream.write(f"made {name}")


@flow.python_app
def read(files):
    from pathlib import Path

    return [Path(file).read_text() for file in files]


def keys(client) -> list[str]:
    return [each["Key"] for each in client.list_objects_v2(Bucket="bucket").get("Contents", [])]


@pytest.fixture(params=["submit side", "threads", "htex"])
def s3(request, bucket, moto, tmp_path, monkeypatch):
    """A loaded kernel whose files move by s3, here or within tasks."""
    monkeypatch.chdir(tmp_path)
    in_task = request.param != "submit side"
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{moto}", retry=QUICK, in_task=in_task)
    access = [NoOpFileStaging(), method]
    if request.param == "htex":
        executor = HighThroughputExecutor(
            max_workers=1,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
            storage_access=access,
            working_dir=str(tmp_path / "wd"),
        )
    else:
        executor = ThreadPoolExecutor(storage_access=access)
    with flow.load(flow.Config(executors=[executor])):
        yield bucket


def test_a_prefix_of_a_bucket_is_a_directory(s3):
    odd = {"a.txt": "a", "sub/b c#1?.txt": "b", "deep/er/x[1].txt": "x", "c?versionId=1": "c"}
    for name, body in odd.items():
        s3.put_object(Bucket="bucket", Key=f"in/dir/{name}", Body=body)
    s3.put_object(Bucket="bucket", Key="in/dir/", Body="")
    s3.put_object(Bucket="bucket", Key="in/dir2/z", Body="another")
    assert listed(Directory("s3://bucket/in/dir")).result(60) == odd
    assert listed(Directory("s3://bucket/in/dir/")).result(60) == odd
    error = listed(Directory("s3://bucket/none")).exception(60)
    assert isinstance(error, StagingError)
    assert "s3://bucket/none" in str(error)
    s3.put_object(Bucket="bucket", Key="up/../../x", Body="out of it")
    assert "cannot be the name of a file" in str(listed(Directory("s3://bucket/up")).exception(60))


def test_directories_and_patterns_go_out_to_a_bucket(s3):
    s3.put_object(Bucket="bucket", Key="out/old.txt", Body="old")
    outputs = [Directory("s3://bucket/all"), Glob("s3://bucket/out/**/*.txt")]
    made = make(["a.txt", "sub/b.txt", "no.csv"], outputs=outputs)
    files = made.outputs[1].result(60)
    assert [file.url for file in files] == ["s3://bucket/out/a.txt", "s3://bucket/out/sub/b.txt"]
    assert keys(s3) == ["all/a.txt", "all/no.csv", "all/sub/b.txt", "out/a.txt", "out/old.txt", "out/sub/b.txt"]
    assert read(made.outputs[1]).result(60) == ["made a.txt", "made sub/b.txt"]
    assert sorted(listed(made.outputs[0]).result(60)) == ["a.txt", "no.csv", "sub/b.txt"]
    assert isinstance(make(["a"], outputs=[Glob("s3://bucket/x/*.txt")]).exception(60), MissingOutputs)


def test_many_small_objects_come_together(s3):
    for number in range(30):
        s3.put_object(Bucket="bucket", Key=f"many/{number}", Body=str(number))
    assert listed(Directory("s3://bucket/many")).result(60) == {str(number): str(number) for number in range(30)}


@flow.python_app(cache=True)
def remembered(journal, outputs=()):
    import os

    with open(journal, "a") as stream:
        stream.write("ran\n")
    os.makedirs(outputs[0].folder if outputs[0].kind == "pattern" else outputs[0], exist_ok=True)
    root = outputs[0].folder if outputs[0].kind == "pattern" else outputs[0].filepath
    for name in ("a.txt", "b.txt"):
        with open(os.path.join(root, name), "w") as stream:
            stream.write("made")


@pytest.mark.parametrize("output", [Glob("s3://bucket/out/*.txt"), Directory("s3://bucket/out")])
def test_remembered_calls_look_at_each_object(bucket, moto, tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{moto}", retry=QUICK)
    executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), method])
    journal = str(tmp_path / "journal")

    def ran() -> int:
        remembered(journal, outputs=[output]).outputs[0].result(30)
        return len(Path(journal).read_text().split())

    with flow.load(flow.Config(executors=[executor])):
        assert [ran(), ran()] == [1, 1]
        bucket.put_object(Bucket="bucket", Key="out/other.csv", Body="of nobody")
        assert ran() == (1 if output.kind == "pattern" else 2)
        before = ran()
        bucket.delete_object(Bucket="bucket", Key="out/b.txt")
        assert [ran(), ran()] == [before + 1, before + 1]


@pytest.fixture
def by_rsync(side, tmp_path, monkeypatch):
    (tmp_path / "submit [1]").mkdir()
    monkeypatch.chdir(tmp_path / "submit [1]")
    executor = HighThroughputExecutor(
        max_workers=1,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
        storage_access=[RSyncStaging(side[0], ssh=side[1], retry=QUICK)],
        working_dir=str(tmp_path / "node"),
    )
    with flow.load(flow.Config(executors=[executor])):
        yield


def test_directories_go_both_ways_by_rsync(by_rsync):
    odd = {"a.txt": "a", "sub/b c#1?.txt": "b", "deep/er/x[1]*.txt": "x"}
    for place in ("data[1]", "data1"):
        for name, body in odd.items():
            path = Path(place, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{place} {body}")
    Path("data[1]/link").symlink_to("a.txt")
    expected = {name: f"data[1] {body}" for name, body in {**odd, "link": "a"}.items()}
    assert listed(Directory("data[1]")).result(60) == expected
    Path("out").mkdir()
    Path("out/old.txt").write_text("old")
    outputs = [Directory("new/all"), Glob("out/**/*.txt")]
    made = make(["a[1].txt", "sub/b.txt", "no.csv"], outputs=outputs)
    files = made.outputs[1].result(60)
    assert [file.url for file in files] == ["out/a[1].txt", "out/sub/b.txt"]
    assert [Path(file).read_text() for file in files] == ["made a[1].txt", "made sub/b.txt"]
    assert sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.*")) == [
        "a[1].txt",
        "old.txt",
        "sub/b.txt",
    ]
    assert sorted(os.listdir("new/all")) == ["a[1].txt", "no.csv", "sub"]
    assert read(made.outputs[1]).result(60) == ["made a[1].txt", "made sub/b.txt"]
    Path("file").write_text("x")
    for name, said in (("nothing", "No such file"), ("file", "no directory")):
        error = listed(Directory(name)).exception(60)
        assert isinstance(error, StagingError), error
        assert said in str(error)
