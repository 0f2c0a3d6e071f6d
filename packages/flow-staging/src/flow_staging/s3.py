"""S3 staging: objects of S3 and compatible stores, on the submit side or the node. Needs the extra ``s3`` (boto3)."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import os
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, cast

from flow_core.errors import ConfigurationError
from flow_core.files import File
from flow_core.interfaces.staging import Transfer
from flow_staging.s3_listing import names_below, prefix_of
from flow_staging.transfer.cache import DEFAULT_CACHE, CachePolicy
from flow_staging.transfer.coding import Unpacked, coding_of
from flow_staging.transfer.either_side import EitherSide
from flow_staging.transfer.expression import call_of
from flow_staging.transfer.failures import (
    ChecksumMismatch,
    Final,
    PermanentTransferError,
    TooSlow,
    TransientTransferError,
    local_failure,
)
from flow_staging.transfer.handle import tidying
from flow_staging.transfer.limits import DEFAULT_LIMITS, SizeLimits
from flow_staging.transfer.method import PendingUpload
from flow_staging.transfer.resume import Opened, Use, fetch, pin_of
from flow_staging.transfer.retry import DEFAULT_RETRY, Control, Pace, RetryPolicy, Tries, again
from flow_staging.transfer.sockets import watching
from flow_staging.transfer.verify import Digest, Remote

_CHUNK = 1 << 20  # bytes a read; only the magnitude matters
_SMALLEST_PART = 5 << 20  # bytes; S3 takes no smaller part but the last one
_MOST_PARTS = 9_000  # below the 10,000 of S3: larger files get larger parts
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
    "NoSuchVersion": "the object has no such version: check the URL",
    "NoSuchBucket": "there is no such bucket: check the URL",
    "AccessDenied": "access is denied: check the rights of the credentials",
    "InvalidAccessKeyId": "the access key is not known: check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY or the profile",
    "ExpiredToken": "the credentials have expired: get new ones",
    "403": "access is denied: check the rights of the credentials",
    "404": "there is no such object: check the URL",
}
_THREADS = 32
# No further try of a task changes these.
_GONE = frozenset({"NoSuchBucket", "NoSuchVersion"})
_Result = TypeVar("_Result")


class _Body(Protocol):
    """Protocol of the body of an answer."""

    def read(self, amt: int) -> bytes:
        """Return up to ``amt`` bytes; empty at the end."""
        ...

    def close(self) -> None:
        """Release the connection; the rest of the body is not read."""
        ...


class _Client(Protocol):
    """Protocol of the calls of boto3's client that are used here; boto3 has no types of its own."""

    def get_object(self, **options: object) -> dict[str, object]:
        """Begin to read an object: the answer has its ``Body``."""
        ...

    def head_object(self, **options: object) -> dict[str, object]:
        """Return size, ETag and other facts of an object."""
        ...

    def list_object_versions(self, **options: object) -> dict[str, object]:
        """Return a page of the versions of objects."""
        ...

    def put_object(self, **options: object) -> dict[str, object]:
        """Store an object by one request."""
        ...

    def create_multipart_upload(self, **options: object) -> dict[str, object]:
        """Begin an upload in parts: the answer has its ``UploadId``."""
        ...

    def upload_part(self, **options: object) -> dict[str, object]:
        """Store one part: the answer has its ``ETag``."""
        ...

    def complete_multipart_upload(self, **options: object) -> dict[str, object]:
        """Make one object of the parts."""
        ...

    def abort_multipart_upload(self, **options: object) -> dict[str, object]:
        """Throw the parts of an upload away."""
        ...

    def list_objects_v2(self, **options: object) -> dict[str, object]:
        """Return a page of the objects below a prefix."""
        ...

    def list_multipart_uploads(self, **options: object) -> dict[str, object]:
        """Return uploads that were begun and not ended."""
        ...


@dataclass(frozen=True, slots=True)
class S3Address:
    """Bucket, key and version of a URL ``s3://bucket/key`` or ``s3://bucket/key?versionId=id``.

    The key is meant as it is written. One that itself ends like this is named by adding ``?versionId=`` to it.

    Attributes:
        bucket: Name of the bucket.
        key: Name of the object.
        version: The version to fetch; empty for the current one.
    """

    bucket: str
    key: str
    version: str = ""

    @classmethod
    def of(cls, url: str) -> S3Address:
        """Take an URL apart; raises Final."""
        match = re.fullmatch(r"(?i:s3)://([^/?#@:]+)/(.+?)(?:\?versionId=([^/?#&=]*))?", url, re.DOTALL)
        if match is None:
            raise Final("an s3 URL has the form s3://bucket/key")
        return cls(match[1], match[2], match[3] or "")

    def names(self) -> dict[str, object]:
        """Return the address as arguments of the client's methods."""
        named: dict[str, object] = {"Bucket": self.bucket, "Key": self.key}
        return {**named, "VersionId": self.version} if self.version else named


