"""Files from web servers: http and https, on the submit side or on the node."""

from __future__ import annotations

import email.utils
import http.client
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flow_core.errors import ConfigurationError
from flow_core.files import File
from flow_core.interfaces.staging import Transfer
from flow_staging.transfer.cache import DEFAULT_CACHE, CachePolicy
from flow_staging.transfer.coding import Unpacked, coding_of
from flow_staging.transfer.expression import call_of, without_values
from flow_staging.transfer.failures import Dropped, Refused, WrongContent
from flow_staging.transfer.method import InTaskStaging, Sent, SeparateTaskStaging
from flow_staging.transfer.resume import Opened, fetch
from flow_staging.transfer.retry import DEFAULT_RETRY, Control, RetryPolicy
from flow_staging.transfer.verify import Remote, digest_of_headers

if TYPE_CHECKING:
    import requests

_CHUNK = 256 << 10
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_HINTS = {
    401: "the server wants a login: put user:password@ into the URL, or an Authorization header into headers=",
    403: "the server forbids it: check the rights of the file and of the login",
    404: "there is no such file: check the URL",
    407: "the proxy wants a login: check the https_proxy variable",
    410: "the file is gone from the server for good",
}
_PLAIN = "identity"  # packed answers can be neither resumed nor checked against the file's size
_WEAK = 'W/"'


@dataclass(frozen=True, slots=True)
class HttpMover:
    """Fetches by GET: verified, resumed by Range, cached by ETag. See ``HTTPSeparateTaskStaging`` for the options."""

    ca: str | None
    headers: tuple[tuple[str, str], ...]
    retry: RetryPolicy
    cache: CachePolicy | None

    @property
    def schemes_in(self) -> tuple[str, ...]:
        """Return what comes in."""
        return ("http", "https")

    @property
    def schemes_out(self) -> tuple[str, ...]:
        """Return nothing: plain web servers take no files."""
        return ()

    @property
    def timeout_s(self) -> float:
        """Return the longest time for one file."""
        return self.retry.timeout_s

    def bring_in(self, file: File, path: Path, control: Control) -> str:
        """Fetch one file; raises Dropped or Refused."""
        with _session(self.ca, self.headers) as session:
            source = HttpSource(session, file.url, self.retry)
            return fetch(source, path, self.retry, control, url=file.url, cache=self.cache)

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> Sent:
        """Refuse: there is no way of writing to a plain web server."""
        raise Refused("files cannot be brought out by http; use ftp, s3, globus or a provider of your own")


class HttpSource:
    """One URL as a source of bytes."""

    def __init__(self, session: requests.Session, url: str, retry: RetryPolicy) -> None:
        self._session = session
        self._url = url
        self._timeout = (retry.connect_timeout_s, retry.stall_timeout_s)

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        """Ask for the file, or its rest; see ``Source``."""
        import requests

        try:
            answer = self._session.get(
                self._url, stream=True, timeout=self._timeout, headers=_conditions(offset, validator, known)
            )
        except requests.RequestException as error:
            raise _failure(error) from error
        except ValueError as error:  # urllib3's LocationParseError slips through
            raise Refused(f"not a URL that can be fetched: {error}") from error
        try:
            return self._answered(answer, offset, validator, known)
        except BaseException:
            answer.close()
            raise

    def _answered(self, answer: requests.Response, offset: int, validator: str, known: str) -> Opened | None:
        if answer.status_code == 304 and known:
            answer.close()
            return None
        if answer.status_code == 416 and offset:
            raise Dropped("the server has no such range any more")
        if answer.status_code == 206:
            return _rest(answer, validator)
        if answer.status_code != 200:
            raise _refusal(answer.status_code, answer.reason, answer.headers)
        coding = coding_of(answer.headers.get("Content-Encoding", ""))
        if coding:
            remote = Remote(validator=_validator(answer.headers), resumable=False)
            return Opened(remote, 0, Unpacked(_Reader(answer), coding), answer.close)
        return Opened(_whole(answer.headers), 0, _Reader(answer), answer.close)


def _rest(answer: requests.Response, validator: str) -> Opened:
    """Take a part of a file, which must be of the version of the parts before (RFC 9110, 15.3.7)."""
    headers = answer.headers
    name = "ETag" if validator.startswith('"') else "Last-Modified"
    stated = headers.get(name, "").strip()
    if stated != validator and (stated or name == "ETag"):
        raise WrongContent(f"the server sent a part of another version: {name} {stated or 'missing'}, not {validator}")
    start, size = _range_of(headers.get("Content-Range", ""))
    return Opened(
        Remote(size, digest_of_headers(headers, whole=False), validator), start, _Reader(answer), answer.close
    )


