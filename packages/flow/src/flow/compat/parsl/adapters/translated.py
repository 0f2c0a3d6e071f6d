"""Constructors with Parsl's options over classes of Flow: order, defaults and names are those of Parsl."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from flow_core.without_effect import warn_of


def stated(**options: object) -> Mapping[str, object]:
    """Return options by their names, for the attributes of a Translated class."""
    return MappingProxyType(options)


class Translated:
    """Mixed in before a class of Flow: takes Parsl's options and makes the object with Flow's.

    A subclass states the differences; whatever is not named goes on as it is, so options of Flow's own may be given.
    Given once more in Flow's terms they make an equal object, as those do that describe an object to another process.
    """

    parsl_order: ClassVar[tuple[str, ...]] = ()
    """Parsl's options in the order in which they may be given by position."""
    parsl_defaults: ClassVar[Mapping[str, object]] = stated()
    """Parsl's defaults where they differ from Flow's."""
    renamed: ClassVar[Mapping[str, object]] = stated()
    """Flow's names of options that are called otherwise there."""
    without_effect: ClassVar[Mapping[str, object]] = stated()
    """Options that change nothing in Flow, with their defaults in Parsl: another value is warned of."""
    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        flow = next((base for base in cls.__mro__ if base.__module__.startswith("flow_")), None)
        if flow is not None and cls.parsl_order:
            cls.__signature__ = _signature(cls, flow)

    def __init__(self, *args: Any, **options: Any) -> None:
        # The first class of Flow in the order of bases is initialised, whatever mixins stand before it.
        super().__init__(**self._in_flow(args, options))

    @classmethod
    def _in_flow(cls, args: tuple[object, ...], options: Mapping[str, object]) -> dict[str, Any]:
        """Return Flow's options for Parsl's. Raises TypeError as a call of a function does."""
        given = dict(by_position(cls.__name__, cls.parsl_order, args, options))
        ineffective = []
        for name, usual in cls.without_effect.items():
            if name in given and given.pop(name) != usual:
                ineffective.append(f"{name} has no effect in Flow")
        warn_of(cls.__name__, ineffective)
        for old, new in cls.renamed.items():
            if old in given:
                if new in given:
                    raise TypeError(f"{cls.__name__}: {old} and {new} are one option: give one of them")
                given[str(new)] = given.pop(old)
        full = {**cls.parsl_defaults, **given}
        cls._adapt(full)
        return full

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        """Change what needs more than another name, in place."""


def _signature(cls: type[Translated], flow: type[object]) -> inspect.Signature:
    """Return what ``help`` shows: Parsl's options in their order, with the defaults that count, then those of Flow."""
    own = inspect.signature(flow).parameters
    names = dict.fromkeys((*cls.parsl_order, *own))
    parameters = []
    for name in names:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if name in cls.parsl_order else inspect.Parameter.KEYWORD_ONLY
        usual = own[name].default if name in own else None
        default = {**cls.without_effect, **cls.parsl_defaults}.get(name, usual)
        parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters, __validate_parameters__=False)


def by_position(
    name: str, order: tuple[str, ...], args: tuple[object, ...], options: Mapping[str, object]
) -> dict[str, object]:
    """Return arguments by their names. Raises TypeError as a call of a function does."""
    if len(args) > len(order):
        raise TypeError(f"{name}() takes at most {len(order)} arguments by position, and {len(args)} were given")
    given = dict(zip(order, args, strict=False))
    twice = [one for one in given if one in options]
    if twice:
        raise TypeError(f"{name}() got multiple values for argument {twice[0]!r}")
    return {**given, **options}
