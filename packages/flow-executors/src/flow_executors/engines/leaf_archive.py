"""The archive of ``flow_core`` that an engine brings to workers that share nothing with the script.

A Python on the worker is all that is needed there. The archive holds compiled code for the script's release of Python
beside the sources, so that a task begins as fast as from an installed package.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from flow_core.remote.sandbox import write_whole

_PACKAGES = ("flow_core", "cloudpickle", "flow_staging")
"""What a task may need there besides its own code. Steps of staging go along where they are installed."""
_SKIPPED = ("__pycache__",)
_UNCHECKED = 1  # flag of compiled code that is not compared with its source
_NAME = "flow-leaf.zip"

# Plain enough for any Python, which has to say by itself that it is another one.
_MAIN = """\
import sys
if {checked} and sys.version_info[:2] != {python}:
    sys.stderr.write("flow: this Python is %d.%d, and the script's is %d.%d: name a fitting one by python=\\n" % (
        sys.version_info[:2] + {python}))
    sys.exit(3)
if sys.version_info < (3, 11):
    sys.stderr.write("flow: this Python is %d.%d, and tasks need 3.11 or later\\n" % sys.version_info[:2])
    sys.exit(3)
from flow_core.remote.sandbox import run
sys.exit(run(sys.argv[1], sys.argv[2]))
"""


def write_archive(directory: Path, *, any_python: bool) -> Path:
    """Write the archive into a directory and return its path. Raises OSError.

    Args:
        directory: Where to.
        any_python: Whether another release of Python may run the tasks, since none has compiled code.
    """
    path = directory / _NAME
    unfinished = directory / f"{_NAME}.{os.getpid()}"
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        main = _MAIN.format(checked=not any_python, python=tuple(sys.version_info[:2]))
        archive.writestr("__main__.py", main)
        for name, source in _sources():
            archive.writestr(name, source)
            archive.writestr(f"{name}c", _compiled(source, name))
    data = unfinished.read_bytes()
    unfinished.unlink()
    write_whole(str(path), data)
    return path


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        root = Path(next(iter(spec.submodule_search_locations)))
        for file in sorted(root.rglob("*.py")):
            name = f"{package}/{file.relative_to(root).as_posix()}"
            if not any(part in f"/{name}" for part in _SKIPPED):
                yield name, file.read_bytes()


def _compiled(source: bytes, name: str) -> bytes:
    code = compile(source, name, "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + struct.pack("<I", _UNCHECKED) + b"\0" * 8 + marshal.dumps(code)
