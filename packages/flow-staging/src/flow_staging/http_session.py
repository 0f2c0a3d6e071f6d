"""HTTP sessions: connections with web servers kept from file to file, one pool a server for all threads.

Those without TLS, proxy and body are the work of ``http_direct``, all others urllib3's.

What makes an answer belong to one URL alone (its login, its cookies, the headers of the method) goes with each request;
of a connection nothing is kept but the connection.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from flow_core.files import masked
from flow_staging.http_cookies import Cookies
from flow_staging.http_environment import proxy_for, trusted
from flow_staging.http_headers import HostHeaders, default_port, same_server, server_of
from flow_staging.http_login import basic, login_of_netrc
from flow_staging.transfer.answer_head import Head
from flow_staging.transfer.failures import PermanentTransferError, TransientTransferError
from flow_staging.transfer.sockets import of_kept_connection, watching

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager, Retry, Timeout
    from urllib3.util import Url

    from flow_staging.http_direct import DirectAnswer, DirectPool, PlainAnswer

    Answer = BaseHTTPResponse | DirectAnswer | PlainAnswer

_KEPT = 32  # connections with one server
_SERVERS = 64  # pools at most; the oldest one is closed for a further server
_MOST_REDIRECTS = 30  # as many as the library requests follows; more is a circle
_DRAINED = 64 << 10  # bytes; reading a longer body that is not needed costs more than a new connection
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ORDINARY = re.compile(r"http://([a-z0-9][a-z0-9.-]*)(?::([0-9]{1,4}|[1-5][0-9]{4}))?(/[A-Za-z0-9_/.-]*)")
_NO_HOST = re.compile(r"[\s\x00-\x1f\x7f]")

_Key = tuple[str, str, int | None, bool]
"""Scheme, host and port of a server, and whether something is sent."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request of a file, to be fetched or sent.

    Attributes:
        url: The file.
        headers: The user's headers, each for some servers.
        conditions: Our own, which replace the user's and go along to other servers.
        connect_s: Longest wait for a connection.
        read_s: Longest silence.
        downgrade: Follow redirects from https to plain http, without any secret.
        method: GET, HEAD or PUT.
        body: Begins what is sent, from its first byte; None for nothing.
    """

    url: str
    headers: HostHeaders
    conditions: Mapping[str, str]
    connect_s: float
    read_s: float
    downgrade: bool = False
    method: str = "GET"
    body: Callable[[], Iterator[bytes]] | None = None

    @property
    def follows(self) -> frozenset[int]:
        """The redirects that may be followed: those that may turn a PUT into a GET are not."""
        return frozenset({307, 308}) if self.method == "PUT" else _REDIRECTS


class HttpSessions:
    """The pools of connections of one process, for one set of trusted certificates. Any thread.

    Proxies, ``no_proxy`` and certificates are taken from the environment as it is when a server is asked for the first
    time since ``close``.
    """

    def __init__(self, ca: str | None) -> None:
        """Take certificates to trust beside the others, as PEM text."""
        self._ca = ca
        self._lock = threading.Lock()
        self._pools: dict[_Key, HTTPConnectionPool | DirectPool] = {}
        self._managers: dict[str, PoolManager] = {}
        self._trust: ssl.SSLContext | None = None

    def get(self, request: Request, cookies: Cookies) -> tuple[Answer, str]:
        """Ask for a file, where redirects lead too; give the answer with its body unread, and where they led.

        That is the path, empty for that of the URL. An ETag names a version of what it came from only: two files may
        have the same. Hosts and queries do not count, which are those of mirrors and signatures.

        Cookies are those of this file: taken from answers, sent with what follows.

        Raises:
            TransientTransferError: no answer came.
            PermanentTransferError: the URL names no server that can be asked.
        """
        at, first = request.url, parsed(request.url)
        here, login, clear = first, None, False
        for _ in range(_MOST_REDIRECTS + 1):
            theirs = request.headers.of(here, secret=not clear)
            # The login of the URL goes along to the same server only: another one could note it.
            login = _login(here) or (login if login and same_server(server_of(first), server_of(here)) else None)
            sent = None if clear else login or _of_netrc(theirs, here)
            headers = _merged(theirs, request.conditions, sent)
            if not clear:
                cookies.add_to(headers, here)
            answer = self._ask(here, headers, request)
            location = answer.headers.get("Location") if answer.status in request.follows else None
            cookies.take(answer, here)
            if location is None:
                return answer, "" if (here.path or "/") == (first.path or "/") else here.path or "/"
            let_go(answer)
            at = urljoin(at, _text(location))
            before, here = here, parsed(at)
            if (before.scheme, here.scheme) == ("https", "http"):
                # From here on without secrets, also where a later redirect leads back to https.
                clear = True
                if not request.downgrade:
                    raise PermanentTransferError(_downgraded(here))
        raise PermanentTransferError(f"the server sends us in a circle: more than {_MOST_REDIRECTS} redirects")

    def close(self) -> None:
        """Close the idle connections now, the others when their answers have been read. May be used again."""
        with self._lock:
            pools, self._pools = self._pools, {}
            self._managers = {}
            self._trust = None
        for pool in pools.values():
            pool.close()

    # -- asking

    def _ask(self, url: Url, headers: dict[str, str], request: Request) -> Answer:
        """Ask one server once; once more if a kept connection has broken before there was an answer."""
        key = (url.scheme or "", url.host or "", url.port, request.body is not None)
        # Servers close kept connections whenever they like: the first failure of one is no try of the transfer.
        for again in (True, False):
            pool = self._pool(key, url)
            try:
                if hasattr(pool, "ask"):
                    return pool.ask(request.method, url.request_uri, headers, request.connect_s, request.read_s)
                return _sent(pool, url, headers, request)
            except Exception as error:
                if not (again and of_kept_connection(error)):
                    raise _failure(error) from error
                self._renew(key, pool)
        raise AssertionError("unreachable")

    def _pool(self, key: _Key, url: Url) -> HTTPConnectionPool | DirectPool:
        # Without the lock first: dicts are safe to read, and each file asks.
        pool = self._pools.get(key)
        if pool is not None:
            return pool
        with self._lock:
            if key not in self._pools:
                # Closing lets connections that are in use serve to their end.
                if len(self._pools) >= _SERVERS:
                    self._pools.pop(next(iter(self._pools))).close()
                self._pools[key] = self._new_pool(url, sends=key[-1])
            return self._pools[key]

    def _renew(self, key: _Key, pool: HTTPConnectionPool | DirectPool) -> None:
        """Put a new pool in the place of one whose connections have become old; others may have done so already."""
        with self._lock:
            if self._pools.get(key) is pool:
                del self._pools[key]
                self._managers = {}
        pool.close()

    def _new_pool(self, url: Url, sends: bool) -> HTTPConnectionPool | DirectPool:
        assert url.scheme is not None
        proxy = proxy_for(url)
        # Most small files: urllib3 takes five times as much CPU for a request as a kept socket and http.client.
        if not proxy and not sends and url.scheme == "http" and url.host and "%" not in url.host:
            from flow_staging.http_direct import DirectPool  # loads what ftp need not

            return DirectPool(url.host, default_port("http") if url.port is None else url.port, _KEPT)
        manager = self._managers.get(proxy)
        if manager is None:
            manager = self._managers[proxy] = self._manager(proxy)
            # Connections that register with the transfer's handle, so that a stop can cut them.
            manager.pool_classes_by_scheme = watching(manager.pool_classes_by_scheme)
        if url.scheme == "https":
            manager.connection_pool_kw["ssl_context"] = self._trusted()
        return manager.connection_from_host(url.host, url.port, url.scheme)

    def _manager(self, proxy: str) -> PoolManager:
        import urllib3

        if not proxy:
            return urllib3.PoolManager(num_pools=2 * _SERVERS, maxsize=_KEPT)
        parts = urllib3.util.parse_url(proxy)
        if (parts.scheme or "").startswith("socks"):
            try:
                from urllib3.contrib.socks import SOCKSProxyManager
            except ImportError:
                raise PermanentTransferError(
                    f"for the proxy {parts.scheme}://{parts.netloc} install urllib3[socks]"
                ) from None
            return SOCKSProxyManager(proxy, num_pools=2 * _SERVERS, maxsize=_KEPT)
        headers = {} if parts.auth is None else {"Proxy-Authorization": basic(parts.auth)}
        context = self._trusted() if parts.scheme == "https" else None
        # The login goes as a header to the proxy, and stays out of the address, which errors show.
        address = proxy if parts.auth is None else proxy.replace(f"{parts.auth}@", "", 1)
        return urllib3.ProxyManager(
            address, proxy_headers=headers, proxy_ssl_context=context, num_pools=2 * _SERVERS, maxsize=_KEPT
        )

    def _trusted(self) -> ssl.SSLContext:
        if self._trust is None:
            self._trust = trusted(self._ca)
        return self._trust


def is_ordinary(url: str) -> bool:
    """Return whether a URL is one of plain http without anything odd, as most are: it surely names a file."""
    return _ORDINARY.fullmatch(url) is not None and "/." not in url


def parsed(url: str) -> Url:
    """Return the parts of a URL of the web; raises PermanentTransferError for what can name no file of a server."""
    from urllib3.exceptions import LocationParseError
    from urllib3.util import Url, parse_url

    ordinary = _ORDINARY.fullmatch(url)
    if ordinary is not None and "/." not in url:  # what parse_url makes of it, for a tenth of the time
        host, port, path = ordinary.groups()
        return Url("http", None, host, None if port is None else int(port), path)
    try:
        parts = parse_url(url)
    except (LocationParseError, ValueError) as error:
        said = reason_of(error).replace(url, masked(url))  # it may hold the password
        raise PermanentTransferError(f"not a URL that can be fetched: {said}") from error
    if parts.scheme not in ("http", "https"):
        raise PermanentTransferError(f"not a URL that can be fetched: {parts.scheme or 'no'} scheme is not of the web")
    if not (parts.host or "").strip("[]"):
        raise PermanentTransferError("not a URL that can be fetched: it names no host")
    if parts.host is not None and _NO_HOST.search(parts.host):  # urllib3 2.5 takes them
        raise PermanentTransferError(f"not a URL that can be fetched: {parts.host!r} is no name of a host")
    return parts


_sessions: dict[str | None, HttpSessions] = {}


_loading = threading.Lock()


def sessions(ca: str | None) -> HttpSessions:
    """Return the sessions of this process for some certificates (PEM text); made where there are none."""
    found = _sessions.get(ca)
    if found is not None:
        return found
    with _loading:  # threads that import modules of one package at once may get a deadlock error
        import urllib3.util.connection  # noqa: F401  (for all that needs it later)
    return _sessions.setdefault(ca, HttpSessions(ca))


def _forget() -> None:
    """Leave the parent's connections to it: two processes cannot read from one."""
    global _loading
    _loading = threading.Lock()
    _sessions.clear()


