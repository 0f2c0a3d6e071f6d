"""Serves the files of tasks to nodes that do not see them, on a thread of its own, which begins with the first request.

The receiver thread hands messages over and never waits; files are read and written here. What is on the way to all
managers together has a bound, so that neither this process nor the interchange gathers it.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from flow_core.errors import StagingError
from flow_core.interfaces.call import Call, FileMoved, TryKey
from flow_core.interfaces.outcome import TryListener
from flow_core.remote.script_files import FilesByConnection, ScriptFile
from flow_executors.client.declared_files import CURES, Arrival, Listing
from flow_executors.client.last_words import LastWords
from flow_executors.client.moved_files_core import MovedFiles
from flow_executors.common.file_pieces import PieceQueue, bodies, packs
from flow_executors.errors import BadMessage
from flow_executors.wire.files import (
    LEAST_WINDOW,
    MOST_WINDOW,
    PIECE_BYTES,
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
    SendWindow,
    StreamReader,
    TransferDirection,
    pack_ending,
    pack_file,
    pack_list,
    pack_progress,
    pack_want,
    unpack_ask,
    unpack_file,
    unpack_list,
    unpack_progress,
    unpack_want,
)
from flow_executors.wire.kinds import Buffer

# Bytes on the way in all transfers together.
_BUDGET = 64 << 20
# Seconds that the thread has to end.
_END_S = 5.0
_Id = tuple[int, int]


class _Sending:
    """A transfer to a node."""

    def __init__(self, key: int, listing: Listing, moved: MovedFiles) -> None:
        self.key = key
        self.listing = listing
        self.moved = moved
        self.ended = False  # the try has its outcome: nothing more is served
        self.window = SendWindow(MOST_WINDOW)
        self.pieces = PieceQueue()


class _Receiving:
    """A transfer from a node."""

    def __init__(self, key: int, arrival: Arrival, moved: MovedFiles) -> None:
        self.key = key
        self.arrival = arrival
        self.moved = moved
        self.earlier: Arrival | None = None  # what had come before a break, until the list says whether it is of use
        self.goes_on = False
        self.reader = StreamReader()
        self.taken = 0
        self.told = 0


class FileService:
    """Any thread, but for what says otherwise.

    Args:
        send: Sends a message to the interchange; False where that cannot be done now.
        label: Label of the executor.
        logger: The run's.
        limit: Most bytes that a task's files of one direction may have together.
        log_place: Gives the directory of a manager's logs; None where its node writes them there itself.
        listener: Told what moves, and what has been moved.
        words: Given the ends of logs.
    """

    def __init__(
        self,
        send: Callable[[Buffer], object],
        label: str,
        logger: logging.Logger,
        limit: int,
        log_place: Callable[[int], Path | None],
        listener: TryListener,
        words: LastWords,
    ) -> None:
        self._send = send
        self._label = label
        self._logger = logger
        self._limit = limit
        self._log_place = log_place
        self._listener = listener
        self._words = words
        self._logs_wanted: set[int] = set()
        self._logs_done = threading.Event()
        self.declared: dict[int, FilesByConnection] = {}
        """What tries without outcome may have, by key."""
        self._calls: dict[int, Call] = {}  # by key, for reports
        self._umask = current_umask()
        self._arrivals = 0
        self._token = secrets.token_hex(4)  # keys are those of other runs, too
        self._orders: deque[tuple[str, object]] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self.closing = False
        """Whether it ends, or has ended."""
        self._sending: dict[_Id, _Sending] = {}
        self._receiving: dict[_Id, _Receiving] = {}

    def declare(self, key: int, call: Call) -> None:
        """Note what a try may have: what its own step names. To be called before it is sent."""
        if call.steps and type(call.steps[0]) is FilesByConnection:
            self.declared[key], self._calls[key] = call.steps[0], call

    def forget(self, keys: Iterable[int]) -> None:
        """Tries have their outcome: nothing of theirs is served or published any more."""
        for key in keys:
            if self.declared.pop(key, None) is not None and self._thread is not None:
                self._order("ended", key)
            else:
                self._calls.pop(key, None)

    def take(self, message: Buffer) -> None:
        """Take FILE of a manager; does not wait. Receiver thread. Raises BadMessage."""
        found = unpack_file(message)
        if found.step == FileStep.ENDS:  # at once: the loss of its tasks may be told next
            self._words.told(found.manager, found.body)
            return
        self._begin()
        self._order("message", message)

    def _begin(self) -> None:
        if self._thread is None and not self.closing:
            self._thread = threading.Thread(target=self._run, name=f"flow-{self._label}-files", daemon=True)
            self._thread.start()

    def fetch_logs(self, managers: Iterable[int], timeout_s: float = 0.0) -> None:
        """Have managers whose nodes do not see the run's directory send their logs, and wait for them so long."""
        wanted = {one for one in managers if self._log_place(one) is not None}
        if not wanted or self.closing:
            return
        self._logs_done.clear()
        self._logs_wanted |= wanted
        for one in wanted:
            self._send(pack_file(FileStep.LOGS, one, 0))
        self._logs_done.wait(timeout_s)

    def _logs_ended(self, manager: int) -> None:
        self._logs_wanted.discard(manager)
        if not self._logs_wanted:
            self._logs_done.set()

    def left(self, manager: int) -> None:
        """A manager is gone."""
        if self._words.of(manager):
            self._begin()
        if self._thread is not None:
            self._order("left", manager)

    def reset(self) -> None:
        """The interchange is another one: managers begin all transfers anew."""
        if self._thread is not None:
            self._order("reset", None)

    def close(self) -> None:
        """End the thread, and remove what is not whole."""
        self.closing = True
        self._order("close", None)
        if self._thread is not None:
            self._thread.join(_END_S)

    def _order(self, name: str, what: object) -> None:
        with self._wake:
            self._orders.append((name, what))
            self._wake.notify()

    # -- the thread

    def _run(self) -> None:
        while True:
            moved = self._send_round()
            self._tell_progress()
            with self._wake:
                while not self._orders and not moved:
                    self._wake.wait()
                orders, self._orders = self._orders, deque()
            for name, what in orders:
                if name == "close":
                    self._drop(lambda _id, _key: True)
                    return
                try:
                    self._obey(name, what)
                except BadMessage as error:
                    self._logger.warning("a message about files was dropped: %s", error)
                except Exception:
                    self._logger.exception("the service of files of %s failed at one message", self._label)
            self._tell_taken()

    def _obey(self, name: str, what: object) -> None:
        if name == "message":
            assert isinstance(what, bytes | bytearray | memoryview)
            self._take(unpack_file(what))
        elif name == "left":
            self._drop(lambda one, _key: one[0] == what)
            if isinstance(what, int):
                self._logs_ended(what)
                self._words.write(what, self._logger)
        elif name == "ended":
            assert isinstance(what, int)
            # Its manager has yet to say whether what it was given was there: the outcome may come a shorter way.
            kept = {one: sending for one, sending in self._sending.items() if sending.key == what}
            self._drop(lambda _id, key: key == what)
            for one, sending in kept.items():
                self._sending[one], sending.ended = sending, True
            if not kept:
                self._calls.pop(what, None)
        else:
            # Not what has come of tasks: their managers go on with that, or the tasks end.
            self._drop(lambda one, key: key < 0 or one in self._sending)

    def _drop(self, which: Callable[[_Id, int], bool]) -> None:
        for one in [one for one, sending in self._sending.items() if which(one, sending.key)]:
            sending = self._sending.pop(one)
            if sending.ended:
                self._calls.pop(sending.key, None)
        for one in [one for one, receiving in self._receiving.items() if which(one, receiving.key)]:
            receiving = self._receiving.pop(one)
            receiving.arrival.abandon()
            if receiving.earlier is not None:
                receiving.earlier.abandon()

    def _take(self, message: FileMessage) -> None:
        one = (message.manager, message.transfer)
        try:
            if message.step == FileStep.ASK:
                self._asked(one, *unpack_ask(message.body))
            elif message.step == FileStep.STOP:
                self._drop(lambda other, _key: other == one)
            elif one in self._sending and message.step == FileStep.END:
                sending = self._sending[one]
                self._report(sending, sending.moved.moved())
                self._drop(lambda other, _key: other == one)
            elif one in self._sending and not self._sending[one].ended:
                self._sender(self._sending[one], message)
            elif one in self._receiving:
                self._receiver(one, self._receiving[one], message)
        except (StagingError, OSError) as error:
            self._fail(one, error)

    def _fail(self, one: _Id, error: Exception) -> None:
        receiving, sending = self._receiving.get(one), self._sending.get(one)
        text = str(error)
        if isinstance(error, OSError) and error.filename:
            text = f"{error.filename2 or error.filename}: {error.strerror}"
        if isinstance(error, OSError) or one in self._sending:
            text += " (on the script's machine)"
        self._drop(lambda other, _key: other == one)
        if receiving is not None and receiving.key < 0:
            self._logs_ended(one[0])
        url = error.url if isinstance(error, StagingError) else ""
        transfer = receiving or sending
        if transfer is not None and transfer.key >= 0:
            self._report(transfer, transfer.moved.failed(text, url))
        self._end(one, Ending(text, (), url))

    def _report(self, transfer: _Sending | _Receiving, files: list[FileMoved]) -> None:
        call = self._calls.get(transfer.key)
        if call is not None:
            self._listener.moved(call, files)

    def _end(self, one: _Id, ending: Ending) -> None:
        self._send(pack_file(FileStep.END, *one, pack_ending(ending)))

    def _asked(self, one: _Id, key: int, way: TransferDirection) -> None:
        if way is TransferDirection.LOGS:
            place = self._log_place(one[0])
            if place is None or one[0] not in self._logs_wanted:
                raise StagingError("the script has not asked for logs")
            made = FilesByConnection("", (), (ScriptFile(str(place), str(place), "pattern", "*.log"),))
            arrival = Arrival(made, f"{one[0]:x}-{self._token}", 0o077)
            self._receiving[one] = _Receiving(-one[0], arrival, MovedFiles(made.files, "out", time.monotonic()))
            self._tell(one, self._receiving[one])
            return
        step = self.declared.get(key)
        if step is None:
            raise StagingError("the script does not wait for this try any more, and serves none of its files")
        earlier = None
        if way is TransferDirection.OUT_ON:  # a manager that was cut off goes on, maybe under another number
            for other in [other for other, receiving in self._receiving.items() if receiving.key == key]:
                earlier = self._receiving.pop(other).arrival
        self._drop(lambda _id, other: other == key)
        if way in (TransferDirection.OUT, TransferDirection.OUT_ON):
            moved = MovedFiles(step.files, "out", time.monotonic())
            receiving = self._receiving[one] = _Receiving(key, self._arrival(key, step), moved)
            receiving.goes_on, receiving.earlier = way is TransferDirection.OUT_ON, earlier
            self._tell(one, receiving)
            return
        listing = Listing(step)
        if listing.missing:
            self._end(one, Ending("they do not exist on the script's machine", tuple(listing.missing)))
            return
        self._check_size(listing.size, "its inputs have")
        sending = self._sending[one] = _Sending(key, listing, MovedFiles(step.files, "in", time.monotonic()))
        sending.moved.listed(listing.entries)
        sending.pieces.add(iter((pack_list(listing.entries, packs=True),)))

    def _arrival(self, key: int, step: FilesByConnection) -> Arrival:
        # Of a name of its own each: one that is begun anew must not find the files of the one before.
        self._arrivals += 1
        return Arrival(step, f"{key:x}-{self._token}{self._arrivals:x}", self._umask)

    def _check_size(self, size: int, whose: str) -> None:
        if size > self._limit:
            raise StagingError(
                f"{whose} {size:,} bytes, and at most {self._limit:,} go over the connection of executor "
                f"{self._label!r} (max_transfer_bytes). {CURES}"
            )

    def _tell_progress(self) -> None:
        """Tell of transfers that have been moving for some seconds; the others are told at their end alone."""
        now = time.monotonic()
        for sending in self._sending.values():
            if not sending.ended and sending.moved.due(now):
                self._listener.moving(TryKey(sending.key), sending.moved.progress(sending.window.taken, now))
        for receiving in self._receiving.values():
            if receiving.key >= 0 and receiving.moved.due(now):
                self._listener.moving(TryKey(receiving.key), receiving.moved.progress(receiving.taken, now))

    # -- to nodes

    def _sender(self, sending: _Sending, message: FileMessage) -> None:
        if message.step == FileStep.PROGRESS:
            sending.window.take(*unpack_progress(message.body), time.monotonic())
        elif message.step in (FileStep.WANT, FileStep.WANT_PACKED):
            listing, packed = sending.listing, message.step == FileStep.WANT_PACKED
            small, wanted = [], []
            for number, offset in unpack_want(message.body):
                if number >= len(listing.entries) or listing.entries[number].type != "f":
                    raise StagingError("a manager asked for what was not listed")
                entry = listing.entries[number]
                if packed and not offset and entry.size <= SMALL_BYTES:
                    small.append((number, entry.size, 0, _Opener(listing, number), listing.path(entry)))
                else:
                    wanted.append((number, entry.size, offset, _Opener(listing, number), listing.path(entry)))
            for row in (small, wanted):
                for number, _, offset, _, _ in row:
                    sending.moved.sent(listing.entries[number], offset)
            sending.pieces.add(packs((number, size, opened, named) for number, size, _, opened, named in small))
            sending.pieces.add(bodies(wanted))

    def _send_round(self) -> bool:
        """Send a piece of each transfer to a node that has room; False if none could be sent."""
        moved = False
        out = sum(one.window.out for one in self._sending.values())
        for one, sending in list(self._sending.items()):
            room = 0 if sending.ended else sending.window.next_room(min(_BUDGET - out, PIECE_BYTES))
            if not room:
                continue
            try:
                piece = sending.pieces.take(room)
            except (StagingError, OSError) as error:
                self._fail(one, error)
                continue
            if piece:
                moved = True
                out += len(piece)
                sending.window.add(len(piece), time.monotonic())
                self._send(pack_file(FileStep.DATA, *one, piece))
        return moved

    # -- from nodes

    def _receiver(self, one: _Id, receiving: _Receiving, message: FileMessage) -> None:
        arrival = receiving.arrival
        if message.step == FileStep.DATA:
            for part in receiving.reader.feed(message.body):
                if isinstance(part, BodyPart):
                    arrival.write(part.content)
                elif isinstance(part, BodyBegun):
                    arrival.begin(part.entry, part.offset, part.length)
                elif isinstance(part, BodyEnded):
                    arrival.end(part.digest)
                elif isinstance(part, Listed):
                    self._listed(one, receiving, unpack_list(part.text))
                    arrival = receiving.arrival
            receiving.taken += len(message.body)
            if receiving.taken - receiving.told >= TELL_BYTES:
                self._tell(one, receiving)
        elif message.step == FileStep.END:
            # Only for a try that somebody waits for: what a lost one had made is not published by it.
            if receiving.key >= 0 and receiving.key not in self.declared:
                raise StagingError("the script does not wait for this try any more")
            del self._receiving[one]
            try:
                arrival.publish()
            except BaseException:
                arrival.abandon()
                raise
            if receiving.key < 0:
                self._logs_ended(one[0])
            else:
                self._report(receiving, receiving.moved.moved())
            self._end(one, Ending())

    def _listed(self, one: _Id, receiving: _Receiving, entries: list[Entry]) -> None:
        """Take the list of what a task has made; tell a manager that goes on after a break what is lacking."""
        earlier, receiving.earlier = receiving.earlier, None
        lacking = earlier.lacking(entries) if earlier is not None else None
        if earlier is not None and lacking is not None:
            receiving.arrival = earlier
        else:
            if earlier is not None:
                earlier.abandon()
            self._check_size(receiving.arrival.listed(entries), "its outputs have")
            lacking = [(number, 0) for number, entry in enumerate(entries) if entry.type == "f"]
        receiving.moved.listed(entries)
        for number, offset in lacking:
            receiving.moved.sent(entries[number], offset)
        if receiving.goes_on:
            self._send(pack_file(FileStep.WANT, *one, pack_want(lacking)))

    def _tell_taken(self) -> None:
        """Tell of all that was taken in this turn: a manager that waits for room may wait for the last bytes of it."""
        for one, receiving in self._receiving.items():
            if receiving.taken > receiving.told:
                self._tell(one, receiving)

    def _tell(self, one: _Id, receiving: _Receiving) -> None:
        window = max(LEAST_WINDOW, min(MOST_WINDOW, _BUDGET // max(1, len(self._receiving))))
        receiving.told = receiving.taken
        self._send(pack_file(FileStep.PROGRESS, *one, pack_progress(receiving.taken, window)))


class _Opener:
    """Opens one entry of a list when its turn has come."""

    def __init__(self, listing: Listing, number: int) -> None:
        self._listing = listing
        self._number = number

    def __call__(self) -> int:
        return self._listing.open(self._listing.entries[self._number])


def current_umask() -> int:
    """Return the umask without changing it, which would be seen by all threads."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    return 0o022
