"""The end of an upload in parts to S3, of which the answer may be lost; the client that all files share."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime

import pytest

from flow_core.errors import StagingError
from flow_core.files import File
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging import s3
from flow_staging.transfer.retry import RetryPolicy

exceptions = pytest.importorskip("botocore.exceptions")
SIZE = 6 << 20


class Client:
    """A bucket that holds an older object of the same size, and does with the end of an upload what it is told."""

    def __init__(self, *ends: Exception) -> None:
        self.ends = list(ends)
        self.aborted = 0
        self.listed = {}

    def create_multipart_upload(self, **_options):
        return {"UploadId": "1"}

    def upload_part(self, **_options):
        return {"ETag": '"part"'}

    def complete_multipart_upload(self, **_options):
        raise self.ends.pop(0)

    def abort_multipart_upload(self, **_options):
        self.aborted += 1

    def list_multipart_uploads(self, **_options):
        return self.listed

    def head_object(self, **_options):
        return {"ContentLength": SIZE}


GONE = exceptions.ClientError({"Error": {"Code": "NoSuchUpload"}}, "CompleteMultipartUpload")
LOST = exceptions.EndpointConnectionError(endpoint_url="http://bucket")


def send(client: Client, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(s3, "_client", lambda *_options: client)
    (tmp_path / "a").write_bytes(bytes(SIZE))
    method = s3.S3Staging(part_bytes=5 << 20, retry=RetryPolicy(tries=3, first_delay_s=0.01))
    try:
        method.stage([Transfer(File("s3://bucket/a"), tmp_path / "a", Direction.OUT, 7, "here")]).result(20)
    finally:
        method.close()


def test_an_upload_of_which_only_the_answer_was_lost_is_there(tmp_path, monkeypatch):
    send(Client(LOST, GONE), tmp_path, monkeypatch)


def test_an_older_object_of_the_same_size_is_not_taken_for_parts_that_are_gone(tmp_path, monkeypatch):
    client = Client(GONE)
    with pytest.raises(StagingError, match="NoSuchUpload"):
        send(client, tmp_path, monkeypatch)
    assert client.aborted == 1


def test_files_that_come_at_once_make_one_client(monkeypatch):
    boto3 = pytest.importorskip("boto3")
    made = []
    together, another = threading.Barrier(8), threading.Barrier(2)

    class Session(boto3.Session):
        def client(self, *args, **options):
            made.append(threading.get_ident())
            with contextlib.suppress(threading.BrokenBarrierError):
                another.wait(0.5)  # who never comes
            return super().client(*args, **options)

    monkeypatch.setattr(boto3, "Session", Session)
    mover = s3.S3Staging(endpoint_url="http://127.0.0.1:9", region="us-east-1")._method._mover
    found = []

    def ask() -> None:
        together.wait(20)
        found.append(mover._client())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(made) == 1
    assert len({id(one) for one in found}) == 1
    assert len(found) == 8


@pytest.mark.parametrize(
    ("date", "aborted"), [("Sat, 01 Jan 2000 12:00:00 GMT", 0), ("Tue, 04 Jan 2000 12:00:00 GMT", 1)]
)
def test_how_old_a_left_upload_is_the_clock_of_the_server_says(tmp_path, monkeypatch, date, aborted):
    client = Client(LOST, GONE)
    began = datetime(2000, 1, 1, 11, tzinfo=UTC)
    client.listed = {
        "Uploads": [{"Key": "a", "UploadId": "0", "Initiated": began}],
        "ResponseMetadata": {"HTTPHeaders": {"date": date}},
    }
    send(client, tmp_path, monkeypatch)
    assert client.aborted == aborted
