"""The example of the README runs as it is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_README = Path(__file__).parents[2] / "packages" / "flow-executors" / "README.md"


def test_the_example_runs(tmp_path: Path) -> None:
    code = _README.read_text().split("```python\n")[1].split("```")[0]
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[0, 1, 4, 9, 16]\n"), done.stderr
