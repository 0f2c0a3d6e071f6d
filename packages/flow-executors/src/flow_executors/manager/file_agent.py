"""Brings files of the script's machine to the tasks of a node, and sends what they make, on a thread of its own.

Workers connect to a socket of this machine, once a task that has such files: the connection is the task's interest in
them, and with its end the directory of the try goes. To the script all goes through the manager's own connection, whose
loop takes messages from here and hands others in.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import secrets
import select
import socket
import stat
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flow_core.errors import StagingError
from flow_core.folders import make_directory
from flow_core.remote.staged import remove
from flow_executors.common.file_pieces import ComingFile, PieceQueue, bodies, open_plain
from flow_executors.errors import BadMessage
from flow_executors.manager.file_cache import FileCache
from flow_executors.manager.log_ends import LogEnds, copied_ends
from flow_executors.manager.node_directory import NodeDirectory
from flow_executors.wire.files import (
    MOST_WINDOW,
    SMALL_BYTES,
    TELL_BYTES,
    BodyBegun,
    BodyEnded,
    BodyPart,
    Ending,
    Entry,
    FileMessage,
    FileStep,
    Listed,
    Packed,
    SendWindow,
    StreamReader,
    TransferDirection,
    body_digest,
    pack_ask,
    pack_ending,
    pack_ends,
    pack_file,
    pack_list,
    pack_progress,
    pack_want,
    unpack_ending,
    unpack_file,
    unpack_list,
    unpack_progress,
    unpack_want,
)
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.transport import PAUSE_S, STRANGERS_A_TURN, is_own

log = logging.getLogger("flow.manager")

AGENT_BITS = 24
"""Bits of a transfer's number that count; those above are one agent's, and tell whose transfer it is."""
_LENGTH = struct.Struct("<I")
_LONGEST = 256 << 20  # bytes of a request of a worker: names of files
_READ = 256 << 10  # bytes taken at a time from a worker; only the magnitude matters
# Seconds without a word of the script after which a transfer is begun anew, and how often before it fails.
_SILENCE_S = 60.0
_TRIES = 5
_LOOK_MS = 5_000
_END_S = 5.0


class _ChangedOnWay(StagingError):
    """What came is not what was sent."""


class _Transfer:
    """What both directions share."""

    way = TransferDirection.IN

    def __init__(self, task: _Task) -> None:
        self.task = task
        self.heard_at = time.monotonic()
        self.begun = 1


@dataclass
class _Half:
    """A large file of which part has come, open for writing."""

    version: str
    part: ComingFile

    def drop(self) -> None:
        """Close the part and remove what has come, where it cannot be gone on with."""
        self.part.close()
        os.unlink(self.part.path)


class _Bringing(_Transfer):
    """Files of one task on their way to it."""

    def __init__(self, task: _Task, places: list[str], own: set[int]) -> None:
        super().__init__(task)
        self.places = places
        self._bases = [os.path.join(task.root, one) for one in places]
        self.own = own
        self.reader = StreamReader()
        self.entries: list[Entry] = []
        self.listed = False
        self.packs = False  # whether the script can send small files many at once
        self.left: set[int] = set()
        self.waits: set[int] = set()  # for what another transfer brings just now
        self.taken = self.told = 0
        self.half: _Half | None = None  # what comes just now, or came before a break
        self.small: bytearray | None = None
        self.current = -1

    def place(self, entry: Entry) -> str:
        """Return where an entry is to be."""
        above = self._bases[entry.file]
        return f"{above}/{entry.member}" if entry.member else above

    def drop_part(self) -> None:
        """Forget the file that comes just now."""
        half, self.half, self.small, self.current = self.half, None, None, -1
        if half is not None:
            half.drop()


class _Sent(_Transfer):
    """Files of one task on their way to the script."""

    way = TransferDirection.OUT

    def __init__(
        self, task: _Task, files: list[tuple[int, str, str]], way: TransferDirection = TransferDirection.OUT
    ) -> None:
        super().__init__(task)
        self.way = way
        self.files = files
        self.begin()

    def begin(self, *, on: bool = False) -> None:
        """Begin with all of it, or go ``on`` after a break with what the script will say. Raises StagingError."""
        if self.way is not TransferDirection.LOGS:
            self.way = TransferDirection.OUT_ON if on else TransferDirection.OUT
        self.entries = [self._entry(*one) for one in self.files]
        self.window = SendWindow(0)
        self.pieces = PieceQueue(iter([pack_list(self.entries)]))
        self.done = False
        self.asking = self.way is TransferDirection.OUT_ON
        """Whether the script has yet to say what it lacks."""
        if not self.asking:
            self.pieces.add(self._bodies([(number, 0) for number in range(len(self.entries))]))

    def lacking(self, wanted: list[tuple[int, int]]) -> None:
        """Take what the script lacks: entries, and from where on. Raises BadMessage."""
        if not self.asking or any(not 0 <= number < len(self.entries) for number, _ in wanted):
            raise BadMessage("the script asked for files that were not listed")
        self.asking = False
        self.pieces.add(self._bodies(wanted))

    def _entry(self, number: int, member: str, path: str) -> Entry:
        try:
            state = os.stat(path)
        except OSError as error:
            raise StagingError(f"{path} cannot be sent: {error.strerror or error}", path) from error
        kind = "d" if stat.S_ISDIR(state.st_mode) else "f"
        version = f"{state.st_ino}.{state.st_mtime_ns}.{state.st_ctime_ns}"
        return Entry(number, member, kind, 0 if kind == "d" else state.st_size, stat.S_IMODE(state.st_mode), version)

    def _bodies(self, wanted: list[tuple[int, int]]) -> Iterator[bytes]:
        named = [(number, offset, self.entries[number], self.files[number][2]) for number, offset in wanted]
        return bodies(
            (number, entry.size, offset, _opener(path), path)
            for number, offset, entry, path in named
            if entry.type == "f"
        )


def _write_small(place: str, content: Buffer, mode: int) -> None:
    """Write a file of a task's own; one that was brought before under another name of the same place is replaced."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600 | mode & 0o777)
    try:
        written = os.write(descriptor, content)
        while written < len(content):
            written += os.write(descriptor, content[written:])
    except OSError as error:
        raise _cannot(place, error) from error
    finally:
        os.close(descriptor)


