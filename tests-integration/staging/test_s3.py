"""S3 both ways against moto's server, through a proxy that breaks connections."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from staging_proxy import CuttingProxy
from staging_servers import QUICK, incoming, outgoing, same, visible

from flow_core.errors import ConfigurationError, StagingError
from flow_core.files import File
from flow_core.interfaces.call import NodeContext
from flow_staging.s3 import S3Staging
from flow_staging.transfer.retry import RetryPolicy

pytestmark = pytest.mark.services


@pytest.fixture
def proxy(moto, s3_login):
    made = CuttingProxy(moto)
    yield made
    made.close()


@pytest.fixture
def bucket(moto, proxy):
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto}")
    client.create_bucket(Bucket="bucket")
    yield client
    for uploads in client.list_multipart_uploads(Bucket="bucket").get("Uploads", []):
        pytest.fail(f"an upload was left behind: {uploads}")
    client.close()


@pytest.fixture
def method(proxy):
    staging = S3Staging(endpoint_url=f"http://127.0.0.1:{proxy.port}", retry=QUICK)
    yield staging
    staging.close()


def go(method: S3Staging, *transfers) -> None:
    method.stage(list(transfers)).result(50)


def refused(method: S3Staging, *transfers) -> str:
    with pytest.raises(StagingError, match="task 7 on executor here") as caught:
        go(method, *transfers)
    assert caught.value.url in str(caught.value)
    return str(caught.value)


def test_an_object_goes_out_and_comes_back(method, bucket, tmp_path):
    (tmp_path / "a").write_bytes(b"hello" * 1000)
    go(method, outgoing(tmp_path / "a", "s3://bucket/dir/a b%20c"))
    go(method, incoming("s3://bucket/dir/a b%20c", tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"hello" * 1000
    assert bucket.head_object(Bucket="bucket", Key="dir/a b%20c")["ContentLength"] == 5000


def test_an_empty_object_goes_both_ways(method, bucket, tmp_path):
    (tmp_path / "a").write_bytes(b"")
    go(method, outgoing(tmp_path / "a", "s3://bucket/empty"))
    go(method, incoming("s3://bucket/empty", tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b""


def test_a_download_cut_twice_goes_on_where_it_stopped(method, proxy, bucket, tmp_path, payload):
    bucket.put_object(Bucket="bucket", Key="cut", Body=payload)
    proxy.cuts.extend([1_000_000, 1_000_000])
    go(method, incoming("s3://bucket/cut", tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    assert proxy.cut == 2


def test_a_big_file_cut_both_ways_passes_in_parts_and_in_constant_memory(method, proxy, bucket, tmp_path, big_file):
    proxy.cuts.append(10 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    go(method, outgoing(big_file, "s3://bucket/big"))
    proxy.cuts.append(40 << 20)
    go(method, incoming("s3://bucket/big", tmp_path / "big"))
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert same(tmp_path / "big", big_file)
    assert bucket.head_object(Bucket="bucket", Key="big")["ETag"].endswith('-4"')
    assert proxy.cut == 2
    assert grown_kb < 128 << 10


def test_an_upload_that_always_breaks_leaves_no_parts(proxy, bucket, tmp_path, big_file):
    policy = RetryPolicy(tries=3, first_delay_s=0.01)
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{proxy.port}", retry=policy)
    proxy.cuts.extend([6 << 20] * 3)
    assert "tried 3 times" in refused(method, outgoing(big_file, "s3://bucket/never"))
    assert bucket.list_objects_v2(Bucket="bucket", Prefix="never")["KeyCount"] == 0
    method.close()


def test_objects_of_one_task_appear_together_or_not_at_all(method, bucket, tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 100)
    wrong = [outgoing(tmp_path / "a", "s3://bucket/two/a"), outgoing(tmp_path / "b", "s3://no-such-bucket/b")]
    assert "no such bucket" in refused(method, *wrong)
    assert bucket.list_objects_v2(Bucket="bucket", Prefix="two")["KeyCount"] == 0
    go(method, *[outgoing(tmp_path / name, f"s3://bucket/two/{name}") for name in "ab"])
    assert bucket.get_object(Bucket="bucket", Key="two/b")["Body"].read() == b"b" * 100


def test_parts_of_an_upload_killed_long_ago_are_taken_away(proxy, bucket, tmp_path, big_file):
    """This server says of all uploads that they began in 2010."""
    old = bucket.create_multipart_upload(Bucket="bucket", Key="big")["UploadId"]
    other = bucket.create_multipart_upload(Bucket="bucket", Key="big2")["UploadId"]
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{proxy.port}", retry=QUICK)
    go(method, outgoing(big_file, "s3://bucket/big"))
    left = [each["UploadId"] for each in bucket.list_multipart_uploads(Bucket="bucket")["Uploads"]]
    assert left == [other] != [old]
    bucket.abort_multipart_upload(Bucket="bucket", Key="big2", UploadId=other)
    method.close()


def test_an_object_that_did_not_change_is_not_fetched_again(method, bucket, tmp_path, payload):
    bucket.put_object(Bucket="bucket", Key="same", Body=payload)
    go(method, incoming("s3://bucket/same", tmp_path / "a"))
    before = (tmp_path / "a").stat().st_ino
    go(method, incoming("s3://bucket/same", tmp_path / "a"))
    go(method, incoming("s3://bucket/same", tmp_path / "b"))
    assert (tmp_path / "a").stat().st_ino == before
    bucket.put_object(Bucket="bucket", Key="same", Body=payload[::-1])
    go(method, incoming("s3://bucket/same", tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == payload[::-1]
    assert (tmp_path / "a").read_bytes() == payload


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("s3://bucket/none", "no such object"),
        ("s3://no-such-bucket/x", "no such bucket"),
        ("s3://bucket", "s3://bucket/key"),
        ("s3://bucket/", "s3://bucket/key"),
        ("s3://B@d!/x", "s3://bucket/key"),
    ],
)
def test_what_is_not_there_is_named(method, bucket, tmp_path, url, hint):
    assert hint in refused(method, incoming(url, tmp_path / "a"))
    assert visible(tmp_path) == []


def test_missing_credentials_are_named(proxy, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{proxy.port}", region="eu-west-1", retry=QUICK)
    assert "AWS_ACCESS_KEY_ID" in refused(method, incoming("s3://bucket/a", tmp_path / "a"))
    method.close()


def test_an_unknown_profile_is_named(proxy, tmp_path):
    method = S3Staging(profile="nobody", retry=QUICK)
    assert "nobody" in refused(method, incoming("s3://bucket/a", tmp_path / "a"))
    method.close()


def test_a_refused_connection_is_named(bucket, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{port}", retry=QUICK)
    assert "tried 4 times" in refused(method, incoming("s3://bucket/a", tmp_path / "a"))
    method.close()


def test_the_step_moves_on_the_node(proxy, bucket, tmp_path):
    bucket.put_object(Bucket="bucket", Key="in", Body=b"12345")
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{proxy.port}", in_task=True, retry=QUICK)
    assert method.stage([]) is None
    into = method.step([incoming("s3://bucket/in", Path("in"))])
    out = method.step([outgoing(Path("out"), "s3://bucket/out")])
    into, out = pickle.loads(pickle.dumps((into, out)))
    where = NodeContext(working_dir=str(tmp_path))

    def function() -> None:
        (tmp_path / "out").write_bytes((tmp_path / "in").read_bytes()[::-1])

    out.run(lambda: into.run(function, where), where)
    assert bucket.get_object(Bucket="bucket", Key="out")["Body"].read() == b"54321"


def test_parts_that_s3_would_refuse_are_refused_at_once():
    with pytest.raises(ConfigurationError, match="part_bytes"):
        S3Staging(part_bytes=1000)


def test_a_cancelled_download_leaves_its_server(proxy, bucket, tmp_path, payload):
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{proxy.port}")
    bucket.put_object(Bucket="bucket", Key="held", Body=payload)
    proxy.holds.append(1_000_000)
    future = method.stage([incoming("s3://bucket/held", tmp_path / "a")])
    assert proxy.holding.acquire(timeout=20)
    future.cancel()
    assert proxy.left.acquire(timeout=20)
    with pytest.raises(StagingError, match="stopped before it was complete"):
        future.result(20)
    assert visible(tmp_path) == []
    method.close()


@pytest.mark.parametrize("number", [1, 3], ids=["one file", "several"])
def test_a_cancelled_upload_leaves_its_server_and_no_parts(proxy, bucket, tmp_path, big_file, number):
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{proxy.port}")
    proxy.holds.extend([6 << 20] * number)
    future = method.stage([outgoing(big_file, f"s3://bucket/stopped{one}") for one in range(number)])
    for _ in range(number):
        assert proxy.holding.acquire(timeout=20)
    future.cancel()
    for _ in range(number):
        assert proxy.left.acquire(timeout=20)
    with pytest.raises(StagingError, match="stopped before it was complete"):
        future.result(20)
    assert "Uploads" not in bucket.list_multipart_uploads(Bucket="bucket")
    assert bucket.list_objects_v2(Bucket="bucket", Prefix="stopped")["KeyCount"] == 0
    method.close()


def test_a_small_file_on_its_way_is_stopped_too(proxy, bucket, tmp_path):
    (tmp_path / "a").write_bytes(bytes(10 << 20))
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{proxy.port}")
    proxy.holds.append(5 << 20)
    future = method.stage([outgoing(tmp_path / "a", "s3://bucket/small")])
    assert proxy.holding.acquire(timeout=20)
    future.cancel()
    assert proxy.left.acquire(timeout=20)
    with pytest.raises(StagingError, match="stopped before it was complete"):
        future.result(20)
    method.close()


def test_a_worker_that_is_told_to_end_in_an_upload_leaves_no_parts(proxy, bucket, tmp_path, big_file):
    proxy.holds.append(6 << 20)
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from flow_core.interfaces.call import NodeContext
from flow_staging.s3 import S3Staging
from staging_servers import outgoing
step = S3Staging(endpoint_url="http://127.0.0.1:{proxy.port}", in_task=True).step(
    [outgoing(Path({str(big_file)!r}), "s3://bucket/told")]
)
step.run(lambda: None, NodeContext(executor="here", main_thread=True))
"""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        assert proxy.holding.acquire(timeout=20)
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
    assert "Uploads" not in bucket.list_multipart_uploads(Bucket="bucket")


@pytest.mark.parametrize("in_task", [False, True])
def test_a_look_tells_one_version_from_another_and_from_none(proxy, bucket, in_task):
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{proxy.port}", in_task=in_task, retry=QUICK)
    files = [File("s3://bucket/looked at"), File("s3://bucket/never"), File("s3://no-such-bucket/a")]
    seen = []
    for body in (b"one", b"two", b"two"):
        bucket.put_object(Bucket="bucket", Key="looked at", Body=body)
        there, missing, nowhere = method.look(files).result(50)
        assert (missing, nowhere) == ("", "")
        seen.append(there)
    assert seen[0] != seen[1] == seen[2]
    method.close()
