"""The marker: a private file in the run's directory, by which a manager finds out whether its node sees that directory.

A path of that name proves nothing, since a node may have a directory of the same name, or make one. So the file holds a
random nonce, and its digest goes to managers over their authenticated connection, never on a command line. Another
digest, which says nothing of that one, is in the script of a job, which looks before there is a manager.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from flow_core.bounded_calls import BoundedCall, NoAnswerError

_NAME = "marker"
_NONCE_BYTES = 32  # nobody guesses so many
# Seconds that a look may take: on a file system that hangs nothing else can be read either.
_LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class RunMarker:
    """Where the marker of an executor lies, and digests of what is in it: one for managers, one for shells."""

    path: str
    digest: str
    sha256: str

    def remove(self) -> None:
        """Remove the file. Never raises."""
        try:
            os.unlink(self.path)
        except OSError:
            pass


def make_marker(directory: Path) -> RunMarker:
    """Write a marker of mode 0600 into a directory of the run.

    Raises:
        OSError: it cannot be written.
    """
    path, nonce = directory.absolute() / _NAME, secrets.token_bytes(_NONCE_BYTES)
    path.unlink(missing_ok=True)  # of an earlier start of this executor, or a link that somebody has put there
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, nonce)
    finally:
        os.close(descriptor)
    return RunMarker(str(path), _digest(nonce), hashlib.sha256(nonce).hexdigest())


def sees_marker(path: str, digest: str) -> bool:
    """Tell whether this machine sees a marker, and can write beside it. Waits five seconds at most; never raises."""
    try:
        return BoundedCall("flow-marker", lambda: _sees(path, digest)).wait(_LOOK_S)
    except NoAnswerError:
        return False


def _sees(path: str, digest: str) -> bool:
    try:
        # Neither a link nor a pipe is a marker; the open of a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        found = os.read(descriptor, _NONCE_BYTES + 1)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    # A file system that can only be read takes no output of a task.
    return secrets.compare_digest(_digest(found), digest) and os.access(os.path.dirname(path), os.W_OK)


def _digest(nonce: bytes) -> str:
    return hashlib.blake2b(nonce, digest_size=16, person=b"flow marker").hexdigest()
