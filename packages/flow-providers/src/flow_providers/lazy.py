"""Public names that are loaded on first use (PEP 562): importing a package imports none of its modules.

``flow_core`` and ``flow_providers``, neither of which may import the other, have one such module each, word for word.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping


def loading(package: str, homes: Mapping[str, str | None]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package. Both may be called by any thread.

    Args:
        package: Its name. Its ``__all__`` is what ``__dir__`` lists.
        homes: The module that each public name lives in; None for modules of the package itself.

    Raises:
        AttributeError: by ``__getattr__``, for a name that is not in ``homes``.
        ImportError: by ``__getattr__``, where the module cannot be imported.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        # Imported here: a worker loads packages whose public names it never asks for.
        from importlib import import_module

        home = homes[name]
        value: object = import_module(f"{package}.{name}") if home is None else getattr(import_module(home), name)
        # Kept in the package, so that this function is called once for each name.
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted(sys.modules[package].__all__)
