"""Records of the event log: events as rows of plain JSON, and back; each log names the fields that its rows have.

A row is ``[code, field, field, ...]``; places, which repeat, stand once a frame, and rows hold their number in it. A
log written by another version is read by field names: fields it lacks get their defaults, fields and kinds of events
unknown here are skipped. So the log stays readable when the records grow. JSON has no number without end: such a cost
(of a task that its retry handler gave up) is null in a row.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, index, itemgetter
from os import PathLike, fspath
from typing import Any, Final, SupportsFloat, SupportsIndex, cast, get_args

import orjson

from flow_core.interfaces.events import Event, EventRecord, Sampled, TaskEnded, TryEnded, TryStarted
from flow_core.interfaces.outcome import Place, Usage
from flow_core.interfaces.sampler import Sample
from flow_monitor.errors import LogError

VERSION = 1
"""Version of the log's format; a reader refuses higher ones."""

EVENT_TYPES: tuple[type, ...] = get_args(Event)
_NESTED: tuple[type, ...] = (Place, Usage, Sample)

Row = list[Any]
"""``[code, field, ...]`` with the fields of this version in their order; places, usages and samples are sequences."""
Record = EventRecord | Event
"""An event, or ``(EventClass, field, ...)``: as the kernel makes them."""


def _field_names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


_FIELDS = {cls: _field_names(cls) for cls in (*EVENT_TYPES, *_NESTED)}
CODES: Final = {cls: code for code, cls in enumerate(EVENT_TYPES)}
"""The first item of a row, by kind of event."""
_GETTERS = {cls: cast("Callable[[object], tuple[object, ...]]", attrgetter(*names)) for cls, names in _FIELDS.items()}
_PLACE_AT = {cls: _FIELDS[cls].index("place") + 1 for cls in EVENT_TYPES if "place" in _FIELDS[cls]}


