"""Arguments as bytes: pickle protocol 5, and cloudpickle where that is needed."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence

import cloudpickle

from flow_core.errors import SerializationError
from flow_core.interfaces.call import Call
from flow_executors.serialize.functions import by_value_names

BufferCallback = Callable[[pickle.PickleBuffer], object]


def pack_arguments(call: Call, on_buffer: BufferCallback | None = None) -> bytes:
    """Return the payload of a call's record: a pickle of ``(args, kwargs, steps)``, empty when all three are.

    ``on_buffer`` is asked for each large buffer (pickle 5) whether it stays in the payload: a true answer keeps it.

    Raises:
        SerializationError: an argument cannot be pickled; the message names it.
    """
    if not (call.args or call.kwargs or call.steps):
        return b""
    value = (call.args, call.kwargs, call.steps)
    try:
        data = pickle.dumps(value, 5, buffer_callback=on_buffer)
        for name in by_value_names():
            if name in data:
                break
        else:
            return data
    except Exception:
        pass
    return _by_value(value, call, on_buffer)


def _by_value(value: object, call: Call, on_buffer: BufferCallback | None) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=on_buffer)
    except Exception as error:
        raise SerializationError(_complaint(call, error)) from error
    return data


def _complaint(call: Call, error: Exception) -> str:
    name = getattr(call.func, "__qualname__", repr(call.func))
    where = _culprit(call.args, call.kwargs) or "its arguments"
    return (
        f"{where} of {name} cannot be sent to workers: {type(error).__name__}: {error}. Pass plain data, or write it "
        "to a file and pass a File"
    )


def _culprit(args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    named = [(f"argument {index + 1}", value) for index, value in enumerate(args)]
    named += [(f"argument {key!r}", value) for key, value in kwargs.items()]
    for where, value in named:
        try:
            cloudpickle.dumps(value, protocol=5)
        except Exception:
            return f"{where} ({type(value).__name__})"
    return ""
