"""Headers of the user, each for the web servers that it is meant for: they may be secrets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from flow_core.errors import ConfigurationError

if TYPE_CHECKING:
    from urllib3.util import Url

ANYWHERE = "*"
_HARMLESS = frozenset({"accept", "accept-language", "user-agent"})
"""Headers that may go to any server; any other may be a secret for one."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORM = 'headers={"https://data.example.org": {"Authorization": "..."}}'

HeadersByPrefix = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Prefix:
    """Prefix of URLs that headers are for: a server, or a path on it with all that is below it.

    Attributes:
        scheme: http, which https of the same server counts as, or https.
        host: The server, in small letters.
        port: Its port.
        path: The path, without a slash at its end; empty for all of the server.
    """

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, text: str) -> Prefix:
        """Take a prefix apart; raises ConfigurationError."""
        try:
            parts = urlsplit(text)
            port, host = parts.port, parts.hostname or ""
        except ValueError as error:
            raise ConfigurationError(f"headers={{{text!r}: ...}} names no server: {error}") from error
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or "@" in parts.netloc:
            raise ConfigurationError(
                f"headers={{{text!r}: ...}}: headers are for a server, or for what is below a path on it; name it "
                f"as in {_FORM}, or {ANYWHERE!r} for all servers, to which {', '.join(sorted(_HARMLESS))} may go"
            )
        return cls(parts.scheme, host, port or default_port(parts.scheme), parts.path.rstrip("/"))

    def matches(self, url: Url) -> bool:
        """Return whether a URL is of that server and below that path."""
        if not same_server((self.scheme, self.host, self.port), server_of(url)):
            return False
        if not self.path:
            return True
        path = url.path or "/"
        if ".." in unquote(path).split("/"):  # a server may take that for another path
            return False
        return path == self.path or path.startswith(f"{self.path}/")


@dataclass(frozen=True, slots=True)
class HostHeaders:
    """The headers of a method: for each prefix of URLs some, and some for all servers. Plain picklable data.

    Attributes:
        bound: Prefixes, each with names and values; the shorter paths come first.
        anywhere: Names and values for every server; none of them is a secret.
    """

    bound: tuple[tuple[Prefix, tuple[tuple[str, str], ...]], ...] = ()
    anywhere: tuple[tuple[str, str], ...] = ()

    @classmethod
    def made(cls, headers: HeadersByPrefix | None) -> HostHeaders:
        """Check what the user gave.

        Raises:
            ConfigurationError: it is wrong; the message shows how it is meant.
        """
        bound: list[tuple[Prefix, tuple[tuple[str, str], ...]]] = []
        anywhere: tuple[tuple[str, str], ...] = ()
        for prefix, given in (headers or {}).items():
            if not isinstance(given, Mapping):
                raise ConfigurationError(
                    f"headers={{{prefix!r}: ...}} says not for which server: headers may be secrets, and go to servers "
                    f"that are named only. Write {_FORM}"
                )
            pairs = tuple(_checked(prefix, name, value) for name, value in given.items())
            if prefix == ANYWHERE:
                anywhere = _only_harmless(pairs)
            else:
                bound.append((Prefix.of(prefix), pairs))
        # So a longer path, which is more exact, overrides a shorter one.
        bound.sort(key=lambda one: len(one[0].path))
        return cls(tuple(bound), anywhere)

    def of(self, url: Url, *, secret: bool = True) -> dict[str, str]:
        """Return the headers for a URL, those of longer paths before those of shorter ones.

        Args:
            url: Where they are to go.
            secret: Those that are for certain servers, too.
        """
        found = {name.lower(): (name, value) for name, value in self.anywhere}
        if secret:
            for prefix, pairs in self.bound:
                if prefix.matches(url):
                    found.update((name.lower(), (name, value)) for name, value in pairs)
        return dict(found.values())

    @property
    def digest(self) -> str:
        """A name for them all that says nothing of their values, empty if there are none."""
        if not self.bound and not self.anywhere:
            return ""
        return hashlib.blake2b(repr((self.bound, self.anywhere)).encode(), digest_size=16).hexdigest()


def _checked(prefix: str, name: object, value: object) -> tuple[str, str]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"headers={{{prefix!r}: ...}}: {name!r} is not the name of a header")
    if not isinstance(value, str) or re.search(r"[\r\n\0]", value):
        raise ConfigurationError(
            f"headers={{{prefix!r}: {{{name!r}: ...}}}}: its value must be a text without line breaks"
        )
    return name, value


def _only_harmless(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    for name, _ in pairs:
        if name.lower() not in _HARMLESS:
            raise ConfigurationError(
                f"headers={{{ANYWHERE!r}: {{{name!r}: ...}}}}: only {', '.join(sorted(_HARMLESS))} may go to all "
                f"servers; name those that {name} is for, as in {_FORM}"
            )
    return pairs


Server = tuple[str, str, int]


def server_of(url: Url) -> Server:
    """Return scheme, host and port of a URL."""
    scheme = url.scheme or ""
    return scheme, (url.host or "").strip("[]").lower(), url.port or default_port(scheme)


def same_server(first: Server, other: Server) -> bool:
    """Return whether secrets of one server may go to another: the same one, or the same by TLS where it was without."""
    if first[1] != other[1]:
        return False
    if (first[0], other[0]) == ("http", "https"):
        return (first[2], other[2]) == (80, 443) or first[2] == other[2]
    return first == other


def default_port(scheme: str) -> int:
    """Return the port of a scheme."""
    return 443 if scheme == "https" else 80
