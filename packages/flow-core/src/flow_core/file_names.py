"""Names of files: schemes, hosts and paths, which characters are quoted where, and which names are slips."""

from __future__ import annotations

import re

from flow_core.errors import ConfigurationError

REFRESHES = ("run", "task", "never")
"""When the other side of a file is asked whether it has another version; see the caches of staging methods."""

_HEX_DIGITS = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32}

_AS_WRITTEN = frozenset(
    (
        *("abfs", "abfss", "az", "dav", "gcs", "gs", "hdfs", "local", "memory", "oci", "s3", "sftp", "smb", "ssh"),
        *("webdav", "webhdfs"),
    )
)
"""Schemes in whose names nothing is quoted."""

_WHOLE = _AS_WRITTEN | frozenset(("file", "ftp", "ftpes", "ftps", "globus", "zip"))
"""Schemes without queries and fragments: there ``?`` and ``#`` are characters of the name like any other."""

_VERSION = re.compile(r"\?versionId=[^/?#&=]*$")
_PASSWORD = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://[^/?#@:]*):[^/]*@")
# Parameters of signed URLs (S3, Azure, Google) and of services with keys: whoever has the URL has the file.
_SECRETS = r"[^=&#]*(?:signature|token|passw(?:or)?d|secret|credential|api[_-]?key)|sig"
_SIGNATURE = re.compile(rf"([?&](?:{_SECRETS})=)[^&#]+", re.IGNORECASE)

# Slips that name a file here all the same: a directory called "~" or "C:" would be made without a word.
_HOME = re.compile(r"~[^/]*/|~$")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_NO_SLASHES = re.compile(r"(https?|ftp|ftps|ftpes|s3|globus):(?!//)", re.IGNORECASE)
_ODD = re.compile(rf"{_HOME.pattern}|{_WINDOWS.pattern}|(?i:{_NO_SLASHES.pattern})|[^\0]*\0", re.DOTALL)


def masked(url: str) -> str:
    """Return a URL as logs, events and messages show it: without its password and the signatures in its query.

    What is no URL, a path say, is returned as it is.
    """
    if "://" not in url or not url[0].isalpha():
        return url
    return _SIGNATURE.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def parts_of(name: str) -> tuple[str, str, str]:
    """Return scheme, host part and path that a name says, ``file`` for a plain path. Never raises.

    Paths are as they are written, but for ``file:`` URLs, whose path is the one on disk.
    """
    scheme, separator, rest = name.partition("://")
    if separator and scheme.replace("+", "").replace("-", "").isalnum():
        scheme = scheme.lower()
        # A query or fragment is not part of the file's name; in schemes without them ? and # are.
        if scheme not in _WHOLE:
            rest = re.split(r"[?#]", rest, maxsplit=1)[0]
        host, slash, path = rest.partition("/")
        return scheme, host, _decoded(slash + path) if scheme == "file" else slash + path
    kind = name[:5].lower()
    if kind == "file:":
        return "file", "", _decoded(name[5:])
    if kind.startswith("zip:"):
        return "zip", "", name[4:]
    return "file", "", name


def quoted(scheme: str, name: str) -> str:
    """Return the name of a file as URLs of a scheme have it: what they would decode is quoted, all else is as it is."""
    if scheme == "file" or scheme in _AS_WRITTEN:
        return name
    # First, since the quotes of other characters contain it.
    name = name.replace("%", "%25")
    if scheme not in _WHOLE:
        return name.replace("?", "%3F").replace("#", "%23")
    return name.replace("!", "%21") if scheme == "zip" else name


def last_name(name: str) -> str:
    """Return the last component of a file's path, as a file of that name is called on disk. Never raises.

    What is quoted in the URL is decoded where that gives a name that can be shown; ``a%2Fb`` and ``%0A`` stay.
    """
    scheme, _, path = parts_of(name)
    return last_of(scheme, path)


