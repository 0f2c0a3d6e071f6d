"""Events as rows of plain JSON, and back; each log says itself which fields its rows have.

A log written by another version is read by field names: fields it lacks get their defaults, fields and kinds of events
unknown here are skipped. So the log stays readable when the records grow.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar, cast, get_args

from flow_core.interfaces.events import Event, Sampled
from flow_core.interfaces.outcome import Place, Usage
from flow_core.interfaces.sampler import Sample
from flow_monitor.errors import LogError

VERSION = 1
"""Version of the log's format; a reader refuses higher ones."""

EVENT_TYPES: tuple[type, ...] = get_args(Event)
_NESTED: tuple[type, ...] = (Place, Usage, Sample)

T = TypeVar("T")
Row = list[object]


def _field_names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


_FIELDS = {cls: _field_names(cls) for cls in (*EVENT_TYPES, *_NESTED)}
_CODES = {cls: code for code, cls in enumerate(EVENT_TYPES)}
_GETTERS = {cls: cast("Callable[[object], tuple[object, ...]]", attrgetter(*names)) for cls, names in _FIELDS.items()}


def header_json(run_id: str, epoch: int) -> bytes:
    """Return the header of a log: its version, its run, and the names of all fields."""
    return _dump(
        {
            "flow_events": VERSION,
            "run_id": run_id,
            "epoch": epoch,
            "events": [[cls.__name__, list(_FIELDS[cls])] for cls in EVENT_TYPES],
            "nested": {cls.__name__: list(_FIELDS[cls]) for cls in _NESTED},
        }
    )


def rows_json(events: Sequence[Event]) -> bytes:
    """Return a batch of events as JSON: a list of ``[code, field, field, ...]``. Raises TypeError or ValueError."""
    return _dump([(_CODES[type(event)], *_GETTERS[type(event)](event)) for event in events])


def _plain(value: object) -> object:
    getter = _GETTERS.get(type(value))
    return str(value) if getter is None else getter(value)


_encoder = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=_plain, check_circular=False)


def _dump(value: object) -> bytes:
    return _encoder.encode(value).encode("ascii")


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What a log says of itself."""

    run_id: str
    epoch: int
    version: int
    decode: Callable[[bytes], list[Event]]
    """Turns the JSON of a batch into events; raises ValueError, TypeError or KeyError on rubbish."""


def read_header(payload: bytes) -> Header:
    """Read a log's header.

    Raises:
        LogError: it is not one, or is of a version made by a newer Flow.
    """
    try:
        head: dict[str, Any] = json.loads(payload)
        version = int(head["flow_events"])
        if version > VERSION:
            raise LogError(
                f"the event log has version {version}, this Flow reads up to {VERSION}: upgrade flow-monitor"
            )
        decoder = _Decoder(head["events"], head["nested"])
        return Header(str(head["run_id"]), int(head["epoch"]), version, decoder)
    except (ValueError, KeyError, TypeError) as error:
        raise LogError(f"the event log has no readable header: {error!r}") from error


class _Decoder:
    """Turns rows into events, by the field names of one log."""

    def __init__(self, events: Sequence[tuple[str, list[str]]], nested: Mapping[str, list[str]]) -> None:
        self._places: dict[tuple[object, ...], Place] = {}
        self._make_place = _maker(Place, nested.get("Place"))
        self._make_usage = _maker(Usage, nested.get("Usage"))
        self._make_sample = _maker(Sample, nested.get("Sample"))
        known = {cls.__name__: cls for cls in EVENT_TYPES}
        self._makers: list[Callable[[Row], Event] | None] = [
            self._event_maker(known[name], names) if name in known else None for name, names in events
        ]

    def __call__(self, payload: bytes) -> list[Event]:
        rows: list[Row] = json.loads(payload)
        if b"\\ud" in payload or b"\\u0000" in payload:
            rows = cast("list[Row]", _clean(rows))
        makers = self._makers
        out: list[Event] = []
        for row in rows:
            make = makers[cast(int, row[0])]
            if make is not None:
                out.append(make(row))
        return out

    def _event_maker(self, cls: type, names: list[str]) -> Callable[[Row], Event]:
        make = cast("Callable[[Row], Event]", _maker(cls, names))
        fixes: list[tuple[int, Callable[[object], object]]] = [
            (names.index(name) + 1, fix)
            for name, fix in (("place", self._place), ("usage", self._usage))
            if name in names
        ]
        if cls is Sampled and "samples" in names:
            fixes.append((names.index("samples") + 1, self._samples))
        lists = [
            names.index(f.name) + 1
            for f in dataclasses.fields(cls)
            if f.name in names and f.name != "samples" and str(f.type).startswith("tuple")
        ]

        def event(row: Row) -> Event:
            for at, fix in fixes:
                row[at] = fix(row[at])
            for at in lists:
                row[at] = tuple(cast("list[object]", row[at]))
            return make(row[1:])

        return event

    def _place(self, value: object) -> Place | None:
        if value is None:
            return None
        key = tuple(cast("list[object]", value))
        place = self._places.get(key)
        if place is None:
            if len(self._places) > 100_000:
                self._places.clear()
            place = self._places[key] = self._make_place(list(key))
        return place

    def _usage(self, value: object) -> Usage | None:
        return None if value is None else self._make_usage(cast(Row, value))

    def _samples(self, value: object) -> tuple[Sample, ...]:
        return tuple(self._make_sample(row) for row in cast("list[Row]", value))


def _maker(cls: type[T], names: Sequence[str] | None) -> Callable[[Row], T]:
    """Return a constructor from a row whose fields have the given names."""
    ours = _FIELDS[cls]
    if names is None or tuple(names) == ours:
        return lambda row: cls(*row)
    places = [(at, name) for at, name in enumerate(names) if name in ours]
    defaults = {
        f.name: _blank(str(f.type)) for f in dataclasses.fields(cast(Any, cls)) if f.default is dataclasses.MISSING
    }

    def make(row: Row) -> T:
        return cls(**{**defaults, **{name: row[at] for at, name in places}})

    return make


def _blank(annotation: str) -> object:
    """Return an empty value for a field without default that a log does not have."""
    if "None" in annotation:
        return None
    return {"int": 0, "float": 0.0, "bool": False, "str": ""}.get(annotation, ())


def _clean(value: object) -> object:
    """Replace what databases do not store: lone surrogates and NUL characters."""
    if isinstance(value, str):
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
