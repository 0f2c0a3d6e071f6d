"""Files named by path or URL, and where a task finds them."""

from __future__ import annotations

import os
import re

from flow_core.errors import ConfigurationError

_CHUNK = 1 << 20
_PASSWORD = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://[^/?#@:]*):[^/?#]*@")
_SECRETS = r"[^=&#]*(?:signature|token|passw(?:or)?d|secret|credential|api[_-]?key)|sig"
_SIGNATURE = re.compile(rf"([?&](?:{_SECRETS})=)[^&#]+", re.IGNORECASE)


def masked(url: str) -> str:
    """Return a URL as logs, events and messages show it: without its password and the signatures in its query.

    What is no URL, a path say, is returned as it is.
    """
    if "://" not in url or not url[0].isalpha():
        return url
    return _SIGNATURE.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def _check_host(url: str, host: str, path: str) -> None:
    """Refuse a ``file:`` URL of a host: ``file://data/x`` names the host ``data``, hardly what was meant."""
    if host not in ("", "localhost"):
        raise ConfigurationError(
            f"{url!r} names a file of the host {host!r}, and file: URLs are read on the machine at hand: write "
            f"'file:///{host}{path}' for the path /{host}{path}, or a URL of a method that reaches that host"
        )


class File:
    """A file that apps read or write, named by a local path or a URL.

    ``str(file)``, ``os.fspath(file)`` and ``file.filepath`` give the path at which code can open it *here*: for a
    local file its path; for a remote one the place where staging put it. A File never changes on the submit side:
    tasks get copies with their own ``local_path``.

    Attributes:
        url: The name as given. ``repr`` and messages show it without its password; see ``masked``.
        scheme: ``file``, ``http``, ``https``, ``ftp``, ``globus``, ``s3``, ``zip`` ...; ``file`` where none is given.
        netloc: Host (and port, user) part of the URL; the endpoint for Globus.
        path: Path part of the URL.
        filename: Last component of the path.
        local_path: Where the file is on the machine at hand, None until staging has put it somewhere.
        directory: What a relative path is relative to, wherever it is used: the current directory of the call that it
            was given to. Empty until then.
    """

    __slots__ = ("directory", "filename", "local_path", "netloc", "path", "scheme", "url")

    def __init__(self, url: str | os.PathLike[str], *, local_path: str | os.PathLike[str] | None = None) -> None:
        """Name a file.

        Raises:
            ConfigurationError: the name is empty, not text, or a ``file:`` URL of another host or without an absolute
                path.
        """
        name = os.fspath(url) if isinstance(url, os.PathLike) else url
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"File() needs a path or URL as text, not {url!r}")
        self.url = name
        scheme, separator, _rest = name.partition("://")
        if separator and scheme.replace("+", "").replace("-", "").isalnum():
            from urllib.parse import unquote, urlsplit  # most files are plain paths

            parts = urlsplit(name)
            self.scheme = parts.scheme.lower()
            self.netloc = parts.netloc
            self.path = parts.path
            if self.scheme == "file":
                self.path = unquote(parts.path)
                _check_host(name, parts.netloc, parts.path)
        elif name.startswith("file:"):
            from urllib.parse import unquote

            self.scheme, self.netloc, self.path = "file", "", unquote(name[len("file:") :])
        elif name.startswith("zip:"):
            self.scheme, self.netloc, self.path = "zip", "", name[len("zip:") :]
        else:
            self.scheme, self.netloc, self.path = "file", "", name
        if self.scheme == "file" and name.startswith("file:") and not self.path.startswith("/"):
            raise ConfigurationError(f"{name!r}: a file: URL needs an absolute path; give a plain path instead")
        self.filename = os.path.basename(self.path.rstrip("/"))
        self.local_path = None if local_path is None else os.fspath(local_path)
        self.directory = ""

    @property
    def filepath(self) -> str:
        """The path at which the file can be opened here: the path as given, or absolute if that leads elsewhere by now.

        Raises:
            ValueError: the file is remote and was not staged to this place.
        """
        if self.local_path is not None:
            return self.local_path
        if self.scheme == "file":
            return self.path if not self.directory or _is_current(self.directory) else self.place
        raise ValueError(
            f"{masked(self.url)} has no local path here: pass the File to an app through an argument, inputs= or "
            "outputs="
        )

    @property
    def place(self) -> str:
        """The path, absolute if the directory that it is relative to is known. Raises ValueError as ``filepath``."""
        if self.local_path is None and self.scheme == "file":
            return os.path.join(self.directory, self.path)
        return self.filepath

    def relative_to(self, directory: str) -> File:
        """Return the same file, its path, if relative and not tied to a directory yet, relative to this one."""
        if self.directory or self.local_path is not None or self.scheme != "file" or os.path.isabs(self.path):
            return self
        twin = File(self.url)
        twin.directory = directory
        return twin

    def clean_copy(self) -> File:
        """Return the same file without a local path."""
        return File(self.url)

    def at(self, local_path: str | os.PathLike[str]) -> File:
        """Return the same file as found at a local path."""
        return File(self.url, local_path=local_path)

    def content_digest(self) -> str:
        """Return the BLAKE2b-128 digest of the content, hexadecimal. Reads the whole file; raises OSError."""
        from hashlib import blake2b  # loads OpenSSL, which workers need not

        digest = blake2b(digest_size=16)
        with open(self.filepath, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def __fspath__(self) -> str:
        return self.filepath

    def __str__(self) -> str:
        return self.filepath

    def __repr__(self) -> str:
        where = "" if self.local_path is None else f", local_path={self.local_path!r}"
        return f"File({masked(self.url)!r}{where})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, File):
            return NotImplemented
        return self.url == other.url and self.local_path == other.local_path

    def __hash__(self) -> int:
        return hash((self.url, self.local_path))

    def __getstate__(self) -> tuple[str, str | None] | tuple[str, str | None, str]:
        return (self.url, self.local_path, self.directory) if self.directory else (self.url, self.local_path)

    def __setstate__(self, state: tuple[str, str | None] | tuple[str, str | None, str]) -> None:
        File.__init__(self, state[0], local_path=state[1])
        if len(state) == 3:
            self.directory = state[2]


def _is_current(directory: str) -> bool:
    try:
        return os.getcwd() == directory
    except OSError:
        return False  # the current one was removed
