"""HTTP staging: files from and to web servers by http and https, on the submit side or on the node."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flow_core.files import File
from flow_core.interfaces.staging import Transfer
from flow_staging.http_cookies import Cookies
from flow_staging.http_environment import pem_of
from flow_staging.http_headers import HeadersByPrefix, HostHeaders
from flow_staging.http_login import login_of_netrc
from flow_staging.http_session import Request, broken, headers_of, is_ordinary, let_go, parsed, sessions
from flow_staging.http_upload import HttpUpload
from flow_staging.transfer.cache import DEFAULT_CACHE, CachePolicy
from flow_staging.transfer.coding import Unpacked, coding_of
from flow_staging.transfer.expression import call_of, without_values
from flow_staging.transfer.failures import ChecksumMismatch, Final, PermanentTransferError, TransientTransferError
from flow_staging.transfer.limits import DEFAULT_LIMITS, SizeLimits
from flow_staging.transfer.method import InTaskStaging, PendingUpload, SeparateTaskStaging
from flow_staging.transfer.resume import Opened, Use, fetch, pin_of
from flow_staging.transfer.retry import DEFAULT_RETRY, Control, RetryPolicy
from flow_staging.transfer.verify import Remote, digest_of_headers

if TYPE_CHECKING:
    from flow_staging.http_session import Answer

_CHUNK = 256 << 10  # bytes a read; only the magnitude matters: a deadline is looked at after each
# Statuses after which the same request may succeed; all others are final.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_HINTS = {
    401: "the server wants a login: put user:password@ into the URL, or an Authorization header for it into headers=",
    403: "the server forbids it: check the rights of the file and of the login",
    404: "there is no such file: check the URL",
    407: "the proxy wants a login: check the https_proxy variable",
    410: "the file is gone from the server for good",
}
_GONE = frozenset({404, 410})
_PLAIN = "identity"  # packed answers can be neither resumed nor checked against the file's size
_WEAK = 'W/"'
_AT = "\n"  # in no header


@dataclass(frozen=True, slots=True)
class HttpMover:
    """Fetches by GET: verified, resumed by Range, cached by ETag; sends by PUT, where that is wanted.

    See ``HTTPSeparateTaskStaging`` for the options.
    """

    ca: str | None
    headers: HostHeaders
    downgrade: bool
    retry: RetryPolicy
    cache: CachePolicy | None
    upload: bool = False
    limits: SizeLimits = DEFAULT_LIMITS

    @property
    def schemes_in(self) -> tuple[str, ...]:
        """Return the schemes of URLs that can be fetched."""
        return ("http", "https")

    @property
    def schemes_out(self) -> tuple[str, ...]:
        """Return the schemes of URLs that can be sent to: none unless the option ``upload`` is set."""
        return ("http", "https") if self.upload else ()

    @property
    def timeout_s(self) -> float:
        """Return the longest time for one file."""
        return self.retry.timeout_s

    def pin(self, file: File) -> str:
        """Return the URL with what else decides what is brought, unless each task sees its own version."""
        return pin_of(file, self.cache, self.headers.digest)

    def bring_in(self, transfer: Transfer, control: Control) -> str:
        """Fetch one file; raises TransientTransferError or PermanentTransferError."""
        url, file = transfer.file.url, transfer.file
        _check_fragment(url)
        source = HttpSource(self, url)
        private = bool(self.headers.bound) or "@" in file.netloc or login_of_netrc(_host_of(file.netloc)) is not None
        use = Use.of(transfer, control, private=private)
        # The headers' values stay out of the name: only a digest of them is written into the cache.
        digest = self.headers.digest
        name = f"{url} {digest}" if digest else url  # other headers may mean other content
        return fetch(
            source,
            transfer.local_path,
            self.retry,
            control,
            url=name,
            cache=self.cache,
            use=use,
            limits=self.limits,
            named=_named,
        )

    def check_name(self, file: File) -> None:
        """Raise Final for a URL that names no server, or of which something would not be sent to it."""
        if is_ordinary(file.url):
            return
        _check_fragment(file.url)
        try:
            parsed(file.url)
        except PermanentTransferError as error:
            raise Final(f"{error}; it has the form {file.scheme}://host/path") from error

    def look(self, file: File, control: Control) -> str | None:
        """Return size and version of a file, as far as the server says them.

        Raises TransientTransferError or PermanentTransferError.
        """
        _check_fragment(file.url)
        control.check()
        # Asked unpacked: packed answers state another size and often another ETag.
        request = replace(self.request_for(file.url, {"Accept-Encoding": _PLAIN}), method="HEAD")
        answer, place = sessions(self.ca).get(request, Cookies())
        let_go(answer)
        if answer.status in (404, 410):
            return ""
        headers = headers_of(answer)
        version = headers.get("etag", "").strip() or headers.get("last-modified", "").strip()
        size = headers.get("content-length", "")
        if answer.status != 200 or not (version or size):
            return None
        return _named(f"{version}{_AT}{place}" if place else version, size)

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> PendingUpload:
        """Promise to send: a PUT shows the file at once. Raises PermanentTransferError."""
        url = transfer.file.url
        _check_fragment(url)
        return HttpUpload(
            sessions(self.ca), self.request_for(url, {}), transfer.local_path, self.retry, control, refusal
        )

    def request_for(self, url: str, conditions: Mapping[str, str]) -> Request:
        """Return the request for a URL, with the user's headers and the timeouts in seconds."""
        retry = self.retry
        return Request(url, self.headers, conditions, retry.connect_timeout_s, retry.stall_timeout_s, self.downgrade)

    def close(self) -> None:
        """Close the idle connections with web servers."""
        sessions(self.ca).close()


