"""Details of the parts of keys: written once beside a checkpoint, and compared where a part has changed."""

from __future__ import annotations

import dis
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from flow_core.checkpoint.log import CheckpointLog
from flow_core.checkpoint.reader import CheckpointReader, Opener, any_file, read_value_bytes
from flow_core.checkpoint.record import DETAILS_NAME, PYTHON, Meta, pack
from flow_core.errors import BadCheckpoint
from flow_core.interfaces.versions import state_of
from flow_core.memo.code_facts import source_lines
from flow_core.memo.key import FILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from flow_core.interfaces.memoizer import MemoKey
    from flow_core.interfaces.snapshot import Part

_KNOWN_MAX = 20_000  # details in memory; the oldest go first. Only the magnitude matters
_LINES_MAX = 300  # lines, and constants, of one code object; a change in longer source is shown as "other code"
_AGAIN = "run again"  # in the place of a part's name; no part of a key has this one
_LONGEST = 120  # characters of one value: a message about a change is to fit into a line or two
_TOLD_MAX = 3  # changes that one message names; more would hide the first

_logger = logging.getLogger("flow.memo")


class Details:
    """The parts of a run's keys, and of those in earlier checkpoints, by name and short digest. Any thread."""

    def __init__(self, directory: Path | None = None, opened: Opener = any_file) -> None:
        """Take the directory of the checkpoint, if there is one, and what opens files; nothing is touched yet."""
        self._opened = opened
        self._log = None if directory is None else CheckpointLog(directory, DETAILS_NAME, 0o600)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Callable[[], str]] = OrderedDict()
        self._unwritten: dict[bytes, tuple[str, bytes, str]] = {}
        self._last: dict[str, object] = {}
        self._places: list[Path] = []
        self._unread: list[Path] = []

    def note(self, key: MemoKey) -> None:
        """Keep the details of the parts of a key, until ``write`` puts them beside the checkpoint."""
        if not key.details or self._last.get(key.app) is key.details:  # calls between changes share them
            return
        self._last[key.app] = key.details
        shorts = dict(key.parts)
        with self._lock:
            for part in key.details:
                short = shorts.get(part.name)
                if short is not None and part.about and (name := _id(part.name, short)) not in self._known:
                    self._unwritten[name] = part.name, short[:8], key.app
                    self._keep(name, partial(_rendered, part))

    def note_again(self, key: MemoKey, reason: str) -> None:
        """Keep why a call was run though its result was remembered."""
        # The key as a whole is the name here, since the reason belongs to one call and not to one of its parts.
        name = _id(_AGAIN, key.digest)
        with self._lock:
            self._unwritten[name] = _AGAIN, key.digest[:8], key.app
            self._keep(name, lambda: reason)

    def again(self, digest: bytes) -> str:
        """Return why a call was run though its result was remembered, given the digest of its key; empty if unknown."""
        self._read_all()
        detail = self._known.get(_id(_AGAIN, digest))
        try:
            return "" if detail is None else detail()
        except (OSError, BadCheckpoint, ValueError) as error:
            _logger.debug("Why a call was run again cannot be told: %s", error)
            return ""

    def write(self) -> None:
        """Write what is not yet written. Raises OSError, BadCheckpoint; then it is not written at all."""
        if self._log is None or not self._unwritten:
            return
        with self._lock:
            # Taken under the lock, rendered and written outside of it: source files are read then, and calls need the
            # lock.
            unwritten, self._unwritten = self._unwritten, {}
            left = [(name, *each, self._known[name]) for name, each in unwritten.items()]
        records = [
            pack(_meta(name, part, short, app), detail().encode("utf-8", "surrogatepass"))
            for name, part, short, app, detail in left
        ]
        self._log.append(records)

    def close(self) -> None:
        """Close the file. Raises OSError."""
        if self._log is not None:
            self._log.close()

    def read(self, checkpoint: Path) -> None:
        """Take what is beside an earlier checkpoint, when it is first needed."""
        # Reading is put off: a run may never ask why a call was not found.
        self._places.append(checkpoint / DETAILS_NAME)
        self._unread.append(checkpoint / DETAILS_NAME)

    def file_versions(self) -> Iterator[str]:
        """Yield the versions of files beside earlier checkpoints. Reads files."""
        for path in list(self._places):
            try:
                for record in CheckpointReader(path, self._opened):
                    # One part is enough: each record of this file stands for one part.
                    if record.meta.parts and record.meta.parts[0][0].startswith(FILE):
                        text = self._written(path, record.offset, record.meta.digest)
                        yield str(json.loads(text)["values"][""])
            except (OSError, BadCheckpoint, ValueError, KeyError, TypeError) as error:
                _logger.warning("%s cannot be used, so files are read again: %s", path, error)

    def differences(self, part: str, now: bytes, before: bytes) -> str:
        """Return in what a part differs, given both short digests; empty if that is not known. May read files."""
        self._read_all()
        new, old = self._known.get(_id(part, now)), self._known.get(_id(part, before))
        if new is None or old is None:
            return ""
        try:
            return _differences(part, json.loads(old()), json.loads(new()))
        except (
            OSError,
            BadCheckpoint,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:  # damaged, or of another Flow
            _logger.debug("What %s was cannot be told: %s", part, error)
            return ""

    def _read_all(self) -> None:
        while self._unread:
            self._index(self._unread.pop(0))

    def _index(self, path: Path) -> None:
        try:
            digests = [(record.meta.digest, record.offset) for record in CheckpointReader(path, self._opened)]
        except (OSError, BadCheckpoint) as error:
            _logger.warning("%s cannot be read, so what has changed is not told in full: %s", path, error)
            return
        with self._lock:
            for digest, offset in digests:
                # Only the offset is kept, so that many earlier checkpoints take little memory.
                self._keep(digest, partial(self._written, path, offset, digest))

    def _written(self, path: Path, offset: int, digest: bytes) -> str:
        return read_value_bytes(path, offset, digest, self._opened).decode("utf-8", "surrogatepass")

    def _keep(self, name: bytes, detail: Callable[[], str]) -> None:
        self._known[name] = detail
        if len(self._known) > _KNOWN_MAX:
            oldest, _ = self._known.popitem(last=False)
            self._unwritten.pop(oldest, None)


def _meta(name: bytes, part: str, short: bytes, app: str) -> Meta:
    return Meta(name, None, 0, 0, 0, 0, PYTHON, app, ((part, short),))


def _id(part: str, short: bytes) -> bytes:
    return blake2b(short[:8] + part.encode("utf-8", "surrogatepass"), digest_size=16).digest()


# -- details of a part


def _rendered(part: Part) -> str:
    code: dict[str, object] = {}
    values: dict[str, str] = {}
    for name, value in part.about:
        if isinstance(value, CodeType):
            constants, shape = _taken_apart(value)
            lines = source_lines(value)
            source = lines if lines is not None and len(lines) <= _LINES_MAX else None
            code[name] = {"shape": shape, "constants": constants[:_LINES_MAX], "source": source}
        else:
            values[name] = value if part.name.startswith(FILE) and isinstance(value, str) else _short(value)
    return json.dumps({"code": code, "values": values})


def _taken_apart(code: CodeType) -> tuple[list[str], str]:
    """Return the constants of code in the order in which they are used, and a digest of all else in it."""
    constants: list[str] = []
    rest = blake2b(digest_size=16)
    # Constants in the order of their use and not in that of co_consts, where equal ones stand once and an edit moves
    # them.
    for operation, given in _instructions(code):
        if operation in _CONSTANTS:
            constants.append(_short(given))
            rest.update(b"constant\n")
        else:
            rest.update(f"{operation} {given!r}\n".encode("utf-8", "surrogatepass"))
    return constants, rest.hexdigest()


def _instructions(code: CodeType) -> Iterator[tuple[str, object]]:
    for instruction in dis.get_instructions(code):
        if isinstance(instruction.argval, CodeType):
            yield from _instructions(instruction.argval)
        # EXTENDED_ARG comes with large arguments only, so a new constant elsewhere may add or remove it.
        elif instruction.opname != "EXTENDED_ARG":
            yield instruction.opname, instruction.argval


_CONSTANTS = frozenset({"LOAD_CONST", "LOAD_SMALL_INT", "RETURN_CONST", "LOAD_CONST_IMMORTAL", "LOAD_CONST_MORTAL"})


def _short(value: object) -> str:
    # A set in code (``x in {"a", "b"}``) is a frozenset, whose order depends on the hash seed.
    text = repr(sorted(value, key=repr) if isinstance(value, frozenset) else value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


# -- how it differs


def _differences(part: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if part.startswith(FILE):
        return _of_file(old["values"][""], new["values"][""])
    told = [*_each(old["code"], new["code"], _of_code), *_each(old["values"], new["values"], _of_value)]
    more = len(told) - _TOLD_MAX
    return "; ".join([*told[:_TOLD_MAX], f"and {more} more"] if more > 0 else told)


def _each(old: Mapping[str, Any], new: Mapping[str, Any], how: Callable[[Any, Any], str]) -> Iterator[str]:
    for name, now in new.items():
        if name not in old:
            yield f"{name} is new"
        elif old[name] != now:
            yield f"{name}: {how(old[name], now)}" if name else how(old[name], now)
    for name in old:
        if name not in new:
            yield f"{name} is gone"


def _of_value(old: str, new: str) -> str:
    return f"{old} -> {new}"


def _of_code(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    before, now = old["constants"], new["constants"]
    # Same instructions, so constants pair up one by one; with another shape only the lines of the source can be
    # compared.
    if old["shape"] == new["shape"] and len(before) == len(now):
        changed = [f"constant {was} -> {by}" for was, by in zip(before, now, strict=True) if was != by]
        if changed:
            return ", ".join(changed[:_TOLD_MAX])
    if old["source"] and new["source"]:
        lines = list(_of_lines(old["source"], new["source"]))
        if lines:
            return ", ".join(lines[:_TOLD_MAX])
    return "other code"


def _of_lines(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for what, begin, end, begin_now, end_now in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what != "equal":
            gone, come = _joined(old[begin:end]), _joined(new[begin_now:end_now])
            yield f"{gone} -> {come}" if gone and come else f"without {gone}" if gone else f"with {come}"


def _joined(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
    return f"line {_short(lines[0].strip())}{more}"


def _of_file(old: str, new: str) -> str:
    if not old or not new:
        return "it was not there" if not old else "it is not there"
    (content, _, state), (content_now, _, state_now) = state_of(old).partition("\n"), state_of(new).partition("\n")
    sizes, sizes_now = state.split(), state_now.split()
    # Of one file three numbers are known, the size first, and more of links; of directories there is another form.
    if len(sizes) >= 3 <= len(sizes_now) and sizes[0].isdigit() and sizes_now[0].isdigit():
        if sizes[0] == sizes_now[0]:
            return f"other content, of {int(sizes[0]):,} bytes as before"
        return f"{int(sizes[0]):,} -> {int(sizes_now[0]):,} bytes"
    if state or state_now:
        return "other files in it, or others of their contents"
    return f"{content} -> {content_now}"
