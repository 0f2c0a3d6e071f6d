"""Files: named by path or URL, with the place where a task finds them."""

from __future__ import annotations

import os
import re
from typing import ClassVar

from flow_core.errors import ConfigurationError
from flow_core.file_names import (
    REFRESHES,
    check_path,
    check_url,
    digest_text,
    is_odd,
    is_version,
    last_name,
    last_of,
    masked,
    parts_of,
    quoted,
)
from flow_core.folders import plain_file
from flow_core.option_names import known_options

__all__ = ["FILE_TYPES", "REFRESHES", "Directory", "File", "Glob", "last_name", "masked"]

_CHUNK = 1 << 20  # bytes read at once for a digest; only the magnitude matters
_MAGIC = re.compile(r"[*?\[]")


class File:
    """A file that apps read or write, named by a local path or a URL.

    ``os.fspath(file)`` and ``file.filepath`` give the path at which code can open it *here*: for a local file its path;
    for a remote one the place where staging put it. ``str(file)`` gives that too, or else the URL without its password.
    A File never changes on the submit side: tasks get copies with their own ``local_path``.

    Attributes:
        kind: ``"file"``, or what a subclass of Flow's names: ``"directory"``, ``"pattern"``.
        url: The name as given. ``repr`` and messages show it without its password; see ``masked``.
        scheme: ``file``, ``http``, ``https``, ``ftp``, ``globus``, ``s3``, ``zip`` ...; ``file`` where none is given.
        netloc: Host (and port, user) part of the URL; the endpoint for Globus.
        path: Path part of the URL as it is written; of a ``file:`` URL the path on disk.
        filename: Last component of the path, as a file on disk is called: ``a b.txt`` of ``http://host/a%20b.txt``.
        local_path: Path of the file on the machine at hand, None until staging has put it somewhere.
        update: As an output: whether the task may find an older one there, and leave or change it.
        refresh: When the other side is asked for another version than the one kept: once a run (``"run"``), once a task
            (``"task"``) or only if none is kept (``"never"``); None as the staging method says.
        digest: What the content must have, as ``sha256:`` and hexadecimal digits; None if that is not said. Files with
            different ones are different.
        directory: What a relative path is relative to, wherever it is used: the current directory of the call that it
            was given to. Empty until then.
    """

    __slots__ = (
        "digest", "directory", "filename", "local_path", "netloc", "path", "refresh", "scheme", "update", "url",
    )  # fmt: skip
    kind: ClassVar[str] = "file"
    _shown: ClassVar[str] = "File"

    @known_options
    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        local_path: str | os.PathLike[str] | None = None,
        update: bool = False,
        refresh: str | None = None,
        sha256: str | None = None,
        digest: str | None = None,
    ) -> None:
        """Name a file.

        Args:
            url: Its path or URL.
            local_path: Its path on the machine at hand, for files named by URL.
            update: As an output of a task: whether the task may find an older one there, and leave or change it.
                Otherwise what lies there before a try is moved aside, and put back if the try fails.
            refresh: When the other side is asked for another version, as the attribute says.
            sha256: The SHA-256 digest of the content, hexadecimal. An input of other content fails the task before
                its function runs, an output after it; either with WrongDigest.
            digest: The same as ``algorithm:digits``, of ``sha256``, ``sha512``, ``sha1`` or ``md5``.

        Raises:
            ConfigurationError: the name is empty, not text, a ``file:`` URL of another host or without an absolute
                path, or a path that is none here: ``~/a``, ``C:\\a``, ``http:/host/a``; or ``refresh`` is none of the
                words; or the digest is none.
        """
        name = os.fspath(url) if isinstance(url, os.PathLike) else url
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"File() needs a path or URL as text, not {url!r}")
        self.url = name
        self.scheme, self.netloc, self.path = parts_of(name)
        # A plain path, most often; of URLs only ``file:`` ones can be slips of this kind.
        if self.path is name:
            if is_odd(name):
                check_path(name, f"File({name!r})")
        elif self.scheme == "file":
            check_url(name, self.netloc, self.path)
        self.filename = last_of(self.scheme, self.path)
        self.local_path = None if local_path is None else os.fspath(local_path)
        if self.local_path is not None and is_odd(self.local_path):
            check_path(self.local_path, f"File({masked(name)!r}, local_path={self.local_path!r})")
        self.update = update
        if refresh is not None and refresh not in REFRESHES:
            raise ConfigurationError(f"File({masked(name)!r}, refresh={refresh!r}): give one of {', '.join(REFRESHES)}")
        if refresh is not None and self.scheme == "file":
            # Imported here: nodes load this module, and need no warnings.
            from flow_core.without_effect import warn_of

            warn_of(
                f"File({masked(name)!r})", [f"refresh={refresh!r} has no effect: a local file is looked at each time"]
            )
        self.refresh = refresh
        self.digest = None
        if sha256 is not None or digest is not None:
            self.digest = digest_text(digest, sha256, f"File({masked(name)!r})")
        self.directory = ""

    @property
    def filepath(self) -> str:
        """The path at which the file can be opened here: the path as given, or absolute if that leads elsewhere by now.

        Raises:
            ValueError: the file is remote and was not staged to this place.
        """
        if not self._is_here:
            raise ValueError(
                f"{masked(self.url)} has no local path here: pass the File to an app through an argument, inputs= or "
                "outputs="
            )
        # As it was given, as long as that leads to the file.
        return self.given if not self.directory or _is_current(self.directory) else self.place

    @property
    def place(self) -> str:
        """The path, absolute if the directory that it is relative to is known. Raises ValueError as ``filepath``."""
        return os.path.join(self.directory, self.given) if self._is_here else self.filepath

    @property
    def given(self) -> str:
        """The local path as it was given; of a remote file without one the path of its URL."""
        return self.path if self.local_path is None else self.local_path

    @property
    def _is_here(self) -> bool:
        return self.local_path is not None or self.scheme == "file"

    @property
    def is_loose(self) -> bool:
        """Whether the path is relative and not tied to a directory yet: it names another file in another directory.

        The path of a ``zip:`` URL, too, may be relative.
        """
        if self.directory:
            return False
        if self.local_path is not None or self.scheme == "file":
            return not os.path.isabs(self.given) or (self.scheme == "zip" and not self.path.startswith("/"))
        return self.scheme == "zip" and not self.path.startswith("/")

    def relative_to(self, directory: str) -> File:
        """Return the same file, its path, if relative and not tied to a directory yet, relative to this one."""
        if not self.is_loose:
            return self
        twin = self._twin(self.local_path)
        twin.directory = directory
        return twin

    def _twin(self, local_path: str | os.PathLike[str] | None) -> File:
        if type(self) is not File:
            return File(self.url, local_path=local_path, update=self.update, refresh=self.refresh, digest=self.digest)
        twin = File.__new__(File)  # the name is not taken apart again, for each task makes some of these
        twin.url, twin.scheme, twin.netloc, twin.path = self.url, self.scheme, self.netloc, self.path
        twin.filename, twin.update, twin.refresh, twin.digest = self.filename, self.update, self.refresh, self.digest
        twin.local_path = None if local_path is None else os.fspath(local_path)
        if twin.local_path is not None and is_odd(twin.local_path):
            check_path(twin.local_path, f"File({masked(self.url)!r}, local_path={twin.local_path!r})")
        twin.directory = ""
        return twin

    def clean_copy(self) -> File:
        """Return the same file without a local path."""
        return self._twin(None)

    cleancopy = clean_copy  # as staging methods of the field call it

    def at(self, local_path: str | os.PathLike[str]) -> File:
        """Return the same file as found at a local path."""
        return self._twin(local_path)

    def content_digest(self) -> str:
        """Return the BLAKE2b-128 digest of the content, hexadecimal. Reads the whole file; raises OSError."""
        from hashlib import blake2b  # loads OpenSSL, which workers need not

        digest = blake2b(digest_size=16)
        with open(self.filepath, "rb", opener=plain_file) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def __fspath__(self) -> str:
        return self.filepath

    def __str__(self) -> str:
        return masked(self.url) if self.local_path is None and self.scheme != "file" else self.filepath

    def __repr__(self) -> str:
        where = "" if self.local_path is None else f", local_path={self.local_path!r}"
        when = f"{', update=True' if self.update else ''}{f', refresh={self.refresh!r}' if self.refresh else ''}"
        what = f", digest={self.digest!r}" if self.digest else ""
        return f"{self._shown}({masked(self.url)!r}{where}{when}{what})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, File):
            return NotImplemented
        same = self.kind == other.kind and self.digest == other.digest
        return same and self.url == other.url and self.local_path == other.local_path

    def __hash__(self) -> int:
        return hash((self.url, self.local_path))

    def __getstate__(self) -> _State:
        # The shortest tuple that says all: each task with files carries some of these.
        if self.update or self.refresh or self.digest:
            return self.url, self.local_path, self.directory, self.update, self.refresh, self.digest
        return (self.url, self.local_path, self.directory) if self.directory else (self.url, self.local_path)

    def __setstate__(self, state: _State) -> None:
        url, local_path = state[:2]
        update, refresh, digest = state[3:] if len(state) == 6 else (False, None, None)
        File.__init__(self, url, local_path=local_path, update=update, refresh=refresh, digest=digest)
        if len(state) > 2:
            self.directory = state[2]

    def member(self, name: str) -> File:
        """Return a file below a directory, or below that of a pattern; ``name`` is its path from there."""
        raise ConfigurationError(f"{self!r} is a file: only Directory and Glob have files in them")