class HttpSource:
    """One URL as a source of bytes."""

    def __init__(self, mover: HttpMover, url: str) -> None:
        self._sessions = sessions(mover.ca)
        self._mover = mover
        self._url = url
        self._cookies = Cookies()

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        """Ask for the file, or its rest; see ``Source``."""
        (tag, place), (known_tag, known_place) = _apart(validator), _apart(known)
        answer, here = self._asked(_conditions(offset, tag, known_tag))
        # The tag is that of another file, or the server only says "not newer": the whole file is asked for.
        if answer.status == 304 and (here != known_place or not self._is_still(known_tag, answer)):
            let_go(answer)
            answer, here = self._asked(_conditions(0, "", ""))
        try:
            # Two files on one server may have the same ETag: parts of both must not be joined.
            if answer.status == 206 and offset and here != place:
                raise ChecksumMismatch("the server sends us to another file than before the connection broke")
            opened = _answered(answer, offset, tag, known_tag if here == known_place else "", self._mover.limits)
        except BaseException:
            let_go(answer)
            raise
        # Where redirects led becomes part of the version, so that a URL that leads elsewhere is another version.
        if opened is None or not here or not opened.remote.validator:
            return opened
        return replace(opened, remote=replace(opened.remote, validator=f"{opened.remote.validator}{_AT}{here}"))

    def _is_still(self, known: str, answer: Answer) -> bool:
        """Return whether an answer without a body really is about the known version.

        Of dates many servers say only that the file is not newer, as is an older one that was put back.
        """
        if _is_tag(known):
            return True
        date = headers_of(answer).get("last-modified", "").strip()
        if not date:
            let_go(answer)
            request = replace(self._mover.request_for(self._url, {"Accept-Encoding": _PLAIN}), method="HEAD")
            head, _ = self._sessions.get(request, self._cookies)
            let_go(head)
            date = _validator(headers_of(head)) if head.status == 200 else ""
        return date == known

    def _asked(self, conditions: Mapping[str, str]) -> tuple[Answer, str]:
        return self._sessions.get(self._mover.request_for(self._url, conditions), self._cookies)


def _named(validator: str, size: object) -> str:
    """Return the name of a version, the same for a look-up and for a fetch: its size and its validator."""
    tag, place = _apart(validator)
    return f"{size} {tag} {place}" if place else f"{size} {tag}"


def _apart(validator: str) -> tuple[str, str]:
    """Return the two parts of a validator: the server's own, and the path to which redirects led."""
    tag, _, place = validator.partition(_AT)
    return tag, place


