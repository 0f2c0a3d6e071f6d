"""Environments of the user's own for nodes: packed ones, and lock files of which the packages are put together here."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import which

from flow_core.starting import starting
from flow_executors.errors import ExecutorError
from flow_executors.launching.node_bundle import Archive, Platform, python_platform, write_archive

_INSTALL_S = 1800.0  # seconds that an index has for all packages of a lock file


def is_lock(path: str) -> bool:
    """Whether a path is that of a lock file: ``uv.lock``, ``pylock.toml`` or ``pylock.NAME.toml``."""
    return re.fullmatch(r"uv\.lock|pylock(\.[^.]+)?\.toml", Path(path).name) is not None


def check(path: str) -> str:
    """Return why a path is no environment that nodes could get; empty if it may be one."""
    if is_lock(path):
        return "" if Path(path).is_file() else "there is no such file"
    try:
        return "" if tarfile.is_tarfile(path) else "it is neither a tar file (conda-pack, venv-pack) nor a lock file"
    except OSError as error:
        return error.strerror or str(error)


def locked_packages(lock: Path, cache: Path, target: Platform) -> Archive:
    """Return an archive of what a lock file names, for a platform, from the cache or from the index.

    Raises:
        ExecutorError: it cannot be made; the text has the tool's last words.
    """
    try:
        content = lock.read_bytes()
    except OSError as error:
        raise ExecutorError(f"the lock file {lock} cannot be read: {error.strerror}") from error
    sign = hashlib.sha256(content + repr(target).encode()).hexdigest()[:24]
    path = cache / f"packages-{sign}.tar.gz"
    if not path.exists():
        uv = which("uv")
        if uv is None:
            raise ExecutorError(
                f"environment={str(lock)!r} needs the command uv on this machine: install it, or pack one"
            )
        with tempfile.TemporaryDirectory(prefix=".lock-", dir=cache) as folder:
            wanted = lock
            if lock.name == "uv.lock":
                wanted = Path(folder) / "requirements.txt"
                _run([uv, "export", "--quiet", "--frozen", "--no-emit-project", "-o", str(wanted)], lock.parent)
            files = Path(folder) / "files"
            _run(
                [
                    *(uv, "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--python-version"),
                    *(target.python, "--python-platform", python_platform(target), "--target", str(files)),
                    *("-r", str(wanted)),
                ],
                lock.parent,
            )
            found = {one.relative_to(files).as_posix(): one for one in files.rglob("*") if one.is_file()}
            write_archive(path, found)
    return Archive(path, hashlib.sha256(path.read_bytes()).hexdigest(), target)


def _run(command: Sequence[str], folder: Path) -> None:
    with starting():
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    try:
        _, errors = process.communicate(timeout=_INSTALL_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise ExecutorError(f"{' '.join(command[:3])} has not ended within {_INSTALL_S:g} s") from None
    if process.returncode:
        words = " ".join(errors.split())[-500:]
        raise ExecutorError(f"{' '.join(command[:3])} failed for the lock file of the executor's environment: {words}")
