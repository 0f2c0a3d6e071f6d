"""Modules of the user's own that code holds as values, and what of them counts: ``s = settings; s.LIMIT``."""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType, ModuleType

from flow_core.memo.facts import ABSENT, Facts, Member, held, is_local

OF_IMPORT = frozenset(
    {
        *("__name__", "__file__", "__path__", "__package__", "__spec__", "__loader__", "__cached__"),
        *("__builtins__", "__dict__", "__doc__", "__annotations__", "__class__"),
    }
)
"""Attributes of modules that the import sets, by where it has found the module."""


class HeldModules:
    """Modules that code reaches otherwise than by a name and its attribute: variables, defaults, elements, attributes.

    Which attribute is taken of which module then shows only at run time. So each attribute counts that any of the code
    takes of anything.

    Attributes:
        attributes: All attributes that code met so far takes.
    """

    def __init__(self, attributes: Iterable[str] = ()) -> None:
        self.attributes: set[str] = set(attributes)
        self._modules: dict[int, tuple[ModuleType, bool]] = {}
        self._told: set[tuple[int, str]] = set()

    def code(self, function: FunctionType, facts: Facts) -> None:
        """Take code that is reached."""
        self.attributes.update(facts.attributes)
        for module, imported in held(function, facts):
            self.module(module, imported)

    def module(self, module: ModuleType, imported: bool = False) -> None:
        """Take a module that is reached; ``imported`` if code imports it itself."""
        if is_local(module.__name__):
            _, before = self._modules.get(id(module), (module, False))
            self._modules[id(module)] = module, imported or before

    def left(self) -> list[Member]:
        """Return what counts and was not returned before. What that names may add more."""
        found: list[Member] = []
        for module, imported in sorted(self._modules.values(), key=lambda each: each[0].__name__):
            for attribute in sorted(self.attributes):
                if (id(module), attribute) not in self._told and attribute not in OF_IMPORT:
                    self._told.add((id(module), attribute))
                    value = module.__dict__.get(attribute, ABSENT)
                    found.append(Member(module, attribute, value, f"{module.__name__}.{attribute}", imported))
        return found
