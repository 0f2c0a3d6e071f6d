"""Exceptions that cross processes: as themselves where possible, as a RemoteError otherwise, never not at all.

A packed exception is a pickle of plain data: type name, text, frames of the traceback and notes always; the pickled
exception when it comes back as itself; cause, context and the members of a group each packed in the same way.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable

from flow_core.errors import AppException, FlowError, RemoteError
from flow_core.guard import attribute, is_a, name_of, shown as shown_value, text_of, traceback_by

_TEXT_LIMIT = 64 * 1024  # characters of any one text
_BLOB_LIMIT = 1024 * 1024  # bytes of one pickled exception
_CHAIN_LIMIT = 16  # causes of causes
_MEMBERS_LIMIT = 256  # members of one group

_HEADER = "Remote traceback:\n"
# How a pickle names the module whose import begins MPI in a process: that would end a worker in a job of a scheduler.
_MPI = "mpi4py.MPI"
_NAMES_MPI = b"\x8c" + bytes((len(_MPI),)) + _MPI.encode() + b"\x94"

_Record = dict[str, object]


def pack(exc: BaseException) -> bytes:
    """Turn an exception into bytes that ``unpack`` understands in another process. Never raises, whatever it is given.

    The size is bounded: long texts are cut in the middle, and an exception of more than a mebibyte travels without
    the attributes that make it so.
    """
    try:
        return pickle.dumps(_record(exc, 0, set()), protocol=5)
    # BaseException in this file: methods of the user's exceptions run here and may raise anything, SystemExit too.
    except BaseException:  # so odd that not even all of its description can be made
        record = {"type": name_of(exc), "text": cut(text_of(exc)), "notes": [], "suppress": False}
        return pickle.dumps(record, protocol=5)


def unpack(data: bytes) -> BaseException:
    """Rebuild an exception: the original type where it can be loaded here, else RemoteError.

    One of mpi4py comes back as itself only where ``mpi4py.MPI`` is loaded already. The remote traceback is its
    ``remote_traceback`` attribute, with those of its causes and members, and a note that tracebacks show. Source lines
    are looked up here; frames of Flow are left out (see ``flow_core.remote.tracebacks``). Causes are chained.

    Raises:
        ValueError: the bytes are not a packed exception.
    """
    try:
        record = pickle.loads(data)
    except Exception as error:
        raise ValueError(f"not a packed exception: {text_of(error)}") from error
    if not isinstance(record, dict) or "type" not in record:
        raise ValueError("not a packed exception")
    return _rebuild(record)


def cut(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Shorten a text to about ``limit`` characters by leaving out its middle, saying how much."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... [{len(text) - 2 * half} characters left out] ...\n{text[-half:]}"


# -- packing


def _record(exc: BaseException, depth: int, seen: set[int]) -> _Record:
    # Chains may be circles: an exception can be its own context.
    seen.add(id(exc))
    record: _Record = {
        "type": f"{type(exc).__module__}.{type(exc).__qualname__}",
        "text": cut(text_of(exc)),
        "notes": _notes(exc),
        "suppress": attribute(exc, "__suppress_context__") is True,
        **_traceback(exc),
    }
    if is_a(exc, BaseExceptionGroup):
        members = exc.exceptions[:_MEMBERS_LIMIT]
        record["members"] = [_record(member, depth + 1, seen) for member in members] if depth < _CHAIN_LIMIT else []
        # Members travel one by one, each as far as it can; the group is made of them again on the other side.
        record["class"] = _dumps(type(exc))
        record["message"] = cut(text_of(exc.message))
    else:
        record["whole"] = _whole(exc)
        if record["whole"] is None:
            record["parts"] = _parts(exc)
    for name in ("cause", "context"):
        linked = attribute(exc, f"__{name}__")
        if is_a(linked, BaseException) and id(linked) not in seen and depth < _CHAIN_LIMIT:
            record[name] = _record(linked, depth + 1, seen)
    return record


def _notes(exc: BaseException) -> list[str]:
    notes = attribute(exc, "__notes__")
    if type(notes) is not list and type(notes) is not tuple:
        return []
    return [cut(note) for note in notes[:_CHAIN_LIMIT] if type(note) is str and not note.startswith(_HEADER)]


def _traceback(exc: BaseException) -> _Record:
    """Return the material of a traceback: frames, the last lines, and the text that an earlier process made."""
    earlier = attribute(exc, "remote_traceback")
    told: _Record = {"deliberate": is_a(exc, FlowError), "earlier": earlier if type(earlier) is str else ""}
    try:
        import traceback

        from flow_core.remote.tracebacks import frames

        told["frames"] = frames(exc.__traceback__)
        told["last"] = cut(traceback_by(exc, lambda: "".join(traceback.format_exception_only(type(exc), exc))))
    except BaseException as error:
        told["last"] = f"<the traceback cannot be shown: {name_of(error)}>\n"
    return told


def _dumps(value: object) -> bytes | None:
    """Pickle by reference where that works, by value (classes of ``__main__``, local classes) elsewhere."""
    try:
        data = pickle.dumps(value, protocol=5)
        # The other process has a __main__ of its own, where the name means nothing or something else.
        if b"__main__" not in data and b"__mp_main__" not in data:
            return data
    except BaseException:
        pass
    try:
        from flow_core.remote import by_value

        return by_value.dumps(value)
    except BaseException:
        return None


def _whole(exc: BaseException) -> bytes | None:
    """Return the pickled exception if it is small enough and comes back as itself."""
    data = _dumps(exc)
    if data is None or len(data) > _BLOB_LIMIT:
        return None
    try:
        # Tried here: an exception whose constructor wants other arguments than args pickles well and fails on the other
        # side.
        back = pickle.loads(data)
        same = type(back) is type(exc) and len(back.args) == len(exc.args) and text_of(back) == text_of(exc)
    except BaseException:
        return None
    return data if same else None


def _parts(exc: BaseException) -> tuple[bytes, bytes, bytes] | None:
    """Return class, args and attributes pickled one by one, those that cannot travel replaced by their repr."""
    kind = _dumps(type(exc))
    if kind is None:
        return None
    args = _dumps(tuple(_portable(value) for value in exc.args))
    state = _dumps({name: _portable(value) for name, value in _state(exc).items()})
    if args is None or state is None or len(args) + len(state) + len(kind) > 2 * _BLOB_LIMIT:
        return None
    try:
        back = _assemble(kind, args, state)
    except BaseException:
        return None
    return (kind, args, state) if type(back) is type(exc) else None


def _state(exc: BaseException) -> dict[str, object]:
    state = attribute(exc, "__dict__")
    return (
        {}
        if type(state) is not dict
        else {name: value for name, value in state.items() if name not in ("__notes__", "remote_traceback")}
    )


def _portable(value: object) -> object:
    data = _dumps(value)
    if data is not None and len(data) <= _TEXT_LIMIT:
        try:
            pickle.loads(data)
        except BaseException:
            data = None
    if data is not None and len(data) <= _TEXT_LIMIT:
        return value
    if type(value) is str:
        return cut(value, _TEXT_LIMIT // 4)
    try:
        return cut(str.__str__(repr(value)), _TEXT_LIMIT // 16)
    except BaseException:
        return f"<{name_of(value)}>"


# -- unpacking


def _assemble(kind: bytes, args: bytes, state: bytes) -> BaseException:
    """Make an exception without calling its own constructor, which may want other arguments than ``args``."""
    cls = pickle.loads(kind)
    values: tuple[object, ...] = pickle.loads(args)
    # The built-in base knows how to be made of args; classes of the user's own may want anything.
    exc: BaseException = _built_in_base(cls).__new__(cls, *values)
    _built_in_init(cls)(exc, *values)
    # Past a __setattr__ of the class, which may refuse or do something else.
    object.__setattr__(exc, "args", values)
    exc.__dict__.update(pickle.loads(state))
    return exc


def _built_in_base(cls: type[BaseException]) -> type[BaseException]:
    return next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)


def _built_in_init(cls: type[BaseException]) -> Callable[..., None]:
    return _built_in_base(cls).__init__


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: classes made by Python code


def _rebuild(record: _Record, deliberate: bool = False) -> BaseException:
    """Rebuild an exception; ``deliberate`` where it is the cause of one that Flow raised on purpose."""
    deliberate = deliberate or bool(record.get("deliberate"))
    whole = cut(_whole_traceback(record, deliberate))
    exc = _original(record)
    if exc is None:
        exc = RemoteError(str(record["type"]), str(record["text"]), whole)
    notes = record.get("notes")
    own = _own_traceback(record, deliberate) if _stack(record, deliberate) else ""
    _decorate(exc, list(notes) if isinstance(notes, list) else [], whole, own)
    for name in ("cause", "context"):
        linked = record.get(name)
        if isinstance(linked, dict):
            _set(exc, f"__{name}__", _rebuild(linked, deliberate))
    _set(exc, "__suppress_context__", bool(record.get("suppress")))
    return exc


def _original(record: _Record) -> BaseException | None:
    try:
        if "members" in record:
            return _group(record)
        whole, parts = record.get("whole"), record.get("parts")
        if _begins_mpi(whole, *(parts if isinstance(parts, tuple) else ())):
            return None
        if isinstance(whole, bytes):
            exc = pickle.loads(whole)
        elif isinstance(parts, tuple):
            exc = _assemble(*parts)
        else:
            return None
    except BaseException:
        return None
    return exc if is_a(exc, BaseException) else None


def _begins_mpi(*pickles: object) -> bool:
    """Tell whether loading these would import what begins MPI in this process."""
    return _MPI not in sys.modules and any(isinstance(data, bytes) and _NAMES_MPI in data for data in pickles)


def _group(record: _Record) -> BaseException:
    listed = record["members"]
    members = [_rebuild(member) for member in listed] if isinstance(listed, list) else []
    # Python makes no group without members; those beyond the limit of depth were left out.
    if not members:
        return RemoteError(str(record["type"]), str(record["text"]))
    message, kind = str(record["message"]), record["class"]
    if isinstance(kind, bytes):
        try:
            made: BaseException = pickle.loads(kind)(message, members)
            return made
        except BaseException:
            pass
    return BaseExceptionGroup(message, members)


def _decorate(exc: BaseException, notes: list[str], whole: str, own: str) -> None:
    """Attach the remote tracebacks: ``whole`` has those of the causes too, which carry their own as notes."""
    _set(exc, "remote_traceback", whole)
    _set(exc, "__notes__", [*notes, _HEADER + own] if own else notes)


def _set(exc: BaseException, name: str, value: object) -> None:
    """Set an attribute, also where the class forbids it, as frozen dataclasses do; leave out what cannot be set."""
    try:
        object.__setattr__(exc, name, value)
    except BaseException:
        pass  # a property of the class's own


# -- the text of a remote traceback


_LINKS = {
    "cause": "\nThe above exception was the direct cause of the following exception:\n\n",
    "context": "\nDuring handling of the above exception, another exception occurred:\n\n",
}


def _stack(record: _Record, deliberate: bool) -> str:
    """Return header and frames of one exception; nothing where none is to be shown. Made once for each record."""
    from flow_core.remote.tracebacks import HEADER, shown

    stack = record.get("stack")
    if isinstance(stack, str):
        return stack
    described, earlier = record.get("frames"), str(record.get("earlier", ""))
    lines = shown(described, deliberate) if isinstance(described, list) else ""
    # The exception has crossed a process before: its first traceback is kept and only the new frames are added.
    if earlier:
        stack = f"{earlier}\nraised again through:\n{lines}" if lines else earlier
    else:
        stack = HEADER + lines if lines else ""
    record["stack"] = stack
    return stack


def _own_traceback(record: _Record, deliberate: bool) -> str:
    return _stack(record, deliberate) + ("" if record.get("earlier") else str(record.get("last", "")))


def _whole_traceback(record: _Record, deliberate: bool, depth: int = 0) -> str:
    """Return the traceback of an exception, before it those of its causes, after it those of its members."""
    deliberate = deliberate or bool(record.get("deliberate"))
    text = _own_traceback(record, deliberate)
    members = record.get("members")
    if isinstance(members, list):
        for number, member in enumerate(members, 1):
            told = _whole_traceback(member, deliberate, depth + 1)
            text += f"  +-- member {number} of {len(members)}\n" + "".join(f"  | {row}\n" for row in told.splitlines())
    for name in ("cause", "context"):
        linked = record.get(name)
        if isinstance(linked, dict) and depth < _CHAIN_LIMIT and not (name == "context" and record.get("suppress")):
            return _whole_traceback(linked, deliberate, depth + 1) + _LINKS[name] + text
    return text


def presentable(error: BaseException) -> BaseException:
    """Return an error of the app in place of what would end a whole process or thread: the same on each executor."""
    if is_a(error, Exception):
        return error
    if is_a(error, SystemExit):
        text = f"the app ended its process: sys.exit({shown_value(error.code)})"
    elif is_a(error, KeyboardInterrupt):
        text = "the app was interrupted (KeyboardInterrupt, or SIGINT sent to its worker)"
    else:
        text = f"the app raised {name_of(error)}: {text_of(error)}"
    # As it is, SystemExit would end the worker and KeyboardInterrupt the script that looks at the result.
    presented = AppException(text)
    presented.__cause__ = error
    return presented
