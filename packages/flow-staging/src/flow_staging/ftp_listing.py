"""Listing of a directory on an ftp server, with all below it."""

from __future__ import annotations

import ftplib
import os
import posixpath
import re

from flow_staging.ftp_connection import ENCODING, Session
from flow_staging.ftp_session import features, remote_of, size
from flow_staging.transfer.failures import Final
from flow_staging.transfer.resume import by_size
from flow_staging.transfer.retry import Control

# Directories in each other, and files: links can make a tree without end, and a server a listing without one.
_DEEPEST, _MOST = 100, 1_000_000
_FACTS = ("type", "size", "modify")
_ITSELF = ("cdir", "pdir")  # types of the directory itself, and of the one above it
_SIZE = re.compile(r"[0-9]{1,18}")  # 64 bits hold any of them
_BINARY = "TYPE I"
"""Command after each listing, which switches the session to text: some servers state no sizes in that mode."""
_DIRECTORY = None
"""Stands for the version of a directory among entries."""

Entries = dict[str, str | None]
"""The versions of files by their names, as ``look`` says them; empty text where that must be asked for."""


def names_below(ftp: Session, root: str, control: Control) -> dict[str, str]:
    """Return the version of each file below a directory, as ``look`` says it, by its path from there.

    Asked for by MLSD where the server has it, else by NLST, where each name is then tried for a file or a directory.
    Empty where there is no such directory. The session is to be closed if anything is raised.

    Raises:
        Final: a name cannot be that of a file here, or there are too many.
        PermanentTransferError: the deadline passed, or the transfer is to stop.
        ftplib.Error, OSError: as ftplib does.
    """
    walk = _Walk(ftp, control) if " MLST" in features(ftp) else _WalkByNames(ftp, control)
    try:
        entries = walk.entries(root)
    except ftplib.error_perm as error:
        if not str(error).startswith(("550", "501")):  # there is none, or it is a file (RFC 3659, 7.2.1)
            raise
        return {}
    walk.take(root, "", entries, 0)
    walk.end()
    return walk.found


class _Walk:
    """Lists directories by MLSD. Of links, those to files are followed."""

    def __init__(self, ftp: Session, control: Control) -> None:
        self.found: dict[str, str] = {}
        self._seen = 0
        self._ftp = ftp
        self._control = control
        self._hashes = any(word in features(ftp) for word in (" HASH", " XSHA", " XMD5"))

    def take(self, root: str, below: str, entries: Entries, depth: int) -> None:
        """Note the files among entries, and look into the directories."""
        self._control.check()
        if depth > _DEEPEST:
            raise Final(f"there are more than {_DEEPEST} directories in each other below it")
        for name, version in entries.items():
            self._control.check()
            path = posixpath.join(below, name)
            if version is _DIRECTORY:
                self.take(root, path, self.entries(posixpath.join(root, path)), depth + 1)
            else:
                self.found[_here(path)] = version or self._version(posixpath.join(root, path))

    def entries(self, path: str) -> Entries:
        """List one directory; raises error_perm with 550 if it is not there."""
        entries: Entries = {}
        listed: list[tuple[str, str, str, str]] = []

        def take(line: str) -> None:
            """Keep what is needed of a line, since there may be a million of them."""
            said, _, name = line.partition(" ")
            facts = facts_of(said)
            kind, length, date = (facts.get(fact, "") for fact in _FACTS)
            kind = kind.lower()
            if kind not in _ITSELF:
                listed.append((self._checked(name), kind, length, date))

        self._ftp.sendcmd(f"OPTS MLST {';'.join(_FACTS)};")
        self._ftp.retrlines(f"MLSD {path}" if path else "MLSD", take)
        self._ftp.voidcmd(_BINARY)
        for name, kind, length, date in listed:
            self._control.check()
            if kind == "dir":
                entries[name] = _DIRECTORY
            # The version as remote_of() makes it, without a question for each file; where there are digests these are
            # it.
            elif kind == "file" and _SIZE.fullmatch(length) and date and not self._hashes:
                entries[name] = by_size(f"{length}:{date}", int(length))
            elif kind == "file" or ("link" in kind and size(self._ftp, posixpath.join(path, name)) is not None):
                entries[name] = ""
        return entries

    def end(self) -> None:
        """Leave the session as it was."""

    def _checked(self, name: str) -> str:
        """Return a name that the server says, and count it; raises Final for one that leads out of the directory."""
        if name in ("", ".", "..") or any(wrong in name for wrong in "/\r\0"):
            raise Final(f"{name!r} in it cannot be the name of a file here")
        self._seen += 1
        if self._seen > _MOST:
            raise Final(f"there are more than {_MOST:,} files and directories below it")
        return name

    def _version(self, path: str) -> str:
        remote = remote_of(self._ftp, path)
        return by_size(remote.validator, remote.size or 0) if remote.validator else f"{remote.size}"


class _WalkByNames(_Walk):
    """Lists directories by NLST, after it has gone into them: servers take names in its argument as patterns."""

    def __init__(self, ftp: Session, control: Control) -> None:
        super().__init__(ftp, control)
        self._home = ftp.pwd()

    def entries(self, path: str) -> Entries:
        """List one directory; raises error_perm with 550 if it is not there."""
        self._go(path)
        entries: Entries = {}
        for name in self._names():
            self._control.check()
            if size(self._ftp, name) is not None:
                entries[name] = ""
            elif self._is_directory(path, name):
                entries[name] = _DIRECTORY
        self.end()
        return entries

    def end(self) -> None:
        """Go back to the directory of the login."""
        self._ftp.cwd(self._home)

    def _go(self, path: str) -> None:
        self._ftp.cwd(self._home)
        if path:
            self._ftp.cwd(path)

    def _names(self) -> list[str]:
        names: list[str] = []

        def take(line: str) -> None:
            """Keep a name, but not those of the directory itself."""
            if (name := line.removeprefix("./")) not in ("", ".", ".."):
                names.append(self._checked(name))

        for command in ("NLST -a", "NLST"):  # the option shows names that begin with a dot, where it is known
            names.clear()
            try:
                self._ftp.retrlines(command, take)
                break
            except ftplib.error_perm as error:
                if command == "NLST" and not str(error).startswith("550"):  # so some say that there is nothing
                    raise
        self._ftp.voidcmd(_BINARY)
        return names

    def _is_directory(self, path: str, name: str) -> bool:
        try:
            self._ftp.cwd(name)
        except ftplib.error_perm:
            return False
        self._go(path)
        return True


def facts_of(said: str) -> dict[str, str]:
    """Return the facts that a line of MLSD states before its name, by their names in small letters."""
    facts: dict[str, str] = {}
    for fact in said[:-1].split(";"):
        name, _, value = fact.partition("=")
        facts[name.lower()] = value
    return facts


def _here(path: str) -> str:
    """Return a path, which has one character a byte, as names are here."""
    return os.fsdecode(path.encode(ENCODING))