def _conditions(offset: int, validator: str, known: str) -> dict[str, str]:
    headers = {"Accept-Encoding": _PLAIN, "Want-Repr-Digest": "sha-256=5, sha-512=3", "Want-Digest": "sha-256"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        headers["If-Range"] = validator
    elif known:
        headers["If-None-Match" if known.startswith(('"', _WEAK)) else "If-Modified-Since"] = known
    return headers


def _whole(headers: Mapping[str, str]) -> Remote:
    length = headers.get("Content-Length", "")
    size = int(length) if length.isdigit() else None
    validator = _validator(headers)
    return Remote(size, digest_of_headers(headers), validator, resumable=not validator.startswith(_WEAK))


def _validator(headers: Mapping[str, str]) -> str:
    """Return an ETag, or a date of change that the server's clock has left behind, or nothing (RFC 9110, 8.8).

    A weak ETag names content that means the same, byte for byte or not: good enough to keep what is here, not to put
    parts together.
    """
    tag = headers.get("ETag", "").strip()
    if re.fullmatch(r'(W/)?"[^"]*"', tag):
        return tag
    changed = headers.get("Last-Modified", "").strip()
    try:
        then = email.utils.parsedate_to_datetime(changed)
        now = email.utils.parsedate_to_datetime(headers.get("Date", ""))
        return changed if (now - then).total_seconds() >= 1.0 else ""
    except (TypeError, ValueError):
        return ""


def _range_of(content_range: str) -> tuple[int, int | None]:
    """Return where a part begins and how large the whole is, None where the server does not say."""
    match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
    if match is None:
        raise Dropped(f"the server sent a part without saying which: Content-Range {content_range!r}")
    return int(match[1]), None if match[2] == "*" else int(match[2])


class _Reader:
    """Reads the raw bytes of an answer as they come."""

    def __init__(self, answer: requests.Response) -> None:
        self._raw = answer.raw
        self._read1 = getattr(self._raw, "read1", None)

    def __call__(self) -> bytes:
        """Return the next bytes; raises Dropped."""
        import requests
        import urllib3

        try:
            if self._read1 is not None:
                data: bytes = self._read1(_CHUNK, decode_content=False)
            else:
                data = self._raw.read(_CHUNK, decode_content=False)
        except (urllib3.exceptions.HTTPError, requests.RequestException, OSError) as error:
            raise Dropped(f"the connection broke: {_reason(error)}") from error
        return data


def _refusal(status: int, reason: str, headers: Mapping[str, str]) -> Dropped | Refused:
    said = f"the server answered {status} {reason}".rstrip()
    if status in _TRANSIENT:
        return Dropped(said, _retry_after(headers))
    hint = _HINTS.get(status)
    return Refused(said if hint is None else f"{said}: {hint}")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait: stated as such, or as a date by its own clock."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(headers.get("Date", "")) if "Date" in headers else datetime.now(UTC)
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None


def _failure(error: requests.RequestException) -> Dropped | Refused:
    import requests

    reason = _reason(error)
    if isinstance(error, requests.exceptions.SSLError) and "certificate" in reason.lower():
        return Refused(f"the server's certificate is not trusted: {reason}; give the CA's certificate as ca_bundle=")
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return Refused(f"not a URL that can be fetched: {reason}")
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return Refused(f"the server sends us in a circle: {reason}")
    if isinstance(error, requests.exceptions.InvalidHeader):
        return Refused(f"headers=: {reason}")
    return Dropped(f"no answer: {reason}")


def _reason(error: BaseException) -> str:
    """Return the innermost reason that says something: outer ones repeat URLs with their passwords."""
    inner: BaseException = error
    while True:
        deeper = getattr(inner, "reason", None) or next((x for x in inner.args if isinstance(x, BaseException)), None)
        if not isinstance(deeper, BaseException):
            break
        inner = deeper
    if isinstance(inner, http.client.IncompleteRead) and inner.expected is not None:
        return f"the answer ended {inner.expected} bytes before the end of the file"
    text = inner.args[-1] if inner.args and isinstance(inner.args[-1], str) else str(inner)
    return re.sub(r"^<.*?>: ", "", str(text)) or type(inner).__name__


def _session(ca: str | None, headers: tuple[tuple[str, str], ...]) -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.headers.update(headers)
    if ca is not None:
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=ca)

        class _OwnCa(HTTPAdapter):
            def init_poolmanager(self, *args: object, **kwargs: object) -> None:
                super().init_poolmanager(*args, **kwargs, ssl_context=context)  # type: ignore[arg-type]  # as it came

        session.mount("https://", _OwnCa())
    return session


def make_mover(
    ca_bundle: str | None, headers: Mapping[str, str] | None, retry: RetryPolicy, cache: CachePolicy | None
) -> HttpMover:
    """Check the options and return what moves by them.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """
    return HttpMover(_pem(ca_bundle), tuple((headers or {}).items()), retry, cache)


def _pem(ca_bundle: str | None) -> str | None:
    if ca_bundle is None:
        return None
    text = ca_bundle
    if "-----BEGIN" not in text:
        try:
            text = Path(ca_bundle).read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise ConfigurationError(f"ca_bundle={ca_bundle!r} cannot be read: {error.strerror}") from error
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"ca_bundle holds no certificates in PEM form: {error}") from error
    return text


class HTTPSeparateTaskStaging(SeparateTaskStaging):
    """Fetches http and https URLs on the submit side, for executors that share its file system. In the defaults.

    Args:
        ca_bundle: Certificates to trust beside the system's: a file, or the PEM text itself.
        headers: Headers sent with each request, such as Authorization.
        retry: How often and how long to try.
        cache: What to keep beside the files of one working directory; None keeps nothing.
        threads: Files fetched at once.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    def __init__(
        self,
        *,
        ca_bundle: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        cache: CachePolicy | None = DEFAULT_CACHE,
        threads: int = 8,
    ) -> None:
        super().__init__(make_mover(ca_bundle, headers, retry, cache), threads=threads, name="http")
        shown = without_values(headers)
        self._call = call_of(self, ca_bundle=ca_bundle, headers=shown, retry=retry, cache=cache, threads=threads)

    def __repr__(self) -> str:
        return self._call


class HTTPInTaskStaging(InTaskStaging):
    """Fetches http and https URLs on the node, within the task. Needs flow-staging installed there.

    The certificates of ``ca_bundle`` and the headers travel with the task. Options as of
    ``HTTPSeparateTaskStaging``.
    """

    def __init__(
        self,
        *,
        ca_bundle: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        cache: CachePolicy | None = DEFAULT_CACHE,
    ) -> None:
        super().__init__(make_mover(ca_bundle, headers, retry, cache))
        self._call = call_of(self, ca_bundle=ca_bundle, headers=without_values(headers), retry=retry, cache=cache)

    def __repr__(self) -> str:
        return self._call
