"""fsspec's file systems, one of a process for one server and its options; their errors; what is done with one path."""

from __future__ import annotations

import json
import os
import posixpath
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from flow_core.files import masked
from flow_staging.transfer.failures import Final, PermanentTransferError, TransientTransferError
from flow_staging.transfer.retry import RetryPolicy

# Kept connections: of 64 servers, 8 each; only the magnitude matters.
_MOST, _KEPT = 64, 8
# Statuses of 4xx that may pass: timeout, too early, too many requests.
_PASSING = frozenset({408, 425, 429})
_SSH = ("sftp", "ssh")
_LOGIN_ERRORS = frozenset(
    ("AuthenticationException", "BadHostKeyException", "ClientAuthenticationError", "DefaultCredentialsError")
)
"""Names of classes of errors, of packages that need not be here, for which another try would come to the same."""


class System:
    """One connected file system of fsspec. Used by one transfer at a time.

    Attributes:
        key: What it was made of.
    """

    def __init__(self, key: str, fs: Any) -> None:
        self.key = key
        self._fs = fs

    def place(self, url: str) -> Place:
        """Return the place that a URL names in it; raises PermanentTransferError."""
        path: str = self._fs._strip_protocol(url)
        _check_name(url, path)
        return Place(self, self._fs, path)

    def close(self) -> None:
        """Leave the server, as far as fsspec has a way to say so; never raises."""
        for name in ("ftp", "client"):  # of sftp
            with suppress(Exception):
                getattr(self._fs, name).close()
        with suppress(Exception):
            self._fs.client.http.close()  # of webdav


class Place:
    """One path of a file system. What it raises is what the file system raises.

    Only such calls are made as take the path for a name: fsspec's others take ``*`` and ``[`` for patterns.

    Attributes:
        system: The file system that it is in.
    """

    def __init__(self, system: System, fs: Any, path: str) -> None:
        self.system = system
        self._fs = fs
        self._path = path

    def info(self) -> dict[str, object] | None:
        """Return fsspec's facts of the path (size, type, version), None if it is not there."""
        with suppress(Exception):
            # fsspec remembers listings, and would tell a file as it was before.
            self._fs.invalidate_cache(posixpath.dirname(self._path))
        try:
            found: dict[str, object] = dict(self._fs.info(self._path))
        except FileNotFoundError:
            return None
        return found

    def below(self, seen: Callable[[int], None]) -> dict[str, dict[str, object]]:
        """Return fsspec's facts of each file below it, by its path from there.

        fsspec's own walk leaves out what it cannot list, and goes as deep as a server says that there are directories.

        Args:
            seen: Called after each directory with how many names there have been; what it raises ends the walk.
        """
        with suppress(Exception):
            self._fs.invalidate_cache()
        root: str = self._fs._strip_protocol(self._path.rstrip("/"))
        found: dict[str, dict[str, object]] = {}
        if self.info() is None:
            return found
        names = 0
        folders = [(root, "")]
        while folders:
            folder, before = folders.pop()
            try:
                listed = self._fs.ls(folder, detail=True)
            except FileNotFoundError:
                continue  # removed meanwhile
            for info in listed:
                path = info["name"].rstrip("/")
                name = before + path.rpartition("/")[2]
                # Of itself: what stands for a directory in a bucket, or all that there is of a file.
                if path == folder.rstrip("/"):
                    if info["type"] != "directory":
                        found[before or "."] = dict(info)
                elif info["type"] == "directory":
                    folders.append((path, f"{name}/"))
                else:
                    found[name] = dict(info)
            names += len(listed)
            seen(names)
        return found

    def reader(self) -> Any:
        """Return a stream that reads the file from its beginning."""
        return self._fs.open(self._path, "rb")

    def writer(self) -> Any:
        """Return a stream that writes the file anew."""
        return self._fs.open(self._path, "wb")

    def put(self, local: Path, moved: Callable[[int], None]) -> None:
        """Store a local file; ``moved`` is called with numbers of bytes, and what it raises ends the transfer."""
        from fsspec.callbacks import Callback

        class Progress(Callback):  # type: ignore[misc]  # fsspec is not typed
            """Callback of fsspec that passes on how many bytes have gone."""

            def relative_update(self, inc: int = 1) -> None:
                """Pass on a number of bytes; fsspec calls it after each piece."""
                moved(inc)

        self.make_directories()
        self._fs.put_file(str(local), self._path, callback=Progress())

    def make_directories(self) -> None:
        """Make the directories above it, where the file system has such."""
        parent = posixpath.dirname(self._path.rstrip("/"))
        if parent.strip("/"):
            with suppress(NotImplementedError, FileExistsError, PermissionError):
                self._fs.makedirs(parent, exist_ok=True)

    def remove(self) -> None:
        """Remove the file; raises FileNotFoundError where there is none."""
        self._fs.rm_file(self._path)

    def rename_to(self, url: str) -> None:
        """Give it the name that another URL says; what is there is replaced."""
        target: str = self._fs._strip_protocol(url)
        from fsspec import AbstractFileSystem

        move = getattr(self._fs, "mv_file", None) or _webdav_move(self._fs)
        if move is None and type(self._fs).mv is not AbstractFileSystem.mv:
            move = self._fs.mv
        if move is None:
            # Without a rename of its own: copied and then removed, which is not one step.
            self._fs.cp_file(self._path, target)
            self._fs.rm_file(self._path)
            return
        try:
            move(self._path, target)
        except FileNotFoundError:
            raise
        except Exception:  # of whatever class of its client's
            if not self._fs.exists(target):
                raise
            self._fs.rm_file(target)  # an older one, over which this server does not rename
            move(self._path, target)