os.register_at_fork(after_in_child=_forget)


def headers_of(answer: Answer) -> dict[str, str]:
    """Return the headers of an answer by their names in small letters, several of one name as one with commas."""
    if type(answer.headers) is Head:
        return answer.headers.merged()
    merged: dict[str, str] = {}
    for name, value in answer.headers.items():
        small = name.lower()
        merged[small] = f"{merged[small]}, {value}" if small in merged else value
    return merged


def let_go(answer: Answer) -> None:
    """Release the connection of an answer that is not read: kept if the rest is short, else closed. Never raises."""
    with contextlib.suppress(Exception):
        length = answer.headers.get("Content-Length", "")
        # A drained connection is kept for the next file.
        if answer.status == 304 or (length.isdigit() and int(length) <= _DRAINED):
            answer.drain_conn()
    with contextlib.suppress(Exception):
        answer.close()


def reason_of(error: BaseException) -> str:
    """Return the innermost reason that says something: outer ones repeat URLs with their passwords."""
    import http.client

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


# -- one request


@lru_cache(maxsize=16)
def _timeout(connect_s: float, read_s: float) -> Timeout:
    import urllib3

    return urllib3.Timeout(connect=connect_s, read=read_s)


@lru_cache(maxsize=1)
def _never_again() -> Retry:
    import urllib3

    # Tries and redirects are decided here: urllib3's own would go to other servers with our headers.
    return urllib3.Retry(total=False, redirect=0, raise_on_redirect=False)


