"""Functions as source text, for workers whose Python may be of another release than the script's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SourceCall:
    """A function as its source text, which the worker compiles when it is called.

    Attributes:
        name: Its name.
        text: Its definition, without decorators.
    """

    name: str
    text: str

    def __call__(self, *args: Any, **kwargs: Any) -> object:
        """Compile it and call it."""
        names: dict[str, Any] = {"__name__": "__flow_source__", "__builtins__": __builtins__}
        exec(compile(self.text, f"<source of {self.name}>", "exec"), names)  # the user's own function
        function: Callable[..., object] = names[self.name]
        return function(*args, **kwargs)
