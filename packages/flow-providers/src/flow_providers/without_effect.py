"""Options that were given and change nothing: a warning says so where the object is made, once a process.

``flow_core.without_effect`` and ``flow_providers.without_effect`` are the same text, since neither may import the
other; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_MOST: Final = 1000  # warnings remembered; a bound for scripts that make objects with other values for ever
_said: set[str] = set()


def warn_of(owner: str, sentences: Iterable[str]) -> None:
    """Log a warning for each sentence, unless this process has logged it already. Any thread.

    Without any set-up of logging the warning is a line on standard error.

    Args:
        owner: What the options are of, such as ``HighThroughputExecutor 'htex'``.
        sentences: Each names an option with its value, and says why it changes nothing.
    """
    for sentence in sentences:
        text = f"{owner}: {sentence}"
        if text in _said:
            continue
        if len(_said) >= _MOST:
            _said.clear()
        _said.add(text)
        # Here, since modules of tasks with apps are loaded in workers, too, which need no logging.
        import logging

        logging.getLogger("flow.options").warning("%s", text)


def reason_of(documentation: str) -> str:
    """Return why an option has no effect, as its documentation says after a colon, to follow a colon itself."""
    return documentation.partition(": ")[2].rstrip(".")