def _sent(pool: HTTPConnectionPool, url: Url, headers: dict[str, str], request: Request) -> BaseHTTPResponse:
    target = url.request_uri
    if pool.proxy is not None and url.scheme == "http":
        # A proxy needs the whole URL, without the login, which goes as a header.
        target = url._replace(auth=None, fragment=None).url
    return pool.urlopen(
        request.method,
        target,
        body=None if request.body is None else request.body(),
        headers=headers,
        retries=_never_again(),  # tries are counted by the transfer
        redirect=False,
        assert_same_host=False,
        timeout=_timeout(request.connect_s, request.read_s),
        preload_content=False,
        decode_content=False,
    )


def _failure(error: Exception) -> TransientTransferError | PermanentTransferError:
    import http.client

    from urllib3 import exceptions as urllib3

    if isinstance(error, (TransientTransferError, PermanentTransferError)):
        return error
    reason = reason_of(error)
    # Trying again does not make a certificate trusted; other TLS errors may be a broken connection.
    if isinstance(error, urllib3.SSLError) and "certificate" in reason.lower():
        return PermanentTransferError(
            f"the server's certificate is not trusted: {reason}; give the CA's certificate as ca_bundle="
        )
    if isinstance(error, urllib3.ProxySchemeUnknown):
        return PermanentTransferError(f"the proxy cannot be used: {reason}")
    if isinstance(error, (urllib3.LocationValueError, UnicodeError)):
        return PermanentTransferError(f"not a URL that can be fetched: {reason}")
    if isinstance(error, ValueError) and "header" in reason.lower():
        return PermanentTransferError(f"headers=: {reason}")
    if isinstance(error, (urllib3.HTTPError, http.client.HTTPException, OSError)):
        return TransientTransferError(f"no answer: {reason}")
    raise error