@dataclass(frozen=True, slots=True)
class S3Mover:
    """Moves by GetObject and PutObject, big files in parts: verified by MD5, resumed by Range, cached by ETag."""

    lists_as_brought: ClassVar[bool] = True
    endpoint_url: str | None
    region: str | None
    profile: str | None
    part_bytes: int
    retry: RetryPolicy
    cache: CachePolicy | None
    limits: SizeLimits = DEFAULT_LIMITS

    @property
    def schemes_in(self) -> tuple[str, ...]:
        """Return the schemes of URLs that can be fetched."""
        return ("s3",)

    @property
    def schemes_out(self) -> tuple[str, ...]:
        """Return the schemes of URLs that can be sent to."""
        return ("s3",)

    @property
    def timeout_s(self) -> float:
        """Return the longest time for one file."""
        return self.retry.timeout_s

    def pin(self, file: File) -> str:
        """Return the URL with what else decides what is brought, unless each task sees its own version."""
        return pin_of(file, self.cache, self.endpoint_url or "")

    def bring_in(self, transfer: Transfer, control: Control) -> str:
        """Fetch one object; raises TransientTransferError or PermanentTransferError."""
        source = S3Source(self._client(), S3Address.of(transfer.file.url), self.limits, transfer.version)
        url = f"{self.endpoint_url} {transfer.file.url}"
        # Private: it was fetched with credentials, so other users may not read it in the cache.
        use = Use.of(transfer, control, private=True)
        return fetch(
            source, transfer.local_path, self.retry, control, url=url, cache=self.cache, use=use, limits=self.limits
        )

    def check_name(self, file: File) -> None:
        """Raise Final for a URL that names no object, or none below which there may be some."""
        if file.kind == "file":
            S3Address.of(file.url)
        else:
            prefix_of(file)

    def look(self, file: File, control: Control) -> str | None:
        """Return size and ETag of an object; raises TransientTransferError or PermanentTransferError."""
        address = S3Address.of(file.url)
        control.check()
        try:
            with _translated():
                there = self._client().head_object(**address.names())
        except _Missing:
            return ""
        return f"{there.get('ContentLength')} {there.get('ETag')}"

    def names(self, file: File, control: Control) -> dict[str, str]:
        """Return size and ETag of each object below a prefix.

        Raises TransientTransferError or PermanentTransferError.
        """
        client = self._client()

        def listed() -> dict[str, str]:
            """Ask once for all pages; ``again`` repeats it after a transient error."""
            return names_below(file, client.list_objects_v2, control.check, self.limits)

        return again(self.retry, control, lambda: _asked(listed))

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> PendingUpload:
        """Store the parts of one object; raises TransientTransferError or PermanentTransferError."""
        address = S3Address.of(transfer.file.url)
        if address.version:
            raise Final("a version of an object cannot be written: leave out ?versionId=, S3 names the new version")
        upload = _S3Upload(self._client(), address, transfer.local_path, self, control)
        upload.send(alone)
        return upload

    def close(self) -> None:
        """Do nothing: the client's connections are those of the process."""

    def _client(self) -> _Client:
        with _translated(), _making:  # else each thread would make one of its own for its first file
            return _client(
                self.endpoint_url,
                self.region,
                self.profile,
                self.retry.connect_timeout_s,
                self.retry.stall_timeout_s,
            )


_making = threading.Lock()


def _forget_lock() -> None:
    """Leave the lock to the parent, a thread of which may have held it."""
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)


