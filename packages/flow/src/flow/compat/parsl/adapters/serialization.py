"""Objects as bytes, as programs of their own executors take them from Parsl."""

from __future__ import annotations

import pickle
from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from typing import Any

import cloudpickle

from flow_core.errors import ConfigurationError


class SerializerBase(metaclass=ABCMeta):
    """Base of serializers of one's own, which Flow does not take."""

    @abstractmethod
    def serialize(self, data: Any) -> bytes:
        """Return the bytes of an object."""

    @abstractmethod
    def deserialize(self, body: bytes) -> Any:
        """Return the object of bytes."""


class DillSerializer(SerializerBase):
    """Packs objects with code by value, by cloudpickle as Flow does."""

    def serialize(self, data: Any) -> bytes:
        """Return the bytes of an object."""
        return serialize(data)

    def deserialize(self, body: bytes) -> Any:
        """Return the object of bytes."""
        return deserialize(body)


class DillCallableSerializer(DillSerializer):
    """The same for functions."""


class PickleSerializer(DillSerializer):
    """Packs objects without code."""

    def serialize(self, data: Any) -> bytes:
        """Return the bytes of an object. Raises PicklingError."""
        return pickle.dumps(data)


def serialize(obj: Any, buffer_threshold: int = 1_000_000) -> bytes:
    """Return the bytes of an object."""
    data: bytes = cloudpickle.dumps(obj)
    return data


def deserialize(payload: bytes) -> Any:
    """Return the object of bytes, which must come from whom you trust."""
    return cloudpickle.loads(payload)


def pack_buffers(buffers: list[bytes]) -> bytes:
    """Return pieces of bytes as one, each behind its length."""
    return b"".join(str(len(one)).encode() + b"\n" + one for one in buffers)


def unpack_buffers(packed_buffer: bytes) -> list[bytes]:
    """Return the pieces of what ``pack_buffers`` made."""
    found, place = [], 0
    while place < len(packed_buffer):
        line = packed_buffer.index(b"\n", place)
        end = line + 1 + int(packed_buffer[place:line])
        found.append(packed_buffer[line + 1 : end])
        place = end
    return found


def pack_apply_message(func: Callable[..., Any], args: Any, kwargs: Any, buffer_threshold: int = 128_000_000) -> bytes:
    """Return the bytes of a call."""
    return pack_buffers([serialize(func), serialize(args), serialize(kwargs)])


def unpack_and_deserialize(packed_buffer: bytes) -> Any:
    """Return the objects of what ``pack_buffers`` made of their bytes."""
    return [deserialize(one) for one in unpack_buffers(packed_buffer)]


def unpack_apply_message(packed_buffer: bytes) -> list[Any]:
    """Return function, arguments and keywords of a call."""
    return list(unpack_and_deserialize(packed_buffer))


def register_method_for_data(serializer: object) -> None:
    """Refuse a serializer of one's own. Raises ConfigurationError."""
    raise ConfigurationError(
        f"{serializer!r}: Flow takes no serializers; give the class of the objects a __reduce__, or register one with "
        "copyreg.pickle"
    )


register_method_for_code = register_method_for_data
