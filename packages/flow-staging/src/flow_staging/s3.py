"""Objects of S3 and what speaks its language, on the submit side or on the node. Needs the extra ``s3`` (boto3)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar, cast

from flow_core.errors import ConfigurationError
from flow_core.files import File
from flow_core.interfaces.call import TaskStep
from flow_core.interfaces.staging import Digests, Staging, Transfer
from flow_staging.transfer.cache import DEFAULT_CACHE, CachePolicy
from flow_staging.transfer.coding import Unpacked, coding_of
from flow_staging.transfer.expression import call_of
from flow_staging.transfer.failures import Dropped, Refused, WrongContent, local_failure
from flow_staging.transfer.method import InTaskStaging, Sent, SeparateTaskStaging
from flow_staging.transfer.resume import Opened, fetch
from flow_staging.transfer.retry import DEFAULT_RETRY, Control, RetryPolicy, Tries
from flow_staging.transfer.verify import Digest, Remote

_CHUNK = 1 << 20
_SMALLEST_PART = 5 << 20
_MOST_PARTS = 9_000
_TRANSIENT = frozenset(
    {
        "RequestTimeout",
        "SlowDown",
        "InternalError",
        "ServiceUnavailable",
        "Throttling",
        "BadDigest",
        "RequestTimeTooSkewed",
    }
)
_HINTS = {
    "NoSuchKey": "there is no such object: check the URL",
    "NoSuchBucket": "there is no such bucket: check the URL",
    "AccessDenied": "access is denied: check the rights of the credentials",
    "InvalidAccessKeyId": "the access key is not known: check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY or the profile",
    "ExpiredToken": "the credentials have expired: get new ones",
    "403": "access is denied: check the rights of the credentials",
    "404": "there is no such object: check the URL",
}
_Result = TypeVar("_Result")


class _Body(Protocol):
    def read(self, amt: int) -> bytes: ...
    def close(self) -> None: ...


class _Client(Protocol):
    """What we use of boto3's client, which has no types of its own."""

    def get_object(self, **options: object) -> dict[str, object]: ...
    def head_object(self, **options: object) -> dict[str, object]: ...
    def put_object(self, **options: object) -> dict[str, object]: ...
    def create_multipart_upload(self, **options: object) -> dict[str, object]: ...
    def upload_part(self, **options: object) -> dict[str, object]: ...
    def complete_multipart_upload(self, **options: object) -> dict[str, object]: ...
    def abort_multipart_upload(self, **options: object) -> dict[str, object]: ...
    def list_multipart_uploads(self, **options: object) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class Address:
    """Bucket and key of an URL of the form ``s3://bucket/key``. The key is meant as it is written."""

    bucket: str
    key: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Take an URL apart; raises Refused."""
        match = re.fullmatch(r"s3://([^/?#@:]+)/(.+)", url, re.IGNORECASE | re.DOTALL)
        if match is None:
            raise Refused("an s3 URL has the form s3://bucket/key")
        return cls(*match.groups())

    def names(self) -> dict[str, object]:
        """Return the address as arguments of the client's methods."""
        return {"Bucket": self.bucket, "Key": self.key}


@dataclass(frozen=True, slots=True)
class S3Mover:
    """Moves by GetObject and PutObject, big files in parts: verified by MD5, resumed by Range, cached by ETag."""

    endpoint_url: str | None
    region: str | None
    profile: str | None
    part_bytes: int
    retry: RetryPolicy
    cache: CachePolicy | None

    @property
    def schemes_in(self) -> tuple[str, ...]:
        """Return what comes in."""
        return ("s3",)

    @property
    def schemes_out(self) -> tuple[str, ...]:
        """Return what goes out."""
        return ("s3",)

    @property
    def timeout_s(self) -> float:
        """Return the longest time for one file."""
        return self.retry.timeout_s

    def bring_in(self, file: File, path: Path, control: Control) -> str:
        """Fetch one object; raises Dropped or Refused."""
        source = S3Source(self._client(), Address.of(file.url))
        return fetch(source, path, self.retry, control, url=f"{self.endpoint_url} {file.url}", cache=self.cache)

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> Sent:
        """Store the parts of one object; raises Dropped or Refused."""
        upload = _Upload(self._client(), Address.of(transfer.file.url), transfer.local_path, self, control)
        upload.send(alone)
        return upload

    def _client(self) -> _Client:
        with _translated():
            return _client(
                self.endpoint_url,
                self.region,
                self.profile,
                self.retry.connect_timeout_s,
                self.retry.stall_timeout_s,
            )


