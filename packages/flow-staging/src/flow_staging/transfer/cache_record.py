"""Record of a kept file: its versions, and which of them runs and tasks have seen."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from pathlib import Path

_LARGEST = 16 << 20  # of a record, which another user may have written
_MOST_PINS = 256  # runs and tasks of one URL; bounds the record, which is read for each use
_PINNED_S = 7 * 86_400.0  # seconds; after a week without use a run is taken to be over, and its version may go
_AGAIN_S = 3_600.0  # seconds; the last use of a pin is written again only after this, to save a write for each task


@dataclass(frozen=True, slots=True)
class Signature:
    """State of an unchanged content, as the file system shows it.

    The time of change is set into the past when a content is kept, so that a write shows however soon it comes. Tools
    that put it back afterwards are found by the time of the last change of the inode, unless names of the file came
    or went meanwhile, which change that too.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    links: int

    @classmethod
    def of(cls, fd: int) -> Signature:
        """Return the signature of an open file: network file systems may have old facts of one that is not open."""
        return cls.in_state(os.fstat(fd))

    @classmethod
    def in_state(cls, state: os.stat_result) -> Signature:
        """Return the signature of a file in this state."""
        return cls(state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_nlink)

    @classmethod
    def at(cls, path: str) -> Signature:
        """Return the signature of the file at a path, without following links; raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return cls.of(fd)
        finally:
            os.close(fd)

    def fits(self, now: Signature) -> bool:
        """Return whether a file that was like this has not been written to since."""
        same = (self.size, self.mtime_ns) == (now.size, now.mtime_ns)
        return same and (self.ctime_ns == now.ctime_ns or self.links != now.links)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a file, whole.

    Attributes:
        name: Name of the file that holds it, in the directory of the cache.
        validator: What the other side calls it; empty where it does not say, so that it cannot be asked for later.
        digest: Its digest as the other side states it, hexadecimal; empty if it does not.
        signature: What it was like when it was last handed out.
        lent: A path that the user chose may have the file itself, into which the user may write.
    """

    name: str
    validator: str
    digest: str
    signature: Signature
    lent: bool = False

    def noted(self) -> str:
        """Return it as it is written down, in JSON."""
        like, quoted = self.signature, encode_basestring_ascii
        lent = ', "lent": true' if self.lent else ""
        return (
            f'{{"name": {quoted(self.name)}, "validator": {quoted(self.validator)}, "digest": {quoted(self.digest)}, '
            f'"signature": {{"size": {like.size}, "mtime_ns": {like.mtime_ns}, "ctime_ns": {like.ctime_ns}, '
            f'"links": {like.links}}}{lent}}}'
        )


@dataclass(frozen=True, slots=True)
class Begun:
    """A version of which a part is there.

    Attributes:
        validator: What the other side calls it.
        boot: When the machine was started that wrote it: after a crash of that its bytes may not be those written.
    """

    validator: str
    boot: str


@dataclass(slots=True)
class Record:
    """All that is known of one kept URL.

    Attributes:
        url: The URL as it may be shown.
        versions: Those that are kept, the newest last.
        pins: For each run, or task, that has seen one: which, and when last.
        begun: What is on its way, if that was said to go on later.
        length: Of the file that it is written in, in bytes.
    """

    url: str = ""
    versions: list[Version] = field(default_factory=list)
    pins: dict[str, tuple[str, float]] = field(default_factory=dict)
    begun: Begun | None = None
    length: int = field(default=0, compare=False)

    @classmethod
    def read(cls, fd: int, size: int) -> Record:
        """Read an open file of this size; one that holds none (empty, or cut by a crash) is an empty record."""
        try:
            if not size or size > _LARGEST:
                return cls(length=size)
            found = json.loads(os.pread(fd, size, 0))
            return cls(
                str(found["url"]),
                [
                    Version(
                        str(one["name"]),
                        str(one["validator"]),
                        str(one["digest"]),
                        Signature(**one["signature"]),
                        bool(one.get("lent")),
                    )
                    for one in found["versions"]
                    # Another user may have written the record: no name of it may lead out of the directory.
                    if os.sep not in one["name"]
                ],
                {str(pin): (str(name), float(used)) for pin, (name, used) in found["pins"].items()},
                Begun(**found["begun"]) if found["begun"] else None,
                size,
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls(length=size)

    def write(self, fd: int) -> None:
        """Write it into the open file that it was read from, in place: its lock must not go with another.

        Raises:
            OSError: it cannot be written.
        """
        begun, quoted = self.begun, encode_basestring_ascii
        stated = (
            "null" if begun is None else f'{{"validator": {quoted(begun.validator)}, "boot": {quoted(begun.boot)}}}'
        )
        pins = ", ".join(f"{quoted(pin)}: [{quoted(name)}, {used!r}]" for pin, (name, used) in self.pins.items())
        versions = ", ".join(version.noted() for version in self.versions)
        # By hand: json.dumps of such records took five times as long, once for each file that comes.
        text = (
            f'{{"url": {quoted(self.url)}, "versions": [{versions}], "pins": {{{pins}}}, "begun": {stated}}}'.encode()
        )
        # Text first, then the length: cut by a crash it is no JSON, and counts as an empty record.
        os.pwrite(fd, text, 0)
        if self.length > len(text):
            os.ftruncate(fd, len(text))
        self.length = len(text)

    @property
    def newest(self) -> Version | None:
        """The newest version that is kept."""
        return self.versions[-1] if self.versions else None

    def pinned(self, pin: str) -> Version | None:
        """Return the version that a run or task has seen, if it is kept."""
        name = self.pins.get(pin, ("", 0.0))[0]
        return next((version for version in self.versions if version.name == name), None)

    def pin(self, pin: str, name: str) -> bool:
        """Note that a run or task has seen a version; tell whether that is news."""
        if not pin:
            return False
        before, used = self.pins.get(pin, ("", 0.0))
        now = time.time()
        # The usual case of a run with many tasks: nothing is written.
        if before == name and now - used < _AGAIN_S:
            return False
        # To the end: the order is that of the last use.
        self.pins.pop(pin, None)
        self.pins[pin] = name, now
        return True

    def add(self, version: Version) -> list[Version]:
        """Add a new version; return the versions without a pin, which are removed from the record."""
        now = time.time()
        recent = [(pin, seen) for pin, seen in self.pins.items() if now - seen[1] < _PINNED_S]
        self.pins = dict(recent[-_MOST_PINS:])
        needed = {name for name, _ in self.pins.values()}
        gone = [old for old in self.versions if old.name not in needed]
        self.versions = [old for old in self.versions if old.name in needed] + [version]
        return gone

    def replace(self, old: Version, new: Version | None) -> None:
        """Note that a version is like this by now, or is not there any more."""
        self.versions = [
            kept
            for kept in (new if version.name == old.name else version for version in self.versions)
            if kept is not None
        ]


def boot() -> str:
    """Return the id of this start of the machine; empty where there is none."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