def last_of(scheme: str, path: str) -> str:
    """Return the same of a name that was taken apart."""
    last = path.rstrip("/").rpartition("/")[2]
    if scheme == "s3":
        return _VERSION.sub("", last)
    if scheme == "file" or scheme in _AS_WRITTEN or "%" not in last:
        return last
    # A decoded name with a slash or a control character would lead elsewhere, or fool a terminal.
    decoded = _decoded(last)
    return decoded if decoded.isprintable() and "/" not in decoded and decoded not in (".", "..") else last


def digest_text(digest: str | None, sha256: str | None, what: str) -> str | None:
    """Return the digest that content is to have as ``algorithm:hex`` in lower case; None if none is given.

    Args:
        digest: It as text of that form.
        sha256: A SHA-256 digest, hexadecimal.
        what: Name of the file, for messages.

    Raises:
        ConfigurationError: it is of another form, or both are given.
    """
    if digest is None and sha256 is None:
        return None
    given = f"digest={digest!r}" if sha256 is None else f"sha256={sha256!r}"
    if digest is not None and sha256 is not None:
        raise ConfigurationError(f"{what}: give sha256= or digest=, not both")
    text = digest if sha256 is None else f"sha256:{sha256}" if isinstance(sha256, str) else sha256
    algorithm, _, value = text.lower().partition(":") if isinstance(text, str) else ("", "", "")
    if len(value) != _HEX_DIGITS.get(algorithm) or not re.fullmatch("[0-9a-f]+", value):
        raise ConfigurationError(
            f"{what}: {given} is no digest: give sha256= 64 hexadecimal digits, or digest='algorithm:digits' with one "
            f"of {', '.join(f'{name} ({digits} digits)' for name, digits in _HEX_DIGITS.items())}"
        )
    return f"{algorithm}:{value}"


def is_version(url: str) -> bool:
    """Return whether an ``s3:`` URL names a version of an object at its end."""
    return _VERSION.search(url) is not None


def is_odd(path: str) -> bool:
    """Return whether ``check_path`` would refuse a path; asked first, since what it is to say takes longer to make."""
    return _ODD.match(path) is not None


def check_path(path: str, what: str) -> None:
    """Refuse paths that mean something elsewhere, in a shell or on Windows, and would be odd names here.

    Args:
        path: The path as given.
        what: How it was given, for the message.

    Raises:
        ConfigurationError: it is one; the message says what to write instead.
    """
    if "\0" in path:
        raise ConfigurationError(f"{what}: no file can have a zero byte in its name")
    if _HOME.match(path):
        raise ConfigurationError(
            f"{what}: '~' is not expanded: give os.path.expanduser({path!r}), or {'./' + path!r} for that very name"
        )
    if _WINDOWS.match(path):
        raise ConfigurationError(
            f"{what}: this is a path of Windows, which leads nowhere here: give the path that the file has on this "
            f"machine, or {'./' + path!r} for that very name"
        )
    slip = _NO_SLASHES.match(path)
    if slip:
        url = f"{slip[0]}//{path[slip.end() :].lstrip('/')}"
        raise ConfigurationError(f"{what}: write {masked(url)!r} for the URL, or {'./' + path!r} for that very name")


def check_url(name: str, host: str, path: str) -> None:
    """Refuse ``file:`` URLs of a host (``file://data/x`` names the host ``data``), and those without absolute path.

    Raises:
        ConfigurationError: it is one; the message says what to write instead.
    """
    if host not in ("", "localhost"):
        raise ConfigurationError(
            f"{name!r} names a file of the host {host!r}, and file: URLs are read on the machine at hand: write "
            f"'file:///{host}{path}' for the path /{host}{path}, or a URL of a method that reaches that host"
        )
    if not path.startswith("/"):
        raise ConfigurationError(f"{name!r}: a file: URL needs an absolute path; give a plain path instead")
    if "\0" in path or _WINDOWS.match(path[1:]):
        check_path(path[1:], f"File({name!r})")


def _decoded(quoted: str) -> str:
    if "%" not in quoted:
        return quoted
    from urllib.parse import unquote  # most files are plain paths

    return unquote(quoted, errors="surrogateescape")