@lru_cache(maxsize=8)
def _client(
    endpoint_url: str | None, region: str | None, profile: str | None, connect_s: float, stall_s: float
) -> _Client:
    """Make a client, once a process: it takes 50 ms and more, is safe in threads and renews its credentials."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise Refused("boto3 is not installed here: install flow-staging[s3]") from error
    config = Config(
        connect_timeout=connect_s, read_timeout=stall_s, retries={"total_max_attempts": 1}, max_pool_connections=32
    )
    session = boto3.Session(profile_name=profile, region_name=region)
    client: _Client = session.client("s3", endpoint_url=endpoint_url, config=config)
    return client


class S3Source:
    """One object as a source of bytes."""

    def __init__(self, client: _Client, address: Address) -> None:
        self._client = client
        self._address = address

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        """Ask for the object, or its rest; see ``Source``."""
        conditions: dict[str, object] = {}
        if offset:
            conditions = {"Range": f"bytes={offset}-", "IfMatch": validator}
        elif known:
            conditions = {"IfNoneMatch": known}
        try:
            with _translated():
                answer = self._client.get_object(**self._address.names(), **conditions)
        except _NotModified:
            return None
        body: _Body = answer["Body"]  # type: ignore[assignment]  # boto3 is not typed
        tag = str(answer.get("ETag", ""))
        length = answer.get("ContentLength")
        coding = coding_of(str(answer.get("ContentEncoding") or ""))
        if coding:
            return Opened(Remote(validator=tag, resumable=False), 0, Unpacked(_Reader(body), coding), body.close)
        size = length if isinstance(length, int) and not offset else None
        remote = Remote(size, _digest(tag, answer), tag, _checked(answer))
        return Opened(remote, offset, _Reader(body), body.close)


class _Reader:
    """Reads the body of an answer."""

    def __init__(self, body: _Body) -> None:
        self._body = body

    def __call__(self) -> bytes:
        """Return the next bytes; raises Dropped."""
        with _translated():
            return self._body.read(_CHUNK)


def _checked(answer: dict[str, object]) -> bool:
    """Tell whether botocore checks the body as it is read: by a checksum of all of it, three times as fast as MD5."""
    type_name = str(getattr(type(answer["Body"]), "__name__", ""))
    return "Checksum" in type_name and answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"


def _digest(tag: str, answer: dict[str, object]) -> Digest | None:
    """Return the MD5 that the ETag is, where it is: not of objects made of parts or encrypted by own keys."""
    encrypted = str(answer.get("ServerSideEncryption", "")).startswith("aws:") or "SSECustomerAlgorithm" in answer
    match = re.fullmatch(r'"([0-9a-f]{32})"', tag)
    return Digest("md5", bytes.fromhex(match[1])) if match and not encrypted else None


class _Upload:
    """Stores one file; the object appears when all of it is there."""

    def __init__(self, client: _Client, address: Address, path: Path, mover: S3Mover, control: Control) -> None:
        self._client = client
        self._names = address.names()
        self._path = path
        self._policy = mover.retry
        self._control = control
        self._size = path.stat().st_size
        self._part = max(mover.part_bytes, -(-self._size // _MOST_PARTS))
        self._upload: object = None
        self._parts: list[dict[str, object]] = []

    def send(self, alone: bool) -> None:
        """Store the parts; a small object that goes alone, and an empty one, is stored when it is published."""
        if self._size == 0 or (alone and self._size <= self._part):
            return
        self._sweep()
        self._upload = self._again(lambda: self._client.create_multipart_upload(**self._names))["UploadId"]
        try:
            self._parts = [self._store(self._upload, number, piece) for number, piece in enumerate(self._pieces(), 1)]
        except BaseException:
            self.discard()
            raise

    def publish(self) -> None:
        """Make the object appear; raises Dropped or Refused."""
        if self._upload is None:
            body = next(self._pieces(), b"")
            self._again(lambda: self._client.put_object(**self._names, **_content(body)))
            return
        try:
            self._complete(self._upload, self._parts)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Take the parts away; never raises."""
        if self._upload is not None:
            self._abort(self._upload)

    def _sweep(self) -> None:
        """End uploads of this object that began longer ago than any may take: their processes were killed."""
        now = datetime.now(UTC)
        try:
            with _translated():
                found = self._client.list_multipart_uploads(Bucket=self._names["Bucket"], Prefix=self._names["Key"])
        except (Dropped, Refused):  # no right to look
            return
        for each in cast("list[dict[str, object]]", found.get("Uploads", [])):
            began = each.get("Initiated")
            if each.get("Key") != self._names["Key"] or not isinstance(began, datetime):
                continue
            if (now - began).total_seconds() > self._policy.timeout_s + 3600.0:  # clocks differ
                self._abort(each.get("UploadId"))

    def _store(self, upload: object, number: int, piece: bytes) -> dict[str, object]:
        where = {**self._names, "UploadId": upload, "PartNumber": number}
        answer = self._again(lambda: self._client.upload_part(**where, **_content(piece)))
        return {"ETag": answer["ETag"], "PartNumber": number}

    def _complete(self, upload: object, parts: Sequence[dict[str, object]]) -> None:
        what = {**self._names, "UploadId": upload, "MultipartUpload": {"Parts": list(parts)}}
        try:
            self._again(lambda: self._client.complete_multipart_upload(**what))
        except _NoSuchUpload:  # an earlier try has done it and only the answer was lost
            there = self._again(lambda: self._client.head_object(**self._names))
            if there.get("ContentLength") != self._size:
                raise

    def _abort(self, upload: object) -> None:
        try:
            with _translated():
                self._client.abort_multipart_upload(**self._names, UploadId=upload)
        except (Dropped, Refused):
            pass  # the reason why we are here matters more

    def _pieces(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as stream:
                while piece := stream.read(self._part):
                    yield piece
        except OSError as error:
            raise local_failure(error, f"cannot read {self._path}") from error

    def _again(self, ask: Callable[[], _Result]) -> _Result:
        tries = Tries(self._policy, self._control)
        while True:
            self._control.check()
            try:
                with _translated():
                    return ask()
            except Dropped as error:
                tries.failed(error)


def _content(body: bytes) -> dict[str, object]:
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return {"Body": body, "ContentMD5": base64.b64encode(digest).decode()}


class _NotModified(Refused):
    """The object is still the version that we know."""


class _NoSuchUpload(Refused):
    """The parts are gone: put together, or thrown away."""


@contextmanager
def _translated() -> Iterator[None]:
    """Tell what may pass from what will not."""
    try:
        import botocore.exceptions as boto
    except ImportError as error:
        raise Refused("boto3 is not installed here: install flow-staging[s3]") from error
    try:
        yield
    except boto.ClientError as error:
        raise _answered(error.response) from error
    except boto.SSLError as error:
        raise Refused(f"the server's certificate is not trusted: {error}; name the CA in AWS_CA_BUNDLE") from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        raise Refused(f"{error}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a profile") from error
    except (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, boto.FlexibleChecksumError) as error:
        raise Dropped(f"the connection broke: {error}") from error
    except boto.BotoCoreError as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Dropped(f"the connection broke: {error}") from error


def _answered(response: dict[str, dict[str, object]]) -> Exception:
    error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), meta.get("HTTPStatusCode", 0)
    said = f"the server answered {code} {error.get('Message', '')}".rstrip()
    if status == 304:
        return _NotModified(said)
    if status in (412, 416):
        return WrongContent("the object has changed meanwhile")
    if code == "NoSuchUpload":
        return _NoSuchUpload(said)
    if code in _TRANSIENT or (isinstance(status, int) and (status >= 500 or status == 429)):
        return Dropped(said)
    hint = _HINTS.get(code)
    return Refused(said if hint is None else f"{said}: {hint}")