def _cannot(path: str, error: OSError) -> StagingError:
    return StagingError(f"{path} cannot be written: {error.strerror or error}", path)


def _failure(error: Exception) -> dict[str, object]:
    """Return what a worker is told of a failure here: its text, and where it was."""
    if isinstance(error, _ChangedOnWay | BadMessage):
        return {"error": str(error), "side": "way"}
    if isinstance(error, OSError) and error.filename:
        error = _cannot(str(error.filename2 or error.filename), error)
    return {"error": str(error), "side": "node"}


def _opener(path: str) -> Callable[[], int]:
    return lambda: open_plain(path, path)


class _Task:
    """A worker's connection: one try and its directory. None where nobody waits, as for logs."""

    def __init__(self, connection: socket.socket | None) -> None:
        self.connection = connection
        self.key = 0
        self.root = ""
        self.incoming = bytearray()
        self.transfer = 0

    def answer(self, **said: object) -> None:
        """Answer the worker; one that is gone needs none."""
        text = json.dumps(said).encode()
        if self.connection is None:
            if self.root:
                remove(self.root)
            return
        try:
            self.connection.sendall(_LENGTH.pack(len(text)) + text)
        except OSError:
            pass


class FileAgent:
    """The files of one node. ``take``, ``registered``, ``outgoing`` and ``close`` are for the manager's loop."""

    def __init__(self, directory: NodeDirectory, run: str = "") -> None:
        """Listen, under a random name; what is kept is shared with managers of the same ``run``. Raises OSError."""
        self._directory = directory
        self._run_id = run
        self.name = f"flow-files-{secrets.token_hex(16)}"
        self.log_dir = ""
        """Where the logs of this manager and its workers lie; set before it is registered."""
        self.apart = False
        """Whether this node does not see the script's files; set before any worker has a task."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(f"\0{self.name}")
        self._listener.listen(256)
        self._listener.setblocking(False)
        self.ready_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when there are messages for the interchange."""
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._messages: deque[Buffer | int | None] = deque()  # an int: registered under this number; None: the end
        self._outgoing: deque[bytes] = deque()
        self._manager = 0
        self._numbers = secrets.randbits(32) << AGENT_BITS
        self._tasks: dict[int, _Task] = {}
        self._transfers: dict[int, _Bringing | _Sent] = {}
        self._coming: dict[str, set[_Bringing]] = {}  # version -> who waits for the one that brings it
        self._foreign: set[str] = set()  # versions that another manager of this node brings
        self._foreign_due = 0.0
        self._cache: FileCache | None = None
        self._log_ends = LogEnds()
        self._accepts_at = math.inf
        """When connections are accepted again, by the monotonic clock, since strangers connected without end."""
        self._strangers: list[float] = []  # when the last few came
        self._poll = select.poll()
        self._thread = threading.Thread(target=self._run, name="flow-files", daemon=True)
        self._thread.start()

    # -- the manager's loop

    def take(self, message: Buffer) -> None:
        """Take FILE of the script; does not wait."""
        self._messages.append(message)
        os.eventfd_write(self._wake_fd, 1)

    def registered(self, number: int) -> None:
        """The manager is registered: what was on the way before may be lost."""
        self._messages.append(number)
        os.eventfd_write(self._wake_fd, 1)

    def outgoing(self) -> list[bytes]:
        """Return the messages for the interchange, once."""
        try:
            os.eventfd_read(self.ready_fd)
        except BlockingIOError:
            pass
        found = []
        while self._outgoing:
            found.append(self._outgoing.popleft())
        return found

    def close(self) -> None:
        """End the thread; the directory is the caller's to remove."""
        self._messages.append(None)
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join(_END_S)
        if self._thread.is_alive():
            return
        if self._cache is not None:
            self._cache.small.close()
        for task in self._tasks.values():
            if task.connection is not None:
                task.connection.close()
        self._listener.close()

    # -- the thread

    def _run(self) -> None:
        for descriptor in (self._wake_fd, self._listener.fileno()):
            self._poll.register(descriptor, select.POLLIN)
        while True:
            try:
                if not self._once():
                    return
            except Exception:
                log.exception("the transfer of files failed at one step")

    def _once(self) -> bool:
        """Do what there is to do; False at the end."""
        for descriptor, _ in self._poll.poll(self._patience_ms()):
            if descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._tasks:
                self._listen(self._tasks[descriptor])
            elif descriptor == self._wake_fd:
                os.eventfd_read(self._wake_fd)
        for _ in range(len(self._messages)):  # what comes meanwhile wakes the next turn
            message = self._messages.popleft()
            if message is None:
                return False
            if isinstance(message, int):
                self._manager = message
                self._log_ends.forget()  # the script may know this manager by another number now
                self._go_on_with_all()
            else:
                self._heard(message)
        self._tell_taken()
        if time.monotonic() >= self._accepts_at:
            self._accepts_at = math.inf
            self._poll.register(self._listener.fileno(), select.POLLIN)
        self._send_round()
        self._look_for_silence()
        self._tell_ends()
        self._look_at_foreign()
        return True

    def _patience_ms(self) -> int | None:
        if self._messages:  # one before them has failed
            return 0
        if self._accepts_at != math.inf:
            return max(0, int((self._accepts_at - time.monotonic()) * 1000) + 1)
        if self._foreign:
            return max(0, int((self._foreign_due - time.monotonic()) * 1000) + 1)
        if self._manager and self.apart and self.log_dir:
            return max(0, int((self._log_ends.due - time.monotonic()) * 1000) + 1)
        return _LOOK_MS if self._transfers else None

    def _say(self, message: bytes) -> None:
        self._outgoing.append(message)
        os.eventfd_write(self.ready_fd, 1)

    # -- workers

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if is_own(connection):
            self._tasks[connection.fileno()] = _Task(connection)
            self._poll.register(connection.fileno(), select.POLLIN)
            return
        connection.close()
        now = time.monotonic()
        self._strangers = [when for when in self._strangers if now - when < PAUSE_S] + [now]
        # Other users connect without end: workers wait a little for their turn, and files in transfer do not.
        if len(self._strangers) >= STRANGERS_A_TURN:
            self._strangers.clear()
            self._poll.unregister(self._listener.fileno())
            self._accepts_at = now + PAUSE_S

    def _listen(self, task: _Task) -> None:
        assert task.connection is not None
        try:
            data = task.connection.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone(task)
            return
        task.incoming += data
        if len(task.incoming) < _LENGTH.size:
            return
        size = _LENGTH.unpack_from(task.incoming)[0]
        if size > _LONGEST:
            self._gone(task)
        elif len(task.incoming) >= _LENGTH.size + size:
            request = json.loads(bytes(task.incoming[_LENGTH.size : _LENGTH.size + size]))
            del task.incoming[: _LENGTH.size + size]
            try:
                self._asked(task, request)
            except (StagingError, OSError) as error:
                task.answer(**_failure(error))

    def _asked(self, task: _Task, request: dict[str, object]) -> None:
        match request:
            case {"do": "begin", "key": int(key)}:
                if not self.apart:
                    task.answer(apart=False)
                    return
                top = self._directory.path()
                if self._cache is None:
                    self._cache = FileCache(os.path.join(top, "cache"), run=self._run_id)
                task.key, task.root = key, os.path.join(top, f"{key:x}-{secrets.token_hex(3)}")
                os.mkdir(task.root, 0o700)
                task.answer(apart=True, root=task.root)
            case {"do": "bring", "places": list(places), "own": list(own)} if task.root:
                self._begin(_Bringing(task, places, set(own)))
            case {"do": "send", "files": list(files)} if task.root:
                self._begin(_Sent(task, [(number, member, path) for number, member, path in files]))
            case _:
                task.answer(error=f"the manager of this node does not know {request.get('do')!r}", side="node")

    def _gone(self, task: _Task) -> None:
        """A worker has ended with its task's files, or has ended itself."""
        assert task.connection is not None
        descriptor = task.connection.fileno()
        self._poll.unregister(descriptor)
        del self._tasks[descriptor]
        task.connection.close()
        if task.transfer in self._transfers:
            self._say(pack_file(FileStep.STOP, self._manager, task.transfer))
            self._drop(task.transfer)
        if task.root:
            remove(task.root)

    # -- transfers

    def _begin(self, transfer: _Bringing | _Sent) -> None:
        self._numbers += 1
        transfer.task.transfer = self._numbers
        transfer.heard_at = time.monotonic()
        self._transfers[self._numbers] = transfer
        if self._manager:
            self._say(pack_ask(self._manager, self._numbers, transfer.task.key, transfer.way))

    def _go_on_with_all(self) -> None:
        """Go on with all transfers after a break: what is here, or at the script, is not sent again."""
        for number, transfer in list(self._transfers.items()):
            self._restart(number, transfer, on=True)

    def _restart(self, number: int, transfer: _Bringing | _Sent, *, on: bool) -> None:
        half = None
        if isinstance(transfer, _Bringing) and transfer.half is not None and transfer.half.version:
            half, transfer.half = transfer.half, None
        self._drop(number)
        if isinstance(transfer, _Sent):
            try:
                transfer.begin(on=on)
            except StagingError as error:
                transfer.task.answer(**_failure(error))
                return
            self._begin(transfer)
        else:
            fresh = _Bringing(transfer.task, transfer.places, transfer.own)
            fresh.begun, fresh.half = transfer.begun, half
            self._begin(fresh)

    def _drop(self, number: int) -> None:
        transfer = self._transfers.pop(number)
        transfer.task.transfer = 0
        if not isinstance(transfer, _Bringing):
            return
        transfer.drop_part()
        for waiters in self._coming.values():
            waiters.discard(transfer)
        # Others wait for what this one was to bring: they ask for it themselves.
        for entry in [transfer.entries[one] for one in transfer.left - transfer.waits]:
            if entry.size > SMALL_BYTES:
                self._kept().release(entry.version, entry.mode)
            for waiter in self._coming.pop(entry.version, set()):
                self._ask_itself(waiter, entry.version)

    def _ask_itself(self, waiter: _Bringing, version: str) -> None:
        wanted = [one for one in waiter.waits if waiter.entries[one].version == version]
        waiter.waits.difference_update(wanted)
        self._want(waiter, wanted)

    def _fail(self, number: int, failure: dict[str, object]) -> None:
        task = self._transfers[number].task
        self._say(pack_file(FileStep.STOP, self._manager, number))
        self._drop(number)
        task.answer(**failure)

    def _look_for_silence(self) -> None:
        now = time.monotonic()
        for number, transfer in list(self._transfers.items()):
            if now - transfer.heard_at < _SILENCE_S or (isinstance(transfer, _Bringing) and transfer.waits):
                continue
            if transfer.begun >= _TRIES:
                text = f"the script's machine has not answered for {_TRIES * _SILENCE_S:g} s"
                self._fail(number, {"error": text, "side": "way"})
            else:
                transfer.begun += 1
                self._restart(number, transfer, on=False)

    def _heard(self, message: Buffer) -> None:
        try:
            found = unpack_file(message)
            if found.step == FileStep.LOGS:
                self._send_logs()
                return
            transfer = self._transfers.get(found.transfer)
            if transfer is None:
                return  # one that was given up
            transfer.heard_at, transfer.begun = time.monotonic(), 1
            try:
                if isinstance(transfer, _Bringing):
                    self._bring(found.transfer, transfer, found)
                else:
                    self._go_on(found.transfer, transfer, found)
            except (StagingError, OSError, BadMessage) as error:
                self._fail(found.transfer, _failure(error))
        except BadMessage as error:
            log.warning("message dropped: %s", error)

    # -- to the node

    def _bring(self, number: int, transfer: _Bringing, message: FileMessage) -> None:
        if message.step == FileStep.END:
            ending = unpack_ending(message.body)
            self._drop(number)
            transfer.task.answer(error=ending.error, missing=list(ending.missing), url=ending.url, side="script")
            return
        if message.step != FileStep.DATA:
            return
        for part in transfer.reader.feed(message.body):
            if isinstance(part, Packed):
                self._take_packed(transfer, part)
            elif isinstance(part, BodyPart):
                self._write(transfer, part.content)
            elif isinstance(part, BodyBegun):
                self._open(transfer, part)
            elif isinstance(part, BodyEnded):
                self._close(transfer, part)
            elif isinstance(part, Listed) and not transfer.listed:
                transfer.packs = part.packs
                self._list(transfer, unpack_list(part.text))
        transfer.taken += len(message.body)
        if not self._finished(transfer) and transfer.taken - transfer.told >= TELL_BYTES:
            self._tell(number, transfer)

    def _tell_taken(self) -> None:
        """Tell of all that was taken in this turn: a script that waits for room may wait for the last bytes of it."""
        for number, transfer in self._transfers.items():
            if isinstance(transfer, _Bringing) and transfer.taken > transfer.told:
                self._tell(number, transfer)

    def _tell(self, number: int, transfer: _Bringing) -> None:
        transfer.told = transfer.taken
        self._say(pack_file(FileStep.PROGRESS, self._manager, number, pack_progress(transfer.taken, MOST_WINDOW)))

    def _finished(self, transfer: _Bringing) -> bool:
        if not transfer.listed or transfer.left:
            return False
        number = transfer.task.transfer
        if number in self._transfers:
            self._say(pack_file(FileStep.END, self._manager, number, pack_ending(Ending())))
            self._drop(number)
            transfer.task.answer()
        return True

    def _list(self, transfer: _Bringing, entries: list[Entry]) -> None:
        transfer.entries, transfer.listed = entries, True
        wanted, folders = [], set()
        for number, entry in enumerate(entries):
            place = transfer.place(entry)
            folder = place if entry.type == "d" else place.rpartition("/")[0]
            if folder not in folders:
                folders.add(folder)
                make_directory(folder, 0o700)
            if entry.type == "d":
                continue
            if entry.version and entry.size <= SMALL_BYTES:
                content = self._kept().small.find(entry.version)
                if content is not None:
                    _write_small(place, content, entry.mode)
                    continue
            kept = self._kept().find(entry.version, entry.mode)
            if kept is None and entry.size > SMALL_BYTES:
                kept = self._kept().adopt(entry.version, entry.mode, entry.size)
            if kept is not None:
                self._kept().give(kept, place, entry.file in transfer.own)
                continue
            transfer.left.add(number)
            if entry.version and entry.version in self._coming:
                self._coming[entry.version].add(transfer)
                transfer.waits.add(number)
            elif entry.size > SMALL_BYTES and not self._kept().claim(entry.version, entry.mode):
                self._coming[entry.version] = {transfer}
                self._foreign.add(entry.version)
                transfer.waits.add(number)
            else:
                wanted.append(number)
        for place in transfer.places:  # where an output is to be made there is a directory for it
            make_directory(os.path.dirname(os.path.join(transfer.task.root, place)), 0o700)
        half = transfer.half
        if half is not None and half.version not in [entries[number].version for number in wanted]:
            transfer.drop_part()  # another version by now, or another task brings it
        self._want(transfer, wanted)

    def _look_at_foreign(self) -> None:
        """Take what another manager of this node has brought meanwhile, or bring what it has given up."""
        now = time.monotonic()
        if not self._foreign or now < self._foreign_due:
            return
        # Not all at one time: two that give way to each other must not meet again.
        self._foreign_due = now + random.uniform(0.05, 0.25)
        for version in list(self._foreign):
            waiter = next(iter(self._coming.get(version, ())), None)
            if waiter is None:  # nobody waits any more
                self._coming.pop(version, None)
                self._foreign.discard(version)
                continue
            entry = next(waiter.entries[one] for one in waiter.waits if waiter.entries[one].version == version)
            try:
                kept = self._kept().adopt(version, entry.mode, entry.size)
                if kept is not None:
                    self._foreign.discard(version)
                    self._give_waiters(version, kept, None)
                elif self._kept().claim(version, entry.mode):
                    self._foreign.discard(version)
                    others = self._coming.pop(version) - {waiter}
                    self._ask_itself(waiter, version)
                    self._coming.setdefault(version, set()).update(others)
            except (StagingError, OSError) as error:
                if waiter.task.transfer in self._transfers:
                    self._fail(waiter.task.transfer, _failure(error))

    def _want(self, transfer: _Bringing, wanted: list[int]) -> None:
        for number in wanted:
            if transfer.entries[number].version:
                self._coming.setdefault(transfer.entries[number].version, set())
        if wanted:
            half, offsets = transfer.half, dict.fromkeys(wanted, 0)
            if half is not None and transfer.packs:  # a script that knows one knows the other
                for number in wanted:
                    if transfer.entries[number].version == half.version:
                        offsets = {number: half.part.size} | offsets | {number: half.part.size}  # first: it is open
                        break
            body = pack_want(list(offsets.items()))
            step = FileStep.WANT_PACKED if transfer.packs else FileStep.WANT
            self._say(pack_file(step, self._manager, transfer.task.transfer, body))

    def _kept(self) -> FileCache:
        assert self._cache is not None
        return self._cache

    def _open(self, transfer: _Bringing, part: BodyBegun) -> None:
        if part.entry not in transfer.left or part.entry in transfer.waits:
            raise BadMessage("the script sent the content of a file that was not asked for")
        entry, half = transfer.entries[part.entry], transfer.half
        transfer.current = part.entry
        if part.offset:
            if half is None or (half.version, half.part.size) != (entry.version, part.offset):
                raise BadMessage("the script goes on with a file of which no part is here")
        elif part.length <= SMALL_BYTES:
            transfer.small = bytearray()
        else:
            transfer.drop_part()
            transfer.current = part.entry
            transfer.half = _Half(entry.version, ComingFile(self._kept().part()))

    def _write(self, transfer: _Bringing, content: memoryview) -> None:
        if transfer.small is not None:
            transfer.small += content
            return
        half = transfer.half
        if half is None:
            raise BadMessage("the script sent the content of no file")
        try:
            half.part.write(content)
        except OSError as error:  # named as the task has it: what is written is the part in the node's cache
            raise _cannot(transfer.place(transfer.entries[transfer.current]), error) from error

    def _close(self, transfer: _Bringing, part: BodyEnded) -> None:
        entry, content = transfer.entries[part.entry], transfer.small
        transfer.small, transfer.current = None, -1
        kept = ""
        if content is not None:
            if body_digest(content) != part.digest:
                raise _ChangedOnWay(f"{transfer.places[entry.file]} changed on its way")
            if entry.version:
                try:
                    self._kept().small.keep(content, [(entry.version, len(content))])
                except OSError as error:  # the task's own file is what counts, and its failure names it
                    log.debug("a small file is not kept: %s", error)
        else:
            half = transfer.half
            if half is None or not half.part.is_whole(entry.size, part.digest):
                raise _ChangedOnWay(f"{transfer.places[entry.file]} changed on its way")
            transfer.half = None
            half.part.close()
            kept = self._kept().keep(half.part.path, part.digest, entry.mode, entry.version)
            self._kept().release(entry.version, entry.mode)
        self._give(transfer, part.entry, kept, content)
        if entry.version:
            self._give_waiters(entry.version, kept, content)

    def _take_packed(self, transfer: _Bringing, part: Packed) -> None:
        """Take whole small files, after one look at their digest."""
        files, content, entries = part.files(), part.content, transfer.entries
        numbers = {number for number, _ in files}
        asked = numbers <= transfer.left and numbers.isdisjoint(transfer.waits) and len(numbers) == len(files)
        if not asked or any(size != entries[number].size for number, size in files):
            raise BadMessage("the script sent small files that were not asked for")
        if not part.genuine:
            raise _ChangedOnWay(f"{transfer.places[entries[files[0][0]].file]} changed on its way")
        try:
            self._kept().small.keep(content, ((entries[number].version, size) for number, size in files))
        except OSError as error:  # the tasks' own files are what counts, and their failure names it
            log.debug("small files are not kept: %s", error)
        at = 0
        for number, size in files:
            entry, one = entries[number], content[at : at + size]
            at += size
            _write_small(transfer.place(entry), one, entry.mode)
            if entry.version:
                self._give_waiters(entry.version, "", one)
        transfer.left -= numbers

    def _give_waiters(self, version: str, kept: str, content: Buffer | None) -> None:
        for waiter in self._coming.pop(version, ()):
            for number in [one for one in waiter.waits if waiter.entries[one].version == version]:
                waiter.waits.discard(number)
                self._give(waiter, number, kept, content)
            self._finished(waiter)

    def _give(self, transfer: _Bringing, number: int, kept: str, content: Buffer | None) -> None:
        entry = transfer.entries[number]
        place = transfer.place(entry)
        if content is not None:
            _write_small(place, content, entry.mode)
        else:
            self._kept().give(kept, place, entry.file in transfer.own)
        transfer.left.discard(number)

    # -- from the node

    def _send_logs(self) -> None:
        """Send the ends of all logs, as they are now: copies, since they may grow meanwhile."""
        task = _Task(None)
        files: list[tuple[int, str, str]] = []
        try:
            if self.log_dir:
                task.root = os.path.join(self._directory.path(), f"logs-{secrets.token_hex(3)}")
                os.mkdir(task.root, 0o700)
                files = [(0, name, path) for name, path in copied_ends(self.log_dir, task.root)]
            self._begin(_Sent(task, files, TransferDirection.LOGS))
        except (StagingError, OSError) as error:
            log.warning("the logs cannot be sent: %s", error)
            task.answer()

    def _tell_ends(self) -> None:
        """Tell the script the ends of logs that have grown, every few seconds."""
        if not (self._manager and self.apart and self.log_dir):
            return
        told = self._log_ends.grown(self.log_dir, time.monotonic())
        if told:
            self._say(pack_file(FileStep.ENDS, self._manager, 0, pack_ends(told)))

    def _go_on(self, number: int, transfer: _Sent, message: FileMessage) -> None:
        if message.step == FileStep.PROGRESS:
            transfer.window.take(*unpack_progress(message.body), time.monotonic())
        elif message.step == FileStep.WANT:
            transfer.lacking(unpack_want(message.body))
        elif message.step == FileStep.END:
            ending = unpack_ending(message.body)
            self._drop(number)
            transfer.task.answer(
                **({"error": ending.error, "url": ending.url, "side": "script"} if ending.error else {})
            )

    def _send_round(self) -> None:
        """Send what has room, a piece of each in turn."""
        sending = [(number, one) for number, one in self._transfers.items() if isinstance(one, _Sent) and not one.done]
        while sending and self._manager:
            for number, one in list(sending):
                room = one.window.next_room()
                if not room:
                    sending.remove((number, one))
                    continue
                try:
                    piece = one.pieces.take(room)
                except (StagingError, OSError) as error:
                    sending.remove((number, one))
                    self._fail(number, _failure(error))
                    continue
                if piece:
                    one.window.add(len(piece), time.monotonic())
                    self._say(pack_file(FileStep.DATA, self._manager, number, piece))
                elif one.asking:
                    sending.remove((number, one))
                else:
                    one.done = True
                    sending.remove((number, one))
                    self._say(pack_file(FileStep.END, self._manager, number, pack_ending(Ending())))
            if self._messages:
                return
