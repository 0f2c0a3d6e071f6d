from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import flow_providers

ROOT = Path(__file__).resolve().parents[3]


def test_a_third_party_runs_the_contract_on_its_own_provider_without_a_test_file(tmp_path: Path) -> None:
    (tmp_path / "my_site.py").write_text(
        "from flow_providers import LocalProvider\n"
        "from flow_providers.channels import LocalChannel\n"
        f"def make(): return LocalProvider(channel=LocalChannel(script_dir={str(tmp_path)!r}))\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--pyargs", "flow_providers.testing.conformance", "-k", "completes or unknown or no_jobs"]
    environment = {**os.environ, "FLOW_CONFORMANCE": "my_site:make", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_what_the_documentation_says_of_it_works_as_it_stands(tmp_path: Path) -> None:
    page = ROOT / "docs" / "providers.md"
    if not page.is_file():  # the distribution alone
        return
    module, command = re.search(
        r"^```python\n# my_site\.py\n(.*?)^```$.*?^```\n(FLOW_CONFORMANCE=[^\n]*)\n^```$", page.read_text(), re.M | re.S
    ).groups()
    (tmp_path / "my_site.py").write_text(module)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
    }
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=55
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^=+ \d\d passed in", done.stdout, re.M)


def test_every_provider_is_tested_by_the_contract() -> None:
    kinds = [name for name in flow_providers.__all__ if name.endswith("Provider") and name != "ExecutionProvider"]
    tests = ROOT / "tests-integration" / "providers"
    if not tests.is_dir():  # the distribution alone
        return
    texts = [path.read_text() for path in tests.glob("test_*.py")]
    untested = [name for name in kinds if not any("Contract" in text and name in text for text in texts)]
    assert untested == []
