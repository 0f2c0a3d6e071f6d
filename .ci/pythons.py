"""Run the tests of all distributions on each release of Python that Flow is for and that this machine has.

    python .ci/pythons.py [further tox environments] [-- arguments of pytest]

The release that runs this is left out: `make test` has run on it. One line is printed for each that is not here,
with how to get it. FLOW_REQUIRE_PYTHONS="3.12 3.13" makes it a failure if one of those is missing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASES = ("3.11", "3.12", "3.13", "3.14")
"""Those that the distributions' classifiers name, and the next one."""
_ASK_S = 20
_RUN_S = 3600


def main() -> int:
    """Return the exit code: 0 where all that ran passed."""
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    environments, rest = arguments[:split], arguments[split:]
    required = os.environ.get("FLOW_REQUIRE_PYTHONS", "").split()
    folders, missing = [], []
    for release in RELEASES:
        if release == f"{sys.version_info.major}.{sys.version_info.minor}":
            continue
        interpreter = find(release)
        if interpreter is None:
            print(f"Python {release}: not on this machine, so nothing was tested on it: uv python install {release}")
            missing.append(release)
            continue
        print(f"Python {release}: {interpreter}")
        folders.append(str(interpreter.parent))
        environments.append(f"py{release.replace('.', '')}")
    sys.stdout.flush()
    if not environments:
        return 1 if set(required) & set(missing) else 0
    # uv takes the first interpreter of that name in the PATH; three at a time, since many tests wait for processes
    path = os.pathsep.join([*folders, os.environ["PATH"]])
    tox = [sys.executable, "-m", "tox", "run-parallel", "--parallel", "3", "--parallel-no-spinner"]
    done = subprocess.run(
        [*tox, "-e", ",".join(environments), *rest],
        cwd=ROOT, env={**os.environ, "PATH": path, "UV_PYTHON_DOWNLOADS": "never"}, timeout=_RUN_S, check=False,
    )  # fmt: skip
    lacking = sorted(set(required) & set(missing))
    if lacking:
        print(f"FLOW_REQUIRE_PYTHONS: there is no Python {', '.join(lacking)}", file=sys.stderr)
    return 1 if lacking else done.returncode


def find(release: str) -> Path | None:
    """Return an interpreter of a release that works and can make environments, if there is one."""
    for path in candidates(release):
        if path.is_file() and _answers(path, release):
            return path
    return None


def candidates(release: str) -> Iterator[Path]:
    """Yield where an interpreter may be: in the PATH, of pyenv, of uv."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield Path(folder) / f"python{release}"
    home = Path.home()
    for place in (Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions", home / ".local/share/uv/python"):
        of_release = re.compile(rf"(?:cpython-)?{re.escape(release)}\.\d+(?:-linux\S*)?")
        found = [path for path in place.glob("*") if of_release.fullmatch(path.name)]
        yield from (path / "bin" / f"python{release}" for path in sorted(found, reverse=True))


def _answers(path: Path, release: str) -> bool:
    look = "import sqlite3, ssl, sys, venv; print('.'.join(map(str, sys.version_info[:2])))"
    try:
        done = subprocess.run([path, "-c", look], capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == release


if __name__ == "__main__":
    sys.exit(main())
