"""Tag, environment, secrets and files of a job: all that goes with it besides its command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobExtras:
    """Tag, environment, secrets and files of a job. Tuples of pairs, so that it is hashable.

    Attributes:
        tag: Marks the job at its scheduler so that ``find`` sees it: letters and digits, at most 40. Empty: the
            provider makes one.
        environment: Variables set before the command runs.
        files: Name and path of files of this machine that the job needs. Where the provider's ``delivers_files`` is
            true, each is brought to the nodes' side, once for all jobs that name a file of that name there, and the
            command finds its path in the variable ``file_variable(name)``; else they are left out. A name stands for
            one content for ever: it has a digest of it.
        secrets: Name and content of secret files. Each arrives as a file of mode 0600 whose path is in the variable
            ``secret_variable(name)``; contents never appear on a command line, in a log, or where others can read them.
            Providers remove the files when the job has ended. Of a job whose nodes share no disk with the host that
            submits, the file is on the node that runs the job's script; the command's copies on its other nodes find
            the content in the variable ``carried_variable(name)``.
        forward: Address of this machine, and port, that the job is to reach by way of its channel, where that can
            forward connections. The variable ``FORWARDS_VARIABLE`` then says where the job finds it.
    """

    tag: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, bytes], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    forward: tuple[str, int] | None = None


FORWARDS_VARIABLE = "FLOW_FORWARDS"
"""Of addresses that lead to ``JobExtras.forward``, parted by blanks: ``unix:PATH`` or ``HOST:PORT``."""

NO_EXTRAS = JobExtras()


def secret_variable(name: str) -> str:
    """Return the name of the variable that holds the path of a secret: ``block key`` -> ``FLOW_SECRET_BLOCK_KEY``."""
    return f"FLOW_SECRET_{_in_variables(name)}"


def file_variable(name: str) -> str:
    """Return the name of the variable that holds the path of a file: ``flow-1a.tar`` -> ``FLOW_FILE_FLOW_1A_TAR``."""
    return f"FLOW_FILE_{_in_variables(name)}"


def _in_variables(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name).upper()


def carried_variable(name: str) -> str:
    """Return the name of the variable that holds a secret itself, as base64, on nodes that see no file of it."""
    return f"{secret_variable(name)}_BASE64"