def _answered(answer: Answer, offset: int, validator: str, known: str, limits: SizeLimits) -> Opened | None:
    if answer.status == 304 and known:
        let_go(answer)
        return None
    # The file is shorter by now; the next try begins anew.
    if answer.status == 416 and offset:
        raise TransientTransferError("the server has no such range any more")
    headers = headers_of(answer)
    if answer.status == 206:
        # The part would pass for the whole file.
        if not offset:
            raise TransientTransferError("the server sent a part of the file where all of it was asked for")
        return _rest(answer, headers, validator)
    if answer.status != 200:
        raise refusal(answer.status, answer.reason or "", headers)
    # Servers without conditional requests send the file again: its connection is dropped, the cache has it.
    if known and _validator(headers) == known:
        let_go(answer)
        return None
    coding = coding_of(headers.get("content-encoding", ""))
    # Asked not to pack, it did: unpacked here, and never resumed, since positions are those of packed bytes.
    if coding:
        remote = Remote(validator=_validator(headers), resumable=False, lasting=_lasting(headers))
        return Opened(remote, 0, Unpacked(_HttpReader(answer), coding, limits), answer.close)
    return Opened(_whole(headers), 0, _HttpReader(answer), answer.close)


@lru_cache(maxsize=256)
def _host_of(netloc: str) -> str:
    return urlsplit(f"//{netloc}").hostname or ""


def _check_fragment(url: str) -> None:
    """Refuse what is never sent to a server: the file of another name would come."""
    _, mark, fragment = url.partition("#")
    if mark:
        raise Final(
            f"'#{fragment}' would not be sent to the server: write '%23' for a '#' in a name, and leave out what "
            "names a place within a file"
        )


def _rest(answer: Answer, headers: Mapping[str, str], validator: str) -> Opened:
    """Take a part of a file, which must be of the version of the parts before (RFC 9110, 15.3.7)."""
    name = "ETag" if validator.startswith('"') else "Last-Modified"
    stated = headers.get(name.lower(), "").strip()
    if stated != validator and (stated or name == "ETag"):
        raise ChecksumMismatch(
            f"the server sent a part of another version: {name} {stated or 'missing'}, not {validator}"
        )
    start, size = _range_of(headers.get("content-range", ""))
    return Opened(
        Remote(size, digest_of_headers(headers, whole=False), validator), start, _HttpReader(answer), answer.close
    )