@lru_cache(maxsize=8)
def _client(
    endpoint_url: str | None, region: str | None, profile: str | None, connect_s: float, stall_s: float
) -> _Client:
    """Make a client, once a process: it takes 50 ms and more, is safe in threads and renews its credentials."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise PermanentTransferError("boto3 is not installed here: pip install boto3") from error
    config = Config(
        # One attempt: tries are counted here, and botocore's own would hide them. As many connections as threads of
        # several buckets of one server, so that none is thrown away.
        connect_timeout=connect_s,
        read_timeout=stall_s,
        retries={"total_max_attempts": 1},
        max_pool_connections=256,
    )
    session = boto3.Session(profile_name=profile, region_name=region)
    client: _Client = session.client("s3", endpoint_url=endpoint_url, config=config)
    _make_cuttable(client)
    return client


def _make_cuttable(client: object) -> None:
    """Have the client's connections cut with their transfers; botocore has no option for that.

    Where a later botocore is made otherwise, its transfers stop when the server says something, or at a timeout.
    """
    session = getattr(getattr(client, "_endpoint", None), "http_session", None)
    pools = getattr(session, "_pool_classes_by_scheme", None)
    if isinstance(pools, dict):  # the one object that it and its managers share
        pools.update(watching(pools))


class S3Source:
    """One object as a source of bytes. A version that is ``wanted`` is looked for among those that the bucket keeps."""

    def __init__(self, client: _Client, address: S3Address, limits: SizeLimits, wanted: str = "") -> None:
        self._client = client
        self._limits = limits
        self._address = address
        self._wanted = wanted

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        """Ask for the object, or its rest; see ``Source``."""
        conditions: dict[str, object] = {}
        if offset:
            # IfMatch: another version answers 412, and the file is begun anew.
            conditions = {"Range": f"bytes={offset}-", "IfMatch": validator}
        elif known:
            conditions = {"IfNoneMatch": known}
        try:
            answer = self._answer(conditions)
        except _NotModified:
            return None
        body: _Body = answer["Body"]  # type: ignore[assignment]  # boto3 is not typed
        tag = str(answer.get("ETag", ""))
        length = answer.get("ContentLength")
        coding = coding_of(str(answer.get("ContentEncoding") or ""))
        if coding:
            return Opened(
                Remote(validator=tag, resumable=False), 0, Unpacked(_S3Reader(body), coding, self._limits), body.close
            )
        # The length of a part is not that of the object.
        size = _size(answer) if offset else length if isinstance(length, int) else None
        remote = Remote(size, _digest(tag, answer), tag, _checked(answer))
        return Opened(remote, offset, _S3Reader(body), body.close)

    def _answer(self, conditions: dict[str, object]) -> dict[str, object]:
        with _translated():
            answer = self._client.get_object(**self._address.names(), **conditions)
        # Only a fetch from the beginning may go to an older version: what is resumed has its version already.
        if not self._wanted or conditions or self._address.version or str(answer.get("ETag", "")) == self._wanted:
            return answer
        older = self._kept_version()
        if not older:
            return answer  # which is refused
        body: _Body = answer["Body"]  # type: ignore[assignment]  # boto3 is not typed
        body.close()
        self._address = replace(self._address, version=older)
        with _translated():
            return self._client.get_object(**self._address.names())

    def _kept_version(self) -> str:
        """Return the id of the version that is wanted, if the bucket keeps it and lets us see that."""
        address = self._address
        try:
            with _translated():
                listed = self._client.list_object_versions(Bucket=address.bucket, Prefix=address.key)
        except (TransientTransferError, PermanentTransferError):
            return ""
        versions = listed.get("Versions")
        for each in versions if isinstance(versions, list) else ():
            if each.get("Key") == address.key and each.get("ETag") == self._wanted:
                return str(each.get("VersionId", ""))
        return ""


class _S3Reader:
    """Reads the body of an answer."""

    def __init__(self, body: _Body) -> None:
        self._body = body
        # Private to botocore: where a later one has none, reading works as before, in larger pieces.
        raw = getattr(body, "_raw_stream", None)
        if hasattr(raw, "read1"):
            setattr(body, "_raw_stream", _AsItComes(raw))  # noqa: B010  (boto3 has no types, and no other way)

    def __call__(self) -> bytes:
        """Return the next bytes; raises TransientTransferError."""
        with _translated():
            return self._body.read(_CHUNK)


class _AsItComes:
    """Stream of a body whose ``read`` gives what has arrived: the original waits for a full chunk of a slow server."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def read(self, amount: int) -> bytes:
        """Return what has arrived, at most so many bytes; waits for the first one."""
        data: bytes = self._raw.read1(amount)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _size(answer: dict[str, object]) -> int | None:
    """Return the size of the whole object from the answer with a part of it, None where it is not stated."""
    match = re.fullmatch(r"bytes \d+-\d+/(\d+)", str(answer.get("ContentRange", "")))
    return int(match[1]) if match else None


