"""From results on the wire to Outcomes. The only place where the client unpickles, and what it guards against."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Container

from flow_core.errors import DeserializationError, TaskRefused
from flow_core.guard import one_line
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Place, Usage, Verdict
from flow_core.remote.errors import unpack
from flow_executors.client.directory import Directory
from flow_executors.errors import BadMessage
from flow_executors.serialize.buffers import BufferGone, let_go, load_with_buffers
from flow_executors.wire.frames import ResultBatch, unpack_loss, unpack_usage
from flow_executors.wire.results import BUFFERS, USAGE, USAGE_SIZE, VERDICT_MASK, read_usage

_OK = Verdict.OK
_OK_MEASURED = _OK | USAGE


def outcomes_of(batch: ResultBatch, known: Container[int], directory: Directory) -> list[Outcome]:
    """Return the outcomes of the keys that are known, each once."""
    found: list[Outcome] = []
    number = batch.manager
    offset = directory.offset_ns(number, batch.offset_ns)
    place_of, loads = directory.place, pickle.loads
    seen: set[int] = set()
    for key, start, end, worker, status, payload in zip(
        batch.keys, batch.starts, batch.ends, batch.workers, batch.statuses, batch.payloads(), strict=True
    ):
        if key not in known or key in seen:
            if status & BUFFERS:
                _let_go(status, payload)
            continue
        seen.add(key)
        place = place_of(number, worker)
        start, end = start and start + offset, end and end + offset
        usage: Usage | None = None
        if status == _OK_MEASURED and len(payload) >= USAGE_SIZE:
            usage, payload, status = Usage(*read_usage(payload)), payload[USAGE_SIZE:], _OK
        if status == _OK:
            try:
                value = loads(payload) if len(payload) else None
            except BaseException as error:
                found.append(_unreadable(key, error, place, start, end))
                continue
            found.append(Outcome(TryKey(key), _OK, value, None, None, place, start, end, usage))
        else:
            found.append(_outcome(key, status, payload, place, start, end))
    return found


def _outcome(key: int, status: int, payload: memoryview, place: Place, start: int, end: int) -> Outcome:
    usage: Usage | None = None
    try:
        if status & USAGE:
            usage, payload = unpack_usage(payload)
        outcome = _by_verdict(key, Verdict(status & VERDICT_MASK), bool(status & BUFFERS), payload, place)
    except BaseException as error:
        outcome = _unreadable(key, error, place, start, end)
    outcome.place, outcome.started_ns, outcome.ended_ns, outcome.usage = place, start, end, usage
    return outcome


def _let_go(status: int, payload: memoryview) -> None:
    """Give back the file of a result that comes too late."""
    with contextlib.suppress(BadMessage, OSError, ValueError):
        let_go(payload[USAGE_SIZE:] if status & USAGE else payload)


def _by_verdict(key: int, verdict: Verdict, buffers: bool, payload: memoryview, place: Place) -> Outcome:
    outcome = Outcome(TryKey(key), verdict)
    if verdict is Verdict.OK:
        try:
            outcome.value = load_with_buffers(payload, buffers)
        except BufferGone as error:
            outcome.verdict = Verdict.LOST
            outcome.loss = Loss(LossKind.TRANSFER, place, reason=f"the task had ended, but {error}")
    elif verdict is Verdict.APP_ERROR:
        outcome.error = unpack(bytes(payload))
    elif verdict is Verdict.LOST:
        outcome.loss = _loss(payload, place)
    elif verdict is Verdict.REFUSED:
        outcome.error = TaskRefused(str(payload, "utf-8", "replace"))
    return outcome


def _loss(payload: memoryview, place: Place) -> Loss:
    try:
        return unpack_loss(payload, place)
    except BadMessage as error:
        return Loss(LossKind.TRANSFER, place, reason=f"the task was lost; why could not be read: {error}")


def _unreadable(key: int, error: BaseException, place: Place, start: int, end: int) -> Outcome:
    problem = DeserializationError(
        f"the result of the task could not be unpickled here ({one_line(error)}): the packages and "
        "classes that it needs must be importable in the script, too"
    )
    problem.__cause__ = error
    return Outcome(TryKey(key), Verdict.APP_ERROR, None, problem, None, place, start, end)
