"""Scripts from the templates that stand beside the code that uses them (jinja2, loaded on use)."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from flow_providers.errors import SchedulerMissingArgs

if TYPE_CHECKING:
    from jinja2 import Template


def render(package: str, name: str, values: dict[str, object]) -> str:
    """Render a template.

    Args:
        package: Package the template is in, such as ``flow_providers.launchers``.
        name: File name, ending in ``.j2``.
        values: What the template names. Never escaped: quote for the shell with the filter ``q``.

    Raises:
        SchedulerMissingArgs: the template names something that is not in ``values``.
    """
    from jinja2 import UndefinedError

    try:
        return _template(package, name).render(values)
    except UndefinedError as error:
        raise SchedulerMissingArgs(f"the template {name} needs a value that was not given: {error.message}") from error


# More than there are templates: each is compiled once in a process.
@lru_cache(maxsize=64)
def _template(package: str, name: str) -> Template:
    from shlex import quote

    from jinja2 import BaseLoader, Environment, StrictUndefined

    environment = Environment(
        loader=BaseLoader(),
        # A forgotten value must fail here: as empty text it would be a wrong directive that some scheduler accepts.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Escaping is for HTML; these are shell scripts, quoted by the filter q.
        autoescape=False,
    )
    environment.filters["q"] = lambda value: quote(str(value))
    return environment.from_string((files(package) / name).read_text(encoding="utf-8"))