def _conditions(offset: int, validator: str, known: str) -> dict[str, str]:
    headers = {"Accept-Encoding": _PLAIN, "Want-Repr-Digest": "sha-256=5, sha-512=3", "Want-Digest": "sha-256"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        headers["If-Range"] = validator
    elif _is_tag(known):
        headers["If-None-Match"] = known
    # Only dates that _is_still() confirms are believed: "not newer" is also said of an older file.
    elif known:
        headers["If-Modified-Since"] = known
    return headers


def _is_tag(validator: str) -> bool:
    """Return whether a validator is an ETag, and no date."""
    return validator.startswith(('"', _WEAK))


def _whole(headers: Mapping[str, str]) -> Remote:
    length = headers.get("content-length", "")
    size = int(length) if length.isdigit() else None
    validator = _validator(headers)
    return Remote(
        size,
        digest_of_headers(headers),
        validator,
        resumable=not validator.startswith(_WEAK),
        lasting=bool(validator) or _lasting(headers),
    )


def _lasting(headers: Mapping[str, str]) -> bool:
    """Return whether a server lets others use a content for a while without asking: it does if it says nothing."""
    return re.search(r"no-store|no-cache|max-age=0\b", headers.get("cache-control", ""), re.IGNORECASE) is None


def _validator(headers: Mapping[str, str]) -> str:
    """Return an ETag, or a date of change that the server's clock has left behind, or nothing (RFC 9110, 8.8).

    A weak ETag names content that means the same, byte for byte or not: good enough to keep what is here, not to put
    parts together.
    """
    tag = headers.get("etag", "").strip()
    if re.fullmatch(r'(W/)?"[^"]*"', tag):
        return tag
    changed = headers.get("last-modified", "").strip()
    try:
        then = email.utils.parsedate_to_datetime(changed)
        now = email.utils.parsedate_to_datetime(headers.get("date", ""))
        # A file that changed in the second of the answer may change again under the same date.
        return changed if (now - then).total_seconds() >= 1.0 else ""
    except (TypeError, ValueError):
        return ""


def _range_of(content_range: str) -> tuple[int, int | None]:
    """Return where a part begins and how large the whole is, None where the server does not say."""
    match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
    if match is None:
        raise TransientTransferError(f"the server sent a part without saying which: Content-Range {content_range!r}")
    return int(match[1]), None if match[2] == "*" else int(match[2])


class _HttpReader:
    """Reads the raw bytes of an answer as they come."""

    def __init__(self, answer: Answer) -> None:
        # read1 gives what has come, without waiting for a full chunk.
        self._read = answer.read1

    def __call__(self) -> bytes:
        """Return the next bytes; raises TransientTransferError."""
        try:
            data: bytes = self._read(_CHUNK, decode_content=False)
        except Exception as error:
            raise broken(error) from error
        return data


def refusal(status: int, reason: str, headers: Mapping[str, str]) -> TransientTransferError | PermanentTransferError:
    """Return the error for an answer that is no file, with advice where there is some."""
    said = f"the server answered {status} {reason}".rstrip()
    if status in _TRANSIENT:
        return TransientTransferError(said, _retry_after(headers))
    hint = _HINTS.get(status)
    # Final: no further try of the task could change it.
    refused = Final if status in _GONE else PermanentTransferError
    return refused(said if hint is None else f"{said}: {hint}")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait: stated as such, or as a date by its own clock."""
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(headers.get("date", "")) if "date" in headers else datetime.now(UTC)
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None


def make_mover(
    ca_bundle: str | None,
    headers: HeadersByPrefix | None,
    retry: RetryPolicy,
    cache: CachePolicy | None,
    downgrade: bool = False,
    upload: bool = False,
    limits: SizeLimits = DEFAULT_LIMITS,
) -> HttpMover:
    """Check the options and return a mover with them.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """
    return HttpMover(pem_of(ca_bundle), HostHeaders.made(headers), downgrade, retry, cache, upload, limits)


class HTTPSeparateTaskStaging(SeparateTaskStaging):
    """Moves http and https URLs on the submit side, for executors that share its file system. In the defaults.

    Args:
        ca_bundle: Certificates to trust beside the system's: a file, or the PEM text itself.
        headers: Headers, such as Authorization, for each server that they are meant for, or for what is below a path
            on it: ``{"https://data.example.org/private": {"Authorization": "Bearer ..."}}``. They go to no other, by
            whatever redirect, and what is for https goes to https only. ``"*"`` names all servers, to which Accept,
            Accept-Language and User-Agent may go.
        retry: How often and how long to try.
        cache: What to keep beside the files of one working directory; None keeps nothing.
        threads: Files fetched at once of one host; eight times as many of all hosts.
        downgrade: Follow redirects from https to plain http, where others on the way can read and change the file.
            Headers for certain servers, logins and cookies are not sent from there on.
        upload: Bring files out, too, each by one PUT. Not by default: most web servers take no files, and a script
            is told that before its tasks run.
        limits: How large a file may be.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    def __init__(
        self,
        *,
        ca_bundle: str | None = None,
        headers: HeadersByPrefix | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        cache: CachePolicy | None = DEFAULT_CACHE,
        threads: int = 8,
        downgrade: bool = False,
        upload: bool = False,
        limits: SizeLimits = DEFAULT_LIMITS,
    ) -> None:
        mover = make_mover(ca_bundle, headers, retry, cache, downgrade, upload, limits)
        super().__init__(mover, threads=threads, name="http")
        shown = without_values(headers)
        self._call = call_of(
            self,
            ca_bundle=ca_bundle,
            headers=shown,
            retry=retry,
            cache=cache,
            threads=threads,
            downgrade=downgrade,
            upload=upload,
            limits=limits,
        )

    def __repr__(self) -> str:
        return self._call


class HTTPInTaskStaging(InTaskStaging):
    """Moves http and https URLs on the node, within the task. Needs flow-staging installed there.

    The certificates of ``ca_bundle`` and the headers travel with the task. Options as of
    ``HTTPSeparateTaskStaging``.
    """

    def __init__(
        self,
        *,
        ca_bundle: str | None = None,
        headers: HeadersByPrefix | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        cache: CachePolicy | None = DEFAULT_CACHE,
        downgrade: bool = False,
        upload: bool = False,
        limits: SizeLimits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__(make_mover(ca_bundle, headers, retry, cache, downgrade, upload, limits))
        shown = without_values(headers)
        self._call = call_of(
            self,
            ca_bundle=ca_bundle,
            headers=shown,
            retry=retry,
            cache=cache,
            downgrade=downgrade,
            upload=upload,
            limits=limits,
        )

    def __repr__(self) -> str:
        return self._call