def _checked(answer: dict[str, object]) -> bool:
    """Return whether botocore checks the body as it is read: by a checksum of all of it, three times as fast as MD5."""
    type_name = str(getattr(type(answer["Body"]), "__name__", ""))
    return "Checksum" in type_name and answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"


def _digest(tag: str, answer: dict[str, object]) -> Digest | None:
    """Return the MD5 that the ETag is, where it is: not of objects made of parts or encrypted by own keys."""
    encrypted = str(answer.get("ServerSideEncryption", "")).startswith("aws:") or "SSECustomerAlgorithm" in answer
    match = re.fullmatch(r'"([0-9a-f]{32})"', tag)
    return Digest("md5", bytes.fromhex(match[1])) if match and not encrypted else None


class _S3Upload:
    """Stores one file; the object appears when all of it is there."""

    def __init__(self, client: _Client, address: S3Address, path: Path, mover: S3Mover, control: Control) -> None:
        self._client = client
        self._names = address.names()
        self._path = path
        self._policy = mover.retry
        self._control = control
        self._size = path.stat().st_size
        # A file of more parts gets larger ones than asked for.
        self._part = max(mover.part_bytes, -(-self._size // _MOST_PARTS))
        self._upload: object = None
        self._parts: list[dict[str, object]] = []
        self._pace = Pace(mover.retry)
        # Slowness counts over all parts: each part alone would always begin with new tries.
        self._slow = Tries(mover.retry, control)
        control.stop.meter.stand(0, self._size)

    def send(self, alone: bool) -> None:
        """Store the parts; a small object that goes alone, and an empty one, is stored when it is published."""
        if self._size == 0 or (alone and self._size <= self._part):
            return
        # Parts of killed processes take space until somebody ends their uploads.
        self._sweep()
        self._upload = self._again(lambda: self._client.create_multipart_upload(**self._names))["UploadId"]
        try:
            with closing(self._pieces()) as pieces:
                self._parts = [self._store(self._upload, number, piece) for number, piece in enumerate(pieces, 1)]
        except BaseException:
            self.discard()
            raise

    def publish(self) -> None:
        """Make the object appear; raises TransientTransferError or PermanentTransferError."""
        if self._upload is None:
            with closing(self._pieces()) as pieces:
                body = next(pieces, b"")
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
        try:
            with _translated():
                found = self._client.list_multipart_uploads(Bucket=self._names["Bucket"], Prefix=self._names["Key"])
        except (TransientTransferError, PermanentTransferError):  # no right to look
            return
        now = _date_of(found)
        for each in cast("list[dict[str, object]]", found.get("Uploads", [])):
            began = each.get("Initiated")
            if each.get("Key") != self._names["Key"] or not isinstance(began, datetime):
                continue
            if (now - began).total_seconds() > self._policy.timeout_s + 3600.0:  # those of its servers differ
                self._abort(each.get("UploadId"))

    def _store(self, upload: object, number: int, piece: bytes) -> dict[str, object]:
        where = {**self._names, "UploadId": upload, "PartNumber": number}
        answer = self._again(lambda: self._client.upload_part(**where, **_content(piece)))
        self._control.stop.meter.add(len(piece))
        try:
            self._pace.add(len(piece))
        except TooSlow as error:
            self._slow.failed(error)
            self._pace = Pace(self._policy)
        return {"ETag": answer["ETag"], "PartNumber": number}

    def _complete(self, upload: object, parts: Sequence[dict[str, object]]) -> None:
        what = {**self._names, "UploadId": upload, "MultipartUpload": {"Parts": list(parts)}}
        asked = 0

        def complete() -> dict[str, object]:
            """Ask once, and count how often it was asked."""
            nonlocal asked
            asked += 1
            return self._client.complete_multipart_upload(**what)

        try:
            self._again(complete)
        except _NoSuchUpload:  # an earlier try has done it and only the answer was lost
            if asked == 1:  # none has: an older object of this size is not what was stored
                raise
            there = self._again(lambda: self._client.head_object(**self._names))
            if there.get("ContentLength") != self._size:
                raise

    def _abort(self, upload: object) -> None:
        try:
            # tidying: the transfer may have been stopped, and its connections are cut otherwise.
            with tidying(), _translated():
                self._client.abort_multipart_upload(**self._names, UploadId=upload)
        except (TransientTransferError, PermanentTransferError):
            pass  # the reason why we are here matters more

    def _pieces(self) -> Generator[bytes, None, None]:
        try:
            with self._path.open("rb") as stream:
                while piece := stream.read(self._part):
                    yield piece
        except OSError as error:
            raise local_failure(error, f"cannot read {self._path}") from error

    def _again(self, ask: Callable[[], _Result]) -> _Result:
        return again(self._policy, self._control, lambda: _asked(ask))


def _date_of(answer: dict[str, object]) -> datetime:
    """Return when an answer was given by the server's clock; by this machine's, which may be wrong, if it says not."""
    about = answer.get("ResponseMetadata")
    headers = about.get("HTTPHeaders") if isinstance(about, dict) else None
    try:
        return email.utils.parsedate_to_datetime(headers["date"]).astimezone(UTC)  # type: ignore[index]  # or TypeError
    except (KeyError, TypeError, ValueError):
        return datetime.now(UTC)


def _asked(ask: Callable[[], _Result]) -> _Result:
    with _translated():
        return ask()


def _content(body: bytes) -> dict[str, object]:
    # The server compares it with what arrived: a damaged part is refused (BadDigest) and sent again.
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return {"Body": body, "ContentMD5": base64.b64encode(digest).decode()}


class _Missing(Final):
    """There is no such object."""


class _NotModified(PermanentTransferError):
    """The object is still the version that we know."""


class _NoSuchUpload(PermanentTransferError):
    """The parts are gone: put together, or thrown away."""


@contextmanager
def _translated() -> Iterator[None]:
    """Turn botocore's errors into transient and permanent transfer errors."""
    try:
        import botocore.exceptions as boto
    except ImportError as error:
        raise PermanentTransferError("boto3 is not installed here: pip install boto3") from error
    try:
        yield
    except boto.ClientError as error:
        raise _answered(error.response) from error
    except boto.SSLError as error:
        raise PermanentTransferError(
            f"the server's certificate is not trusted: {error}; name the CA in AWS_CA_BUNDLE"
        ) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        raise PermanentTransferError(
            f"{error}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a profile"
        ) from error
    except (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, boto.FlexibleChecksumError) as error:
        raise TransientTransferError(f"the connection broke: {error}") from error
    except boto.BotoCoreError as error:
        raise PermanentTransferError(str(error)) from error
    except OSError as error:
        raise TransientTransferError(f"the connection broke: {error}") from error


def _answered(response: dict[str, dict[str, object]]) -> Exception:
    error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), meta.get("HTTPStatusCode", 0)
    said = f"the server answered {code} {error.get('Message', '')}".rstrip()
    if status == 304:
        return _NotModified(said)
    # The condition of a resumed request failed: another version is there.
    if status in (412, 416):
        return ChecksumMismatch("the object has changed meanwhile")
    if code == "NoSuchUpload":
        return _NoSuchUpload(said)
    if code in _TRANSIENT or (isinstance(status, int) and (status >= 500 or status == 429)):
        return TransientTransferError(said)
    if code in ("NoSuchKey", "404"):
        return _Missing(f"{said}: {_HINTS[code]}")
    hint = _HINTS.get(code)
    return (Final if code in _GONE else PermanentTransferError)(said if hint is None else f"{said}: {hint}")


class S3Staging(EitherSide):
    """Moves ``s3://bucket/key`` URLs, both ways, with the credentials that boto3 finds where it runs.

    Args:
        endpoint_url: Address of a server other than Amazon's.
        region: Region of the buckets.
        profile: Profile in the AWS configuration of where it runs; credentials themselves never travel.
        in_task: Move within the task on the node instead of on the submit side.
        part_bytes: Size of the parts of bigger files; held in memory once a thread.
        retry: How often and how long to try.
        cache: What to keep beside the files of one working directory; None keeps nothing.
        threads: Files moved at once of one host on the submit side; eight times as many of all hosts.
        limits: How large an object may be that comes in.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    checks_digests = True
    moves = ("file", "directory", "pattern")

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
        threads: int = _THREADS,
        limits: SizeLimits = DEFAULT_LIMITS,
    ) -> None:
        if part_bytes < _SMALLEST_PART:
            raise ConfigurationError(f"S3Staging(part_bytes={part_bytes!r}): S3 takes no parts below 5 MiB")
        mover = S3Mover(endpoint_url, region, profile, part_bytes, retry, cache, limits)
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
            limits=limits,
        )
        super().__init__(mover, in_task=in_task, threads=threads, usual_threads=_THREADS, name="s3")
