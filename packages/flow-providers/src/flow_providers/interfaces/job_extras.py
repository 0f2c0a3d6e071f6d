"""What goes with a job besides its command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobExtras:
    """What goes with a job besides its command. Tuples of pairs, so that it is hashable.

    Attributes:
        tag: Marks the job at its scheduler so that ``find`` sees it: letters and digits, at most 40. Empty: the
            provider makes one.
        environment: Variables set before the command runs.
        secrets: Name and content of secret files. Each arrives as a file of mode 0600 whose path is in the variable
            ``secret_variable(name)``; contents never appear on a command line, in a script or in a log. Providers
            remove the files when the job has ended.
    """

    tag: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, bytes], ...] = ()


NO_EXTRAS = JobExtras()


def secret_variable(name: str) -> str:
    """Return the name of the variable that holds the path of a secret: ``block key`` -> ``FLOW_SECRET_BLOCK_KEY``."""
    return "FLOW_SECRET_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in name).upper()
