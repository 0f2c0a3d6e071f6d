"""What an image of a container is, for keys of calls: its name may mean another one tomorrow."""

from __future__ import annotations

import os
import shutil
from hashlib import blake2b

from flow_core.interfaces.container import Container, is_path
from flow_core.remote.container_removal import ran
from flow_core.remote.container_runtimes import TABLE, identity

_LOOK_S = 10.0  # seconds that an engine has to answer
_PIECE = 1 << 20  # bytes of each end of an image's file that are looked at
_MOST_KNOWN = 256


def described(container: Container) -> str:
    """Return what of a container counts in a key: all but whether it is kept, and what its image is, if known here.

    Asked once in a process for each container. An image in an engine is known by its id, where this machine has it; one
    in a file by size, begin and end, which say when it was made. Others are known by their names alone.
    """
    known = _known.get(container)
    if known is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        fields = container.images, container.binds, container.options, container.python, _identity(container)
        known = _known[container] = repr(fields)
    return known


_known: dict[Container, str] = {}


def _identity(container: Container) -> str:
    for runtime, image in container.candidates():
        found = _of_file(image) if is_path(image) else _of_engine(runtime, image)
        if found:
            return found
    return ""


def _of_engine(runtime: str, image: str) -> str:
    command = identity(runtime, image)
    if not command or not shutil.which(TABLE[runtime].program):
        return ""
    try:
        code, out, _ = ran(command, _LOOK_S)
    except (OSError, TimeoutError):
        return ""
    return out.strip() if code == 0 else ""


def _of_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = blake2b(file.read(_PIECE), digest_size=16)
            file.seek(max(0, size - _PIECE))
            digest.update(file.read(_PIECE))
    except OSError:  # a directory, or a path of another machine
        return ""
    return f"{size} {digest.hexdigest()}"
