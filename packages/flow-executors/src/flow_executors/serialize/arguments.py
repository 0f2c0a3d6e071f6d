"""Arguments as bytes: pickle protocol 5, and cloudpickle where that is needed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence

from flow_core.errors import SerializationError
from flow_core.guard import called, name_of, one_line, pass_signal, shown
from flow_core.interfaces.call import Call
from flow_core.remote import by_value
from flow_core.remote.callables import sent
from flow_core.remote.culprits import explained
from flow_core.remote.functions import by_value_names
from flow_executors.serialize.buffers import Large
from flow_executors.worker.large import carried

_SMALL = frozenset((type(None), bool, int, float, complex))


def are_small(call: Call) -> bool:
    """Whether the arguments surely hold nothing that would travel out of band: then nobody need look for it."""
    return not call.kwargs and _SMALL.issuperset(map(type, call.args))


def pack_arguments(call: Call, large: Large | None = None) -> bytes:
    """Return the payload of a call's record: a pickle of ``(args, kwargs, steps)``, empty when all three are.

    ``large`` collects the buffers (pickle 5) that are to travel out of band; without it all stay in the payload.

    Raises:
        SerializationError: an argument cannot be pickled; the message names it.
    """
    if not (call.args or call.kwargs or call.steps):
        return b""
    args, kwargs = sent(call.args, call.kwargs) or (call.args, call.kwargs)
    value: tuple[object, object, object] = (args, kwargs, call.steps)
    if large is not None:
        value = (tuple(map(carried, args)), {name: carried(v) for name, v in kwargs.items()}, call.steps)
    on_buffer = None if large is None else large.keep_in_band
    try:
        data = pickle.dumps(value, 5, buffer_callback=on_buffer)
        for name in by_value_names():
            if name in data:
                break
        else:
            return data
    except BaseException as error:  # whatever an object's __reduce__ raises
        pass_signal(error)
    if large is not None:
        large.buffers.clear()
    return _by_value(value, call, large)


def _by_value(value: object, call: Call, large: Large | None) -> bytes:
    on_buffer = None if large is None else large.keep_in_band
    try:
        return by_value.dumps(value, on_buffer)
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
