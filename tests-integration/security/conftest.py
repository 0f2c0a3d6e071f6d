"""A second user of the machine, who attacks. Making one takes root; without it these tests are left out."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from security_attacker import Attacker  # needs the line above

_NAME = "flow-attacker"


@pytest.fixture(scope="session")
def attacker() -> Iterator[Attacker]:
    """Another ordinary user, removed at the end if it was made here."""
    python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
    if os.geteuid() != 0 or shutil.which("useradd") is None or python is None:
        pytest.skip("a second user can be made by root only, with useradd, and needs a python3 of the system")
    made = subprocess.run(
        ["useradd", "--create-home", "--shell", "/bin/sh", _NAME], capture_output=True, text=True, timeout=60
    )
    if made.returncode not in (0, 9):  # 9: it is there
        pytest.fail(f"useradd: {made.stderr}")
    entry = pwd.getpwnam(_NAME)
    yield Attacker(entry.pw_uid, entry.pw_gid, entry.pw_dir, python)
    if made.returncode == 0:
        subprocess.run(["userdel", "--remove", _NAME], capture_output=True, timeout=60, check=False)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory to which other users find the way: pytest's own is closed to them."""
    made = Path(tempfile.mkdtemp(prefix="flow-open-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)
