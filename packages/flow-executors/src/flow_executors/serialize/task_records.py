"""Calls as records on the wire: the function by digest, the arguments as a pickle, large buffers beside it.

Functions (``flow_core.remote.functions``) are blobs named by digest: each travels once to a node that asks for it, and
is kept while tasks need it. Arguments are pickled by protocol 5, and by cloudpickle where that is needed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence

from flow_core.errors import SerializationError
from flow_core.guard import called, name_of, one_line, pass_signal, shown
from flow_core.interfaces.call import Call, TryKey
from flow_core.remote import by_value
from flow_core.remote.bringing import pickled_arguments
from flow_core.remote.culprits import explained
from flow_core.remote.functions import digest_of, pack_function, pack_with_listed
from flow_executors.common.large_results import carried
from flow_executors.serialize.buffers import BufferStore, Large
from flow_executors.serialize.script_code import ScriptCode
from flow_executors.wire.tasks import pack_record

_PLAIN = frozenset((type(None), bool, int, float, complex, str))


def pack_plain(call: Call) -> bytes | None:
    """Return the payload of arguments that surely hold neither code nor buffers; None for others."""
    if not (call.args or call.kwargs or call.steps):
        return b""
    if call.kwargs or call.steps or not _PLAIN.issuperset(map(type, call.args)):
        return None
    return pickle.dumps((call.args, call.kwargs, call.steps), 5)


def pack_arguments(
    call: Call, large: Large | None = None, on_code: Callable[[bytes, bytes], object] | None = None
) -> bytes:
    """Return the payload of a call's record: a pickle of ``(args, kwargs, steps)``, empty when all three are.

    ``large`` collects the buffers (pickle 5) that are to travel out of band; without it all stay in the payload.
    ``on_code`` is given digests and blobs of code of which only the digest is in the payload.

    Raises:
        SerializationError: an argument cannot be pickled; the message names it.
    """
    plain = pack_plain(call)
    if plain is not None:
        return plain
    value: tuple[object, object, object] = (call.args, call.kwargs, call.steps)
    if large is not None:
        named = {name: carried(one) for name, one in call.kwargs.items()}
        value = (tuple(map(carried, call.args)), named, call.steps)
    on_buffer = None if large is None else large.keep_in_band
    forget = None if large is None else large.buffers.clear
    try:
        return pickled_arguments(value, on_buffer, forget, on_code)
    except BaseException as error:
        pass_signal(error)
        raise SerializationError(_complaint(call, error)) from error


def _complaint(call: Call, error: BaseException) -> str:
    name = called(call.func)
    where, why = _culprit(call.args, call.kwargs) or ("its arguments", one_line(error))
    return f"{where} of {name} cannot be sent to workers: {why}. Pass plain data, or write it to a file and pass a File"


def _culprit(args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[str, str] | None:
    """Return which argument cannot be pickled, and why."""
    named = [(f"argument {index + 1}", value) for index, value in enumerate(args)]
    named += [(f"argument {shown(key)}", value) for key, value in kwargs.items()]
    for where, value in named:
        try:
            by_value.dumps(value)
        except BaseException as error:
            pass_signal(error)
            return f"{where} ({name_of(value)})", explained(value, error)
    return None


# Functions, and bytes of their blobs, that are kept before those out of use are forgotten; ``_MORE`` is what must come
# until the next time, so that it does not happen with every task.
_LIMIT = 4096
_LIMIT_BYTES = 64 << 20
_MORE = 512
_MORE_BYTES = 16 << 20


class Functions:
    """The functions of a run that were sent or are to be. Any thread."""

    __slots__ = ("_blobs", "_by_identity", "_bytes", "_bytes_limit", "_code", "_condemned", "_limit", "_with_listed")

    def __init__(self, code: ScriptCode | None = None) -> None:
        self._code = code
        self._with_listed: dict[tuple[bytes, bytes], bytes] = {}  # (function, list of files) -> both as one blob
        self._by_identity: dict[int, tuple[object, bytes]] = {}  # the function is kept, so its id stays its own
        self._blobs: dict[bytes, bytes] = {}
        self._condemned: set[bytes] = set()
        self._limit = _LIMIT
        self._bytes = 0
        self._bytes_limit = _LIMIT_BYTES

    def of_call(self, call: Call) -> bytes:
        """Return the digest of a call's function as it was at the call, and keep what it names.

        Raises:
            SerializationError: it cannot be packed; the message names it.
        """
        snapshot = call.snapshot
        if self._code is not None and (listed := self._code.current()) is not None:
            return self._of_listed(call, listed)
        if snapshot is None:
            return self.digest(call.func)
        digest = snapshot.digest
        if digest not in self._blobs or digest in self._condemned:
            self._keep(digest, snapshot.blob)
        return digest

    def digest(self, func: Callable[..., object]) -> bytes:
        """Return the digest of a function without a snapshot, packing it at its first use.

        Raises:
            SerializationError: it cannot be packed; the message names it.
        """
        known = self._by_identity.get(id(func))
        if known is not None:
            return known[1]
        # Once a function: cloudpickle takes 16 us for one of the script's own.
        blob = pack_function(func)
        digest = digest_of(blob)
        self._keep(digest, blob)
        self._by_identity[id(func)] = (func, digest)
        return digest

    def _of_listed(self, call: Call, listed: bytes) -> bytes:
        """Return the digest of a call's function together with the list of the script's own files."""
        digest = call.snapshot.digest if call.snapshot is not None else self.digest(call.func)
        both = self._with_listed.get((digest, listed))
        if both is None or both not in self._blobs or both in self._condemned:
            blob = call.snapshot.blob if call.snapshot is not None else self._blobs[digest]
            blob = pack_with_listed(blob, listed)
            both = digest_of(blob)
            self._keep(both, blob)
            if len(self._with_listed) >= _LIMIT:
                self._with_listed.clear()
            self._with_listed[digest, listed] = both
        return both

    def _keep(self, digest: bytes, blob: bytes) -> None:
        self._condemned.discard(digest)
        if digest not in self._blobs:
            self._blobs[digest] = blob
            self._bytes += len(blob)

    def blob(self, digest: bytes) -> bytes | None:
        """Return a blob by its digest; None if it was never made, or forgotten."""
        return self._blobs.get(digest)

    @property
    def full(self) -> bool:
        """Whether so much is kept that what is not in use should be forgotten."""
        return len(self._blobs) > self._limit or self._bytes > self._bytes_limit

    def forget_others(self, in_use: Iterable[bytes]) -> set[bytes]:
        """Forget functions whose digests are not in use; return the digests forgotten.

        In two steps: what is not in use is condemned, and forgotten at the next call if it is still not in use. A task
        that is being submitted right now keeps its function by that: much more must come before there is a next call.
        """
        keep = set(in_use)
        gone = self._condemned.intersection(list(self._blobs)) - keep  # at once: other threads add to it meanwhile
        for digest in gone:
            self._blobs.pop(digest, None)
        # Copies of the dicts, not lists of their items: making tuples may begin a collection, and that lets others add.
        self._by_identity = {key: pair for key, pair in self._by_identity.copy().items() if pair[1] in keep}
        kept = self._blobs.copy()
        self._condemned = kept.keys() - keep
        used = sum(len(blob) for digest, blob in kept.items() if digest in keep)
        self._bytes = sum(map(len, kept.values()))
        self._limit = max(_LIMIT, 2 * len(keep), len(self._blobs) + _MORE)
        self._bytes_limit = max(_LIMIT_BYTES, 2 * used, self._bytes + _MORE_BYTES)
        return gone


class Records:
    """Makes the records of one client, and keeps what they refer to. Any thread.

    Args:
        code: The script's own modules, for nodes that may not see them; None: they see them.

    Attributes:
        functions: The functions that records name.
        buffers: The large buffers that records point to.
    """

    __slots__ = ("_code", "buffers", "functions")

    def __init__(self, code: ScriptCode | None = None) -> None:
        self._code = code
        self.functions = Functions(code)
        self.buffers = BufferStore()

    def pack(self, key: TryKey, class_id: int, call: Call) -> tuple[bytes, bytes]:
        """Return the digest of a call's function, and its record.

        Raises:
            SerializationError: the function or an argument cannot be packed; the message names it.
        """
        digest = self.functions.of_call(call)
        plain = pack_plain(call)
        if plain is not None:
            return digest, pack_record(digest, key, class_id, plain)
        large = None if self.buffers.full else Large()
        code: dict[bytes, bytes] = {}
        payload = pack_arguments(call, large, code.__setitem__)
        if code:
            self.buffers.code.keep(key, code)
        if large is None or not large.buffers:
            return digest, pack_record(digest, key, class_id, payload)
        try:
            return digest, pack_record(digest, key, class_id, payload, self.buffers.keep(key, large.buffers))
        except OSError:  # no memory file to be had: in band
            return digest, pack_record(digest, key, class_id, pack_arguments(call, None, code.__setitem__))

    def blob(self, digest: bytes) -> bytes | None:
        """Return the function, the code or the buffers of that digest; None if there are none (any more)."""
        files = self._code.blob(digest) if self._code is not None else None
        return self.functions.blob(digest) or files or self.buffers.blob(digest)
