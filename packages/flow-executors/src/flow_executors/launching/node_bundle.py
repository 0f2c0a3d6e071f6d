"""What a bare node needs of Flow, as one archive: Flow's own packages, and what they need, from what is installed here.

Pure Python goes to any node. Compiled parts are for one platform: those that are installed here serve nodes of this
machine's kind; for others the wheels of the same releases are fetched from an index by ``pip`` or ``uv``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from flow_core.folders import make_directory
from flow_core.starting import starting
from flow_executors.errors import ExecutorError

PACKAGES = ("flow_core", "flow_executors", "flow_providers", "flow_staging", "flow_monitor", "flow")
"""Packages of ours, as far as they are installed: the last four only serve apps, staging and samples."""
NEEDED = ("pyzmq", "cloudpickle", "psutil", "typing-extensions")
"""Distributions of others without which no manager or worker starts."""
USEFUL = ("orjson", "urllib3", "certifi", "idna")
"""Those that staging and monitoring use on nodes, as far as they are installed here."""
_COMPILED = frozenset({"pyzmq", "psutil", "orjson"})
_LEFT_OUT = re.compile(
    r"(^|/)(__pycache__|tests?|testing|\.git)/|\.(pyc|pyo|pxd|pyx|pyi|h|c|md|sh\.in)$|^\.\.|\.dist-info/"
)
_FETCH_S = 300.0  # seconds that an index has for the wheels of another platform
_KEPT = 4  # archives that stay in the cache of this machine
_MANYLINUX = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


@dataclass(frozen=True, slots=True)
class Platform:
    """What compiled code must agree with.

    Attributes:
        python: Major and minor version, as ``3.11``.
        machine: As ``uname -m`` says it.
        libc: ``glibc`` or ``musl``.
        version: The libc's version, or the lowest that will do; 0.0 where that is not known.
    """

    python: str
    machine: str
    libc: str
    version: tuple[int, int] = (0, 0)

    def as_list(self) -> list[object]:
        """Return it as ``node_loader`` compares it."""
        return [self.python, self.machine, self.libc, list(self.version)]


@dataclass(frozen=True, slots=True)
class Archive:
    """A gzipped tar file that nodes unpack.

    Attributes:
        path: Where it is on this machine.
        sha256: Digest of it, in hexadecimal.
        needs: The platform it is for; None: it is the user's business.
    """

    path: Path
    sha256: str
    needs: Platform | None


def this_platform() -> Platform:
    """Return that of this process."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        name, version = "", ""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    libc = (numbers[0], numbers[1]) if name == "glibc" and len(numbers) == 2 else (0, 0)
    return Platform(f"{sys.version_info[0]}.{sys.version_info[1]}", os.uname().machine, name or "musl", libc)


def runtime_archive(cache: Path, wanted: Platform | None = None) -> Archive:
    """Return the archive for a platform (None: that of this machine), making it if it is not in the cache.

    Raises:
        ExecutorError: compiled parts for that platform cannot be had; the text says what was tried.
    """
    here = this_platform()
    target = here if wanted is None else wanted
    files = dict(_own_files())
    compiled: list[tuple[str, str]] = []
    lowest = (0, 0)
    for name in (*NEEDED, *USEFUL):
        found = _distribution(name)
        if found is None:
            if name in NEEDED:
                raise ExecutorError(f"{name} is not installed as a distribution here, so it cannot be sent to nodes")
            continue
        needs = platform_of(found.read_text("WHEEL") or "", here) if name in _COMPILED else None
        if name in _COMPILED and (needs is None or not serves(needs, target)):
            compiled.append((name, found.version))
            continue
        lowest = max(lowest, needs.version) if needs is not None else lowest
        files.update(_files_of(found))
    make_directory(cache, 0o700)
    sign = _signature(files, compiled, target if compiled else None)
    # What an index has to give is for that very platform; what lies here serves all of its kind.
    needs = target if compiled else Platform(target.python, target.machine, target.libc, lowest)
    path = cache / f"flow-{sign}.tar.gz"
    if not path.exists():
        with tempfile.TemporaryDirectory(prefix=".wheels-", dir=cache) as folder:
            if compiled:
                files.update(_fetched(compiled, target, Path(folder)))
            write_archive(path, files)
        _forget_old(cache, path)
    else:
        os.utime(path)
    return Archive(path, hashlib.sha256(path.read_bytes()).hexdigest(), needs)


def serves(needs: Platform, node: Platform) -> bool:
    """Whether what needs a platform runs on a node."""
    same = (needs.python, needs.machine, needs.libc) == (node.python, node.machine, node.libc)
    return same and needs.version <= node.version