def reader_of(cls: type, *names: str) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Return a getter of two or more fields of a row by name, wherever the installed flow-core has them.

    Rows of events begin with their code; those of places, usages and samples do not. Raises ValueError where the
    installed flow-core has no such field.
    """
    fields = _FIELDS[cls]
    missing = [name for name in names if name not in fields]
    if missing:
        raise ValueError(f"{cls.__name__} of the installed flow-core has no {', '.join(missing)}: upgrade flow-core")
    # itemgetter runs in C: the names cost nothing for each event.
    first = int(cls in CODES)
    return itemgetter(*(fields.index(name) + first for name in names))


def header_json(run_id: str, epoch: int) -> bytes:
    """Return the header of a log: its version, its run, and the names of all fields."""
    head = {
        "flow_events": VERSION,
        "run_id": run_id,
        "epoch": epoch,
        "events": [[cls.__name__, list(_FIELDS[cls])] for cls in EVENT_TYPES],
        "nested": {cls.__name__: list(_FIELDS[cls]) for cls in _NESTED},
    }
    return orjson.dumps(head)


def records_json(records: Sequence[Record]) -> bytes:
    """Return a batch as JSON: the places it names, then its rows. Raises TypeError, ValueError or LookupError."""
    plain = _Plain()
    # Rows before places: encoding them is what finds the places.
    rows = _encoded(records, plain)
    return b"[%b,%b]" % (_encoded([_GETTERS[Place](place) for place in plain.places], plain), rows)


class _Plain:
    """The default function of the JSON encoder: makes plain what it does not know, and collects places."""

    __slots__ = ("_numbers", "places")

    def __init__(self) -> None:
        self.places: list[Place] = []
        self._numbers: dict[int, int] = {}

    def __call__(self, value: object) -> object:
        cls = type(value)
        # A record of the kernel begins with its class, where a row has its code.
        if cls is type:
            return CODES[cast(type, value)]
        if cls is Place:
            return self._number(cast(Place, value))
        getter = _GETTERS.get(cls)
        if getter is None:
            return _simple(value)
        # An event as an object becomes a row with its code; a usage or sample is nested and has none.
        code = CODES.get(cls)
        return getter(value) if code is None else (code, *getter(value))

    def _number(self, place: Place) -> int:
        number = self._numbers.get(id(place))  # by identity: hashing its fields costs more than repeating some
        if number is None:
            number = self._numbers[id(place)] = len(self.places)
            self.places.append(place)
        return number


def _simple(value: object) -> object:
    """Return a value that is nearly plain as a plain one. Raises TypeError."""
    if isinstance(value, PathLike):
        return fspath(value)
    # Subclasses, such as NamedTuple, which orjson does not take.
    if isinstance(value, tuple):
        return tuple(value)
    if isinstance(value, SupportsIndex):
        return index(value)
    if isinstance(value, SupportsFloat):
        return float(value)
    raise TypeError(f"{type(value).__name__} is nothing that an event holds")


def _encoded(values: Sequence[object], plain: _Plain) -> bytes:
    try:
        # Dataclasses pass through: orjson would write them as mappings, with the names of the fields in each row.
        return orjson.dumps(values, plain, orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError:  # a text that is no Unicode, as names of files can be, or what is nothing of an event
        given = json.dumps(values, separators=(",", ":"), default=plain, check_circular=False)
        return given.encode("ascii")


def row_of(event: Event) -> Row:
    """Return an event as a row."""
    return [CODES[type(event)], *map(_sequence, _GETTERS[type(event)](event))]


def _sequence(value: object) -> object:
    if isinstance(value, _NESTED):
        return _GETTERS[type(value)](value)
    return tuple(map(_sequence, value)) if isinstance(value, tuple) else value


def event_of(row: Row) -> Event:
    """Return a row as an event. Raises TypeError where its fields are no such event's."""
    cls = EVENT_TYPES[row[0]]
    fields: list[Any] = [tuple(value) if isinstance(value, list) else value for value in row[1:]]
    # Places and usages are plain sequences in a row, see records_json().
    if cls in (TryStarted, TryEnded):
        at = _PLACE_AT[cls] - 1
        fields[at] = None if fields[at] is None else Place(*fields[at])
    if cls is TaskEnded:
        at = _FIELDS[cls].index("fail_cost")
        fields[at] = cost_of(fields[at])
    if cls is TryEnded:
        at = _FIELDS[cls].index("usage")
        fields[at] = None if fields[at] is None else Usage(*fields[at])
    if cls is Sampled:
        at = _FIELDS[cls].index("samples")
        fields[at] = tuple(Sample(*sample) for sample in fields[at])
    return cast(Event, cls(*fields))


def cost_of(told: float | None) -> float:
    """Return the cost of a task's failures from a row, where infinity is null."""
    return math.inf if told is None else told


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """Header of a log: its run, its version, and a decoder for its rows."""

    run_id: str
    epoch: int
    version: int
    decode: Callable[[bytes], list[Row]]
    """Turns the JSON of a batch into rows; raises ValueError, TypeError or LookupError on rubbish."""