class Directory(File):
    """A directory with all that is in it, as an input or an output.

    As an output it is one that the task made, or in which it made or changed something; the app makes it itself. It is
    staged by the methods that move directories.
    """

    __slots__ = ()
    kind = "directory"
    _shown = "Directory"

    @known_options
    def __init__(
        self, url: str | os.PathLike[str], *, local_path: str | os.PathLike[str] | None = None, update: bool = False
    ) -> None:
        """Name a directory by its path or URL; arguments and errors as of File."""
        super().__init__(url, local_path=local_path, update=update)

    def _twin(self, local_path: str | os.PathLike[str] | None) -> File:
        return Directory(self.url, local_path=local_path, update=self.update)

    def member(self, name: str) -> File:
        """Return a file below it; ``name`` is its path from there."""
        return _below(self, self.path if self.scheme == "file" else self.url, name)

    def content_digest(self) -> str:
        """Return the BLAKE2b-128 digest of names and contents of all files below it; raises OSError."""
        from hashlib import blake2b

        root, digest = self.filepath, blake2b(digest_size=16)
        for folder, folders, names in os.walk(root, onerror=_raise):
            # The order in which a file system lists names is not part of the content.
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                digest.update(os.fsencode(os.path.relpath(path, root)) + b"\0")
                digest.update(bytes.fromhex(File(path).content_digest()))
        return digest.hexdigest()


