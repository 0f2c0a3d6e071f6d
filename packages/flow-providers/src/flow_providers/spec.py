"""Providers as plain data, so that another process can make an equal one: the reaper, or the command line."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from flow_providers.errors import ProviderError
from flow_providers.interfaces.channel import Channel
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.options import is_code, is_secret, options_of

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_CLASS = "class"
_OPTIONS = "options"
_OURS = "flow_providers."
ENTRY_POINTS = "flow_providers.providers"
"""Group of entry points by which a package names its own classes of providers and channels: ``module:Class``."""


def spec_of(provider: ExecutionProvider, *, secrets: bool = False) -> dict[str, Plain]:
    """Return the class and options of a provider as plain data.

    Options that are no plain data, and that watching and cancelling do not need (launchers), are left out; so are, for
    a file, passwords and what would be run.

    Args:
        provider: The provider.
        secrets: Whether passwords and code go with it; only for a pipe, never for a file.
    """
    return _object(provider, secrets)


def provider_from(spec: Mapping[str, Plain], *, trusted: bool = False) -> ExecutionProvider:
    """Make a provider from its spec.

    Args:
        spec: A result of ``spec_of``.
        trusted: Whether it comes from this user's own process, by a pipe. A spec from a file makes only classes
            of this library and those that an installed package names under the entry points
            ``flow_providers.providers``, and nothing of it is run: ``envs`` and ``worker_init`` are left out.

    Raises:
        ProviderError: the class cannot be imported, is no provider, is not allowed, or refuses the options.
    """
    made = _make(spec, trusted)
    if not isinstance(made, ExecutionProvider):
        raise ProviderError(f"{spec.get(_CLASS)} is not an ExecutionProvider")
    return made


def _object(thing: object, secrets: bool) -> dict[str, Plain]:
    kept: dict[str, Plain] = {}
    for name, value in options_of(thing).items():
        # A ledger is a file: no password goes into it, and nothing that comes out of it is run.
        if not secrets and (is_secret(name) or is_code(name)):
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


def _make(spec: Mapping[str, Plain], trusted: bool) -> object:
    path = spec.get(_CLASS)
    options = spec.get(_OPTIONS)
    if not isinstance(path, str) or not isinstance(options, dict):
        raise ProviderError(f"this is not the description of a provider: {spec!r}")
    module, _, name = path.partition(":")
    # Importing a module runs it: a ledger that somebody wrote to must not choose what is imported.
    if not (trusted or _is_known(path)):
        raise ProviderError(
            f"the provider class {path} is not made out of a file: only those of flow_providers are, and those "
            f"that an installed package names under the entry points {ENTRY_POINTS!r}. End its jobs by the scheduler's "
            "own command"
        )
    try:
        kind: object = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ProviderError(f"the provider class {path} cannot be imported here: {error}") from error
    # Calling anything else, whatever its name, would run it with arguments out of a file.
    if not (isinstance(kind, type) and issubclass(kind, ExecutionProvider | Channel)):
        raise ProviderError(f"{path} is neither a provider nor a channel")
    return kind(**{key: _value(value, trusted) for key, value in options.items() if trusted or not is_code(key)})


def _is_known(path: str) -> bool:
    """Whether a class may be made because a file says so. Nothing is imported to find out."""
    module = path.partition(":")[0]
    if module.startswith(_OURS) and not module.startswith(f"{_OURS}testing"):
        return True
    from importlib.metadata import entry_points  # which loads much, and is asked for rarely

    return any(point.value == path for point in entry_points(group=ENTRY_POINTS))


def _value(value: Plain, trusted: bool) -> object:
    if isinstance(value, dict):
        if value.keys() == {_CLASS, _OPTIONS}:
            return _make(value, trusted)
        return {k: _value(v, trusted) for k, v in value.items()}
    if isinstance(value, list):
        return [_value(item, trusted) for item in value]
    return value