def _webdav_move(fs: Any) -> Callable[[str, str], object] | None:
    """Return a rename by WebDAV, None for other file systems: ``mv`` of webdav4 takes names for patterns."""
    move = getattr(getattr(fs, "client", None), "move", None)
    return None if move is None or "webdav" not in fs.protocol else partial(move, overwrite=True)


class Systems:
    """Pool of the idle file systems of one process. Any thread.

    Each one is used by one transfer at a time: that of sftp, in two threads, waits for answers that the other has read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, list[System]] = {}

    def take(self, url: str, protocol: str, options: Mapping[str, object], retry: RetryPolicy) -> System:
        """Return one for a URL, to be given back or closed.

        Raises PermanentTransferError, and what making it raises.
        """
        made = _class_of(protocol)
        given = {**_timeouts(protocol, retry), **made._get_kwargs_from_urls(url), **options}
        # By all options: logins of two tasks must not share a connection.
        key = json.dumps([protocol, sorted(given.items())], default=repr)
        with self._lock:
            kept = self._kept.get(key)
            if kept:
                return kept.pop()
        # skip_instance_cache: fsspec would give the same object to two threads.
        return System(key, made(**given, skip_instance_cache=True))

    def give(self, system: System) -> None:
        """Take back a file system that works and is no longer used."""
        with self._lock:
            kept = self._kept.setdefault(system.key, [])
            if len(kept) < _KEPT and (kept or len(self._kept) <= _MOST):
                kept.append(system)
                return
            if not kept:
                del self._kept[system.key]
        system.close()

    def close(self) -> None:
        """Leave all servers. May be used again."""
        with self._lock:
            all_kept, self._kept = self._kept, {}
        for kept in all_kept.values():
            for system in kept:
                system.close()


systems = Systems()
"""The pool of this process; a forked child begins with an empty one."""


def _forget() -> None:
    """Leave the parent's connections to it."""
    systems.__init__()  # type: ignore[misc]  # the lock may have been held when the process was forked


os.register_at_fork(after_in_child=_forget)


@lru_cache(maxsize=64)
def _class_of(protocol: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise PermanentTransferError("fsspec is not installed here: pip install fsspec") from error
    try:
        found = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise PermanentTransferError(
            f"fsspec has no way to {protocol}: URLs here: {error}; it is to be installed where the files are moved"
        ) from error
    except ValueError as error:
        raise PermanentTransferError(f"fsspec knows of no file system for {protocol}: URLs ({error})") from error
    if protocol not in _SSH:
        return found

    from flow_staging.fsspec_sftp import checked

    return checked(found)


def _timeouts(protocol: str, retry: RetryPolicy) -> dict[str, object]:
    if protocol not in _SSH:
        return {}
    seconds = retry.connect_timeout_s
    return {"timeout": seconds, "banner_timeout": seconds, "auth_timeout": seconds, "silence_s": retry.stall_timeout_s}


def _check_name(url: str, path: str) -> None:
    """Refuse a URL of which a file system leaves something out: the file of another name would come."""
    if "://" in path and path.rstrip("/") != url.rstrip("/"):
        raise PermanentTransferError(
            "this file system takes '::' in a URL for something else than a name: it cannot be written there"
        )
    written = url.rstrip("/").rpartition("/")[2]
    taken = path.rstrip("/").rpartition("/")[2]
    if taken not in (written, unquote(written)) and "/" in url.partition("://")[2].rstrip("/"):
        raise PermanentTransferError(
            f"this file system takes {written!r} for {taken!r}: such a name cannot be written so in its URLs"
        )


@contextmanager
def translated(protocol: str) -> Iterator[None]:
    """Turn fsspec's errors into transient and permanent transfer errors; messages hold no passwords."""
    try:
        yield
    except (TransientTransferError, PermanentTransferError):
        raise
    except FileNotFoundError as error:
        raise Final(f"there is no such file or directory: {_said(error)}") from error
    except (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise PermanentTransferError(_said(error)) from error
    except ImportError as error:
        raise PermanentTransferError(f"a package for {protocol}: URLs is not installed here: {_said(error)}") from error
    except (NotImplementedError, TypeError, ValueError, LookupError) as error:
        raise PermanentTransferError(
            f"fsspec cannot do that with {protocol}: URLs: {type(error).__name__}: {_said(error)}"
        ) from error
    except Exception as error:
        raise _of_a_server(error) from error


def _of_a_server(error: Exception) -> TransientTransferError | PermanentTransferError:
    said = f"{type(error).__name__}: {_said(error)}"
    names = {each.__name__ for each in type(error).__mro__}
    if names & _LOGIN_ERRORS:
        return PermanentTransferError(f"the other side refuses the login: {said}")
    status = next(
        (
            value
            for name in ("status_code", "status", "code")
            if isinstance(value := getattr(error, name, None), int) and not isinstance(value, bool)
        ),
        None,
    )
    if status is not None and 400 <= status < 500 and status not in _PASSING:
        return PermanentTransferError(said)
    return TransientTransferError(said)


def _said(error: Exception) -> str:
    return masked(str(error)) or "no reason was given"
