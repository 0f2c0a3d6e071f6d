from __future__ import annotations

import os
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


def test_every_provider_is_tested_by_the_contract() -> None:
    kinds = [name for name in flow_providers.__all__ if name.endswith("Provider") and name != "ExecutionProvider"]
    tests = ROOT / "tests-integration" / "providers"
    if not tests.is_dir():  # the distribution alone
        return
    texts = [path.read_text() for path in tests.glob("test_*.py")]
    untested = [name for name in kinds if not any("Contract" in text and name in text for text in texts)]
    assert untested == []