def platform_of(wheel: str, here: Platform) -> Platform | None:
    """Return what an installed wheel needs, from its file ``WHEEL``; None: nobody knows.

    What was built on this machine, or for no named release of the C library, needs one as new as that of this machine.
    """
    found: list[Platform] = []
    tags = re.findall(r"^Tag: *(\S+)", wheel, re.MULTILINE)
    # some builders write several platforms into one tag, with dots between them
    for name in (name for tag in tags for name in tag.rpartition("-")[2].split(".")):
        match = re.fullmatch(r"(manylinux|musllinux)_(\d+)_(\d+)_(\w+)", name)
        if match:
            libc = "glibc" if match[1] == "manylinux" else "musl"
            version = (int(match[2]), int(match[3])) if libc == "glibc" else (0, 0)
            found.append(Platform(here.python, match[4], libc, version))
        elif (old := re.fullmatch(r"(manylinux1|manylinux2010|manylinux2014)_(\w+)", name)) is not None:
            found.append(Platform(here.python, old[2], "glibc", _MANYLINUX[old[1]]))
        elif name == f"linux_{here.machine}":
            found.append(here)
    return min(found, key=lambda one: one.version, default=None)


def _own_files() -> Iterator[tuple[str, Path]]:
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            continue
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in root.rglob("*"):
            inside = f"{name}/{path.relative_to(root).as_posix()}"
            if path.is_file() and not _LEFT_OUT.search(inside):
                yield inside, path


def _distribution(name: str) -> Distribution | None:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    return found if found.files else None


def _files_of(found: Distribution) -> Iterator[tuple[str, Path]]:
    for file in found.files or ():
        name = file.as_posix()
        if not _LEFT_OUT.search(name):
            path = Path(str(found.locate_file(file)))
            if path.is_file():
                yield name, path


def _signature(files: Mapping[str, Path], compiled: Iterable[tuple[str, str]], target: Platform | None) -> str:
    whole = hashlib.sha256(repr((sorted(compiled), target)).encode())
    for name, path in sorted(files.items()):
        status = path.stat()
        whole.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return whole.hexdigest()[:24]


def write_archive(path: Path, files: Mapping[str, Path]) -> None:
    """Write an archive that appears whole or not at all; equal files give equal bytes."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as made:
        try:
            with gzip.GzipFile("", "wb", 6, made, mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
                for name, source in sorted(files.items()):
                    content = source.read_bytes()
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    entry.mode = 0o755 if os.access(source, os.X_OK) else 0o644
                    archive.addfile(entry, io.BytesIO(content))
            made.flush()
            os.replace(made.name, path)
        except BaseException:
            os.unlink(made.name)
            raise


def _forget_old(cache: Path, mine: Path) -> None:
    others = [path for path in cache.glob("flow-*.tar.gz") if path != mine]
    for path in sorted(others, key=lambda one: one.stat().st_mtime)[: -_KEPT + 1 or None]:
        path.unlink(missing_ok=True)


def _fetched(wanted: list[tuple[str, str]], target: Platform, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of wheels for another platform, from an index.

    Raises:
        ExecutorError: none of the tools could fetch them.
    """
    exact = [f"{name}=={version}" for name, version in wanted]
    said = []
    wheels = folder / "wheels"
    files = folder / "files"
    for command in _commands(exact, target, wheels, files):
        try:
            with starting():
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                )
        except OSError as error:
            said.append(f"{command[0]}: {error}")
            continue
        try:
            _, errors = process.communicate(timeout=_FETCH_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            said.append(f"{' '.join(command[:3])}: no end within {_FETCH_S:g} s")
            continue
        if process.returncode == 0:
            for wheel in wheels.glob("*.whl"):
                with zipfile.ZipFile(wheel) as packed:
                    packed.extractall(files)
            for path in files.rglob("*"):
                name = path.relative_to(files).as_posix()
                if path.is_file() and not _LEFT_OUT.search(name):
                    yield name, path
            return
        said.append(f"{' '.join(command[:3])}: {errors.strip().splitlines()[-1:] or ['no word']}")
    raise ExecutorError(
        f"Flow cannot be sent to nodes of {target.machine} with {target.libc} and Python {target.python}: it needs "
        f"{', '.join(exact)} for them, and no index gave these: {'; '.join(said) or 'neither pip nor uv is here'}. "
        "Install Flow on the nodes, or give environment="
    )


def python_platform(target: Platform) -> str:
    """Return what uv calls a platform."""
    if target.libc == "glibc":
        return f"{target.machine}-manylinux_2_{target.version[1]}"
    return f"{target.machine}-unknown-linux-musl"


def _commands(exact: list[str], target: Platform, wheels: Path, files: Path) -> Iterator[list[str]]:
    low, high = target.version
    if target.libc == "glibc":
        tags = [f"manylinux_{low}_{minor}_{target.machine}" for minor in range(high, 4, -1)]
        tags += [f"{old}_{target.machine}" for old, known in _MANYLINUX.items() if known <= target.version]
    else:
        tags = [f"musllinux_1_{minor}_{target.machine}" for minor in (2, 1)]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    if find_spec("pip") is not None:
        yield [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *("--python-version", target.python, *platforms, "--dest", str(wheels), *exact),
        ]
    if uv := which("uv"):
        yield [
            *(
                uv,
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--python-version",
                target.python,
            ),
            *("--python-platform", python_platform(target), "--target", str(files), *exact),
        ]