def read_header(payload: bytes) -> Header:
    """Read the header of a log from its JSON.

    Raises:
        LogError: it is not one, or is of a version made by a newer Flow.
    """
    try:
        head: dict[str, Any] = json.loads(payload)
        version = int(head["flow_events"])
        # Added fields and kinds need no new version: those are matched by name.
        if version > VERSION:
            raise LogError(
                f"the event log has version {version}, this Flow reads up to {VERSION}: upgrade flow-monitor"
            )
        return Header(str(head["run_id"]), int(head["epoch"]), version, _decoder(head["events"], head["nested"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise LogError(f"the event log has no readable header: {error!r}") from error


def _decoder(events: Sequence[tuple[str, list[str]]], nested: Mapping[str, list[str]]) -> Callable[[bytes], list[Row]]:
    # Nearly every log is of the same version: then rows need no reordering.
    same = [(name, tuple(names)) for name, names in events] == [(c.__name__, _FIELDS[c]) for c in EVENT_TYPES]
    if same and all(tuple(nested.get(cls.__name__, ())) == _FIELDS[cls] for cls in _NESTED):
        return _decode_ours
    return _OtherDecoder(events, nested)


_MOST_VALUES = 8 << 20
"""Values in a batch: each is some 60 bytes of memory, so a log of somebody else takes half a gigabyte at most."""


def _load(payload: bytes) -> tuple[list[Any], list[Row]]:
    # Counted before parsing, for it is the parsed values that take the memory. Each value follows one of these bytes.
    if len(payload) > _MOST_VALUES and sum(map(payload.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise ValueError("more values than any batch has")
    try:
        batch = orjson.loads(payload)
    except ValueError:  # lone surrogates, and what earlier versions wrote of numbers without end
        try:
            batch = json.loads(payload)
        except RecursionError:
            raise ValueError("deeper than any batch is") from None
    # A search in the bytes first: going through all values of each batch would cost more than parsing it.
    if b"\\u" in payload and (b"\\ud" in payload or b"\\u0000" in payload):
        batch = _clean(batch)
    places, rows = batch
    return places, rows


_PLACED = [_PLACE_AT.get(cls, 0) for cls in EVENT_TYPES]


def _decode_ours(payload: bytes) -> list[Row]:
    places, rows = _load(payload)
    # A local name: this loop is entered for each event of the projection.
    placed = _PLACED
    for row in rows:
        at = placed[row[0]]
        if at and row[at] is not None:
            row[at] = places[row[at]]
    return rows


class _OtherDecoder:
    """Turns the rows of another version into ours, by the names of their fields."""

    def __init__(self, events: Sequence[tuple[str, list[str]]], nested: Mapping[str, list[str]]) -> None:
        self._nested = {cls: _mapping(cls, nested.get(cls.__name__, [])) for cls in _NESTED}
        known = {cls.__name__: cls for cls in EVENT_TYPES}
        self._events = [
            (known[name], _mapping(known[name], names)) if name in known else None for name, names in events
        ]

    def __call__(self, payload: bytes) -> list[Row]:
        given, rows = _load(payload)
        places = [self._nested[Place](place) for place in given]
        out: list[Row] = []
        for row in rows:
            found = self._events[row[0]]
            if found is None:
                continue
            cls, ours = found
            made = [CODES[cls], *ours(row[1:])]
            self._mend(cls, made, places)
            out.append(made)
        return out

    def _mend(self, cls: type, row: Row, places: Sequence[Row]) -> None:
        at = _PLACE_AT.get(cls)
        if at is not None and row[at] is not None:
            row[at] = places[row[at]]
        if cls is TryEnded:
            at = _FIELDS[cls].index("usage") + 1
            row[at] = None if row[at] is None else self._nested[Usage](row[at])
        if cls is Sampled:
            at = _FIELDS[cls].index("samples") + 1
            row[at] = [self._nested[Sample](sample) for sample in row[at]]


def _mapping(cls: type, names: Sequence[str]) -> Callable[[Sequence[object]], Row]:
    """Return a function that brings values of the given fields into the order of ours, defaults for missing ones."""
    ours = _FIELDS[cls]
    at = {name: names.index(name) for name in ours if name in names}
    defaults = {f.name: _default(f) for f in dataclasses.fields(cast(Any, cls))}

    def bring(values: Sequence[object]) -> Row:
        """Return the values in the order of ours."""
        return [values[at[name]] if name in at else defaults[name] for name in ours]

    return bring


def _default(field: dataclasses.Field[object]) -> object:
    """Return the value of a field that a log does not have: its default, else the empty value of its type."""
    if field.default is not dataclasses.MISSING:
        return field.default
    annotation = str(field.type)
    if "None" in annotation:
        return None
    return {"int": 0, "float": 0.0, "bool": False, "str": ""}.get(annotation, ())


def _clean(value: object) -> Any:  # JSON of any shape
    """Replace what databases do not store: lone surrogates and NUL characters."""
    if isinstance(value, str):
        # By UTF-16 and back: pairs of surrogates become their character, lone ones are replaced.
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
