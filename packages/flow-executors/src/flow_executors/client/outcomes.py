"""Outcomes made of results on the wire. The only place where the client unpickles, and what it guards against."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

from flow_core.errors import DeserializationError, TaskRefused
from flow_core.guard import is_a, one_line, pass_signal
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Ended, Loss, LossKind, Outcome, Place, Usage, Verdict
from flow_core.remote.errors import unpack
from flow_core.remote.naming import NamesOthers, loads_at_once, names_globals
from flow_executors.client.managers import ManagerDirectory
from flow_executors.client.node_health_core import LONG_NS
from flow_executors.client.node_keeper import NodeKeeper
from flow_executors.errors import BadMessage
from flow_executors.serialize.buffers import BufferGone, let_go, load_with_buffers
from flow_executors.wire.kinds import DIGEST_SIZE
from flow_executors.wire.messages import unpack_loss
from flow_executors.wire.results import (
    BUFFERS,
    UNIMPORTED,
    UNLOADED,
    USAGE,
    USAGE_SIZE,
    VERDICT_MASK,
    ResultBatch,
    read_usage,
    unpack_usage,
)

_OK, _APP_ERROR = Verdict.OK, int(Verdict.APP_ERROR)
# Those with an exception, which may be of a class of the user's.
_WITH_ERROR = (int(Verdict.OK), _APP_ERROR, int(Verdict.REQUEUED))
_OK_MEASURED = _OK | USAGE
_LOST = int(Verdict.LOST)
# Nanoseconds from the start of a task in which a module that is not found counts as one that its node lacks.
_FIRST_IMPORTS_NS = 5_000_000_000


def outcomes_of(
    batch: ResultBatch, known: Mapping[int, bytes], directory: ManagerDirectory
) -> tuple[list[Outcome], list[Ended]]:
    """Return the outcomes of the keys that are known, each once; and those whose unpickling may call foreign code.

    ``known`` holds the digest of each task's function, or what begins with that.
    """
    found: list[Outcome] = []
    unmade: list[Ended] = []
    number = batch.manager
    offset = directory.offset_ns(number, batch.offset_ns)
    place_of, loads = directory.place, loads_at_once
    watch = directory.watch
    # Told are tasks that took a while, and all where some node has failed something: most cost a comparison.
    least_ns = 0 if watch is None or watch.alert else LONG_NS
    places: dict[int, Place] = {}
    seen: set[int] = set()
    keys = cast("Sequence[TryKey]", batch.keys)
    for key, start, end, worker, status, payload in zip(
        keys, batch.starts, batch.ends, batch.workers, batch.statuses, batch.payloads(), strict=True
    ):
        record = known.get(key)
        if record is None or key in seen:
            if status & BUFFERS:
                _let_go(status, payload)
            continue
        # A key may stand twice in a batch of a manager that lies: its task must not end twice.
        seen.add(key)
        # By batch: most results of one message are of few workers.
        place = places.get(worker)
        if place is None:
            place = places[worker] = place_of(number, worker)
        start, end = start and start + offset, end and end + offset
        watched = (status != _OK or end - start >= least_ns) and watch is not None
        if watched and _told(watch, record, status, place, start, end):
            unmade.append((key, partial(_moved, watch, key, status, payload, place, start, end)))
            continue
        if status == _OK and not payload:
            found.append(Outcome(key, _OK, None, None, None, place, start, end))
            continue
        usage: Usage | None = None
        if status == _OK_MEASURED and len(payload) >= USAGE_SIZE:
            usage, payload, status = Usage(*read_usage(payload)), payload[USAGE_SIZE:], _OK
        if status == _OK and not payload:
            found.append(Outcome(key, _OK, None, None, None, place, start, end, usage))
        elif status == _OK:
            try:
                found.append(Outcome(key, _OK, loads(payload), None, None, place, start, end, usage))
            except NamesOthers:
                unmade.append((key, partial(outcome_from, key, status, payload, place, start, end, usage)))
            except BaseException as error:
                found.append(_unreadable(key, error, place, start, end))
        elif (status & BUFFERS or status & VERDICT_MASK in _WITH_ERROR) and names_globals(payload):
            unmade.append((key, partial(outcome_from, key, status, payload, place, start, end, usage, watch)))
        else:
            outcome = _outcome(key, status, payload, place, start, end)
            if outcome.loss is not None:
                outcome.loss = directory.words.added(outcome.loss, number)
            _say_how(watch, outcome)
            near = None
            if outcome.loss is not None and outcome.loss.kind is LossKind.MANAGER:
                near = directory.near_words(number)
            # Its log is a file, which this thread does not wait for.
            if near is None:
                found.append(outcome)
            else:
                unmade.append((key, partial(near.outcome, outcome)))
    return found, unmade


def _told(watch: NodeKeeper | None, known: bytes, status: int, place: Place, start: int, end: int) -> bool:
    """Tell what a task came to; True if its node could not load it, and another one may."""
    app, verdict, node = known[:DIGEST_SIZE], status & VERDICT_MASK, place.node
    if watch is None or not node:
        return False
    if verdict == _OK:
        if end - start >= LONG_NS or watch.alert:
            watch.succeeded(node, app, start, end - start)
    elif verdict in (_APP_ERROR, _LOST):
        watch.failed(node, app)
        # A module that is missed late may be one of many that the app tries.
        if status & UNLOADED or (status & UNIMPORTED and end - start < _FIRST_IMPORTS_NS):
            return watch.blames(node, app)
    return False


def _say_how(watch: NodeKeeper | None, outcome: Outcome) -> None:
    """Have the words of a failure at hand for when its node is held."""
    place = outcome.place
    if watch is not None and place is not None:
        if outcome.error is not None:
            watch.said(place.node, one_line(outcome.error))
        elif outcome.loss is not None:
            watch.said(place.node, outcome.loss.reason)


def _moved(
    watch: NodeKeeper | None, key: int, status: int, payload: memoryview, place: Place, start: int, end: int
) -> Outcome:
    """Return the loss of a task that its node could not load, with the error in it. Never raises."""
    outcome = _outcome(key, status, payload, place, start, end)
    _say_how(watch, outcome)
    text = one_line(outcome.error) if outcome.error is not None else "no reason was given"
    outcome.verdict = Verdict.LOST
    outcome.loss = Loss(LossKind.NODE, place, reason=f"{text}. Other nodes may be able to")
    return outcome


def outcome_from(
    key: int,
    status: int,
    payload: memoryview,
    place: Place,
    start: int,
    end: int,
    usage: Usage | None = None,
    watch: NodeKeeper | None = None,
) -> Outcome:
    """Return the outcome of a try; times are those of this machine. Never raises, but may call code of the user's."""
    outcome = _outcome(key, status, payload, place, start, end)
    _say_how(watch, outcome)
    outcome.usage = usage or outcome.usage
    return outcome


def _outcome(key: int, status: int, payload: memoryview, place: Place, start: int, end: int) -> Outcome:
    usage: Usage | None = None
    try:
        if status & USAGE:
            usage, payload = unpack_usage(payload)
        outcome = _by_verdict(key, Verdict(status & VERDICT_MASK), bool(status & BUFFERS), payload, place)
    except BaseException as error:
        outcome = _unreadable(key, error, place, start, end)
    outcome.place, outcome.started_ns, outcome.ended_ns, outcome.usage = place, start, end, usage
    failed = outcome.error
    if failed is not None and place.node and (status & (UNLOADED | UNIMPORTED) or is_a(failed, ImportError)):
        _say_where(failed, place)
    return outcome


def _say_where(error: BaseException, place: Place) -> None:
    if place.node in one_line(error):
        return
    try:
        error.add_note(f"This was on node {place.node} (executor {place.executor}).")
    except BaseException as failure:  # of a class of the user's
        pass_signal(failure)


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
    elif verdict is Verdict.APP_ERROR or verdict is Verdict.REQUEUED:
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