def broken(error: Exception) -> Exception:
    """Return the TransientTransferError for an error in the midst of an answer; any other error as it is."""
    import http.client

    from urllib3.exceptions import HTTPError

    if isinstance(error, (HTTPError, http.client.HTTPException, OSError)):
        return TransientTransferError(f"the connection broke: {reason_of(error)}")
    return error


def _merged(theirs: dict[str, str], ours: Mapping[str, str], login: str | None) -> dict[str, str]:
    """Put headers together; names mean the same in capitals."""
    if theirs:
        names = {name.lower() for name in ours} | ({"authorization"} if login else set())
        theirs = {name: value for name, value in theirs.items() if name.lower() not in names}
    headers = {**theirs, **ours}
    if login is not None:
        headers["Authorization"] = login
    return headers


def _downgraded(url: Url) -> str:
    return (
        f"the server sends us from https to plain http ({url.scheme}://{url.host}), where others on the way can read "
        "and change the file; the option downgrade=True of the staging method follows it"
    )


def _login(url: Url) -> str | None:
    """Return the login of a URL as a header's value."""
    return None if not url.auth else basic(url.auth)


def _of_netrc(theirs: Mapping[str, str], url: Url) -> str | None:
    if any(name.lower() == "authorization" for name in theirs):
        return None
    return login_of_netrc((url.host or "").strip("[]"))


def _text(location: str) -> str:
    """Return where a redirect leads: servers write UTF-8, which http.client reads as Latin-1."""
    with contextlib.suppress(UnicodeError):
        return location.encode("latin-1").decode()
    return location