class S3Staging(Staging):
    """Moves ``s3://bucket/key`` URLs, both ways, with the credentials that boto3 finds where it runs.

    Args:
        endpoint_url: Address of a server other than Amazon's.
        region: Region of the buckets.
        profile: Profile in the AWS configuration of where it runs; credentials themselves never travel.
        in_task: Move within the task on the node instead of on the submit side.
        part_bytes: Size of the parts of bigger files; held in memory once a thread.
        retry: How often and how long to try.
        cache: What to keep beside the files of one working directory; None keeps nothing.
        threads: Files moved at once on the submit side.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    def __init__(
        self,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        in_task: bool = False,
        part_bytes: int = 16 << 20,
        retry: RetryPolicy = DEFAULT_RETRY,
        cache: CachePolicy | None = DEFAULT_CACHE,
        threads: int = 8,
    ) -> None:
        if part_bytes < _SMALLEST_PART:
            raise ConfigurationError(f"S3Staging(part_bytes={part_bytes!r}): S3 takes no parts below 5 MiB")
        mover = S3Mover(endpoint_url, region, profile, part_bytes, retry, cache)
        self._call = call_of(
            self,
            endpoint_url=endpoint_url,
            region=region,
            profile=profile,
            in_task=in_task,
            part_bytes=part_bytes,
            retry=retry,
            cache=cache,
            threads=threads,
        )
        self._method = InTaskStaging(mover) if in_task else SeparateTaskStaging(mover, threads=threads, name="s3")

    def can_stage_in(self, file: File) -> bool:
        """Tell by the scheme."""
        return self._method.can_stage_in(file)

    def can_stage_out(self, file: File) -> bool:
        """Tell by the scheme."""
        return self._method.can_stage_out(file)

    def stage(self, transfers: Sequence[Transfer]) -> Future[None] | Future[Digests] | None:
        """Move on the submit side, if that is where; does not block."""
        return self._method.stage(transfers)

    def step(self, transfers: Sequence[Transfer]) -> TaskStep | None:
        """Return data that moves on the node, if that is where."""
        return self._method.step(transfers)

    def close(self) -> None:
        """Cut what is still going; returns within 5 s."""
        self._method.close()

    def __repr__(self) -> str:
        return self._call