class Glob(File):
    """As an output: the files matching a pattern that a task makes or changes.

    The future of the output gives the list of them, in the order of their names, and it is an error if there is none.
    The pattern is one of the shell: ``*``, ``?``, ``[a-z]``, and ``**`` for directories at any depth; files whose names
    begin with a dot match only where the pattern says the dot. It is staged by the methods that move directories.

    Attributes:
        pattern: What comes after ``base``.
    """

    __slots__ = ("pattern",)
    kind = "pattern"
    _shown = "Glob"

    @known_options
    def __init__(self, url: str | os.PathLike[str], *, update: bool = False) -> None:
        """Name files by a path or URL with a pattern.

        Args:
            url: The path or URL.
            update: Whether files that match and are there before the task count, too.

        Raises:
            ConfigurationError: as of File, or there is no pattern in it.
        """
        super().__init__(url, update=update)
        self._take_apart()

    def _take_apart(self) -> None:
        parts = self.path.split("/")
        first = next((place for place, part in enumerate(parts) if _MAGIC.search(part)), None)
        if first is None or _MAGIC.search(self.netloc):
            raise ConfigurationError(
                f"Glob({masked(self.url)!r}) has no pattern in its path: write *, ? or [...] there, or name one file "
                "by File, all of a directory by Directory"
            )
        self.pattern = "/".join(parts[first:])

    @property
    def base(self) -> str:
        """The directory before the pattern, as path or URL; empty for the current one."""
        before = self.path[: len(self.path) - len(self.pattern)]
        before = before if before == "/" else before.rstrip("/")
        if self.scheme == "zip":
            return f"zip:{before}"
        return before if self.scheme == "file" else f"{self.scheme}://{self.netloc}{before.rstrip('/')}"

    @property
    def folder(self) -> str:
        """The directory before the pattern, where it is here: into it, or below, the app writes. Raises ValueError."""
        path = self.filepath
        return path[: len(path) - len(self.pattern)].rstrip("/") or ("/" if path.startswith("/") else ".")

    @property
    def given(self) -> str:
        """The local path as it was given, with the pattern."""
        return self.path if self.local_path is None else os.path.join(self.local_path, self.pattern)

    def _twin(self, local_path: str | os.PathLike[str] | None) -> File:
        twin = Glob(self.url, update=self.update)
        twin.local_path = None if local_path is None else os.fspath(local_path)
        return twin

    def member(self, name: str) -> File:
        """Return a file that matches; ``name`` is its path from ``base``."""
        return _below(self, self.base, name)

    def content_digest(self) -> str:
        """Raise ValueError: a pattern has no content."""
        raise ValueError(f"{self!r} has no content of its own")

    def __setstate__(self, state: _State) -> None:
        super().__setstate__(state)
        self._take_apart()


FILE_TYPES: tuple[type[File], ...] = (File, Directory, Glob)
"""The types of Flow's own files: plain data, which never changes."""

_State = (
    tuple[str, str | None] | tuple[str, str | None, str] | tuple[str, str | None, str, bool, str | None, str | None]
)


def _below(file: File, base: str, name: str) -> File:
    name = quoted(file.scheme, name)
    path = f"{base.rstrip('/')}/{name}" if base else name
    # Else the name itself would be taken for a slip, or for a URL.
    if not base and ("~" in name or ":" in name):
        path = f"./{name}"
    if file.scheme == "s3" and is_version(path):
        path += "?versionId="  # which says that it is part of the key
    found = File(path)
    found.directory = file.directory if not path.startswith("/") and file.scheme in ("file", "zip") else ""
    return found


def _raise(error: OSError) -> None:
    raise error


def _is_current(directory: str) -> bool:
    try:
        return os.getcwd() == directory
    except OSError:
        return False  # the current one was removed
