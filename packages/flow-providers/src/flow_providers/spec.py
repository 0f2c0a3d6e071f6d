"""Providers as plain data, so that another process can make an equal one: the reaper, or the command line."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from flow_providers.errors import ProviderError
from flow_providers.interfaces.channel import Channel
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.options import is_secret, options_of

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_CLASS = "class"
_OPTIONS = "options"


def spec_of(provider: ExecutionProvider, *, secrets: bool = False) -> dict[str, Plain]:
    """Return the class and options of a provider as plain data.

    Options that are no plain data, and that watching and cancelling do not need (launchers), are left out.

    Args:
        provider: The provider.
        secrets: Whether passwords go with it; only for a pipe, never for a file.
    """
    return _object(provider, secrets)


def provider_from(spec: Mapping[str, Plain]) -> ExecutionProvider:
    """Make a provider from its spec.

    Raises:
        ProviderError: the class cannot be imported, is no provider, or refuses the options.
    """
    made = _make(spec)
    if not isinstance(made, ExecutionProvider):
        raise ProviderError(f"{spec.get(_CLASS)} is not an ExecutionProvider")
    return made


def _object(thing: object, secrets: bool) -> dict[str, Plain]:
    kept: dict[str, Plain] = {}
    for name, value in options_of(thing).items():
        if is_secret(name) and not secrets:
            continue
        found, plain = _plain(value, secrets)
        if found:
            kept[name] = plain
    return {_CLASS: f"{type(thing).__module__}:{type(thing).__qualname__}", _OPTIONS: kept}


def _plain(value: object, secrets: bool) -> tuple[bool, Plain]:
    if value is None or isinstance(value, bool | int | float | str):
        return True, value
    if isinstance(value, Channel):
        return True, _object(value, secrets)
    if isinstance(value, list | tuple):
        items = [_plain(item, secrets) for item in value]
        return all(ok for ok, _ in items), [item for _, item in items]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        pairs = {str(key): _plain(item, secrets) for key, item in value.items()}
        return all(ok for ok, _ in pairs.values()), {key: item for key, (_, item) in pairs.items()}
    return False, None


def _make(spec: Mapping[str, Plain]) -> object:
    path = spec.get(_CLASS)
    options = spec.get(_OPTIONS)
    if not isinstance(path, str) or not isinstance(options, dict):
        raise ProviderError(f"this is not the description of a provider: {spec!r}")
    module, _, name = path.partition(":")
    try:
        kind: object = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ProviderError(f"the provider class {path} cannot be imported here: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, ExecutionProvider | Channel)):
        raise ProviderError(f"{path} is neither a provider nor a channel")
    return kind(**{key: _value(value) for key, value in options.items()})


def _value(value: Plain) -> object:
    if isinstance(value, dict):
        return _make(value) if value.keys() == {_CLASS, _OPTIONS} else {k: _value(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value
