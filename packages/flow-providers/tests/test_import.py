"""What an import brings: little, since scripts on login nodes with slow file systems wait for it."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

HEAVY = {
    "azure", "boto3", "botocore", "google", "googleapiclient", "httpx", "jinja2", "kubernetes", "openstack", "paramiko",
    "psutil", "pytest", "requests", "typeguard", "yaml",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    return set(ast.literal_eval(done.stdout))


def test_importing_the_library_costs_next_to_nothing() -> None:
    found = modules_after("import flow_providers")
    assert {name for name in found if name.startswith("flow")} == {"flow_providers", "flow_providers.lazy"}
    assert len(found) <= 40  # of the standard library's typing and what it needs


@pytest.mark.parametrize(
    "name", ["LocalProvider", "SlurmProvider", "CobaltProvider", "AdHocProvider", "AWSProvider", "KubernetesProvider"]
)
def test_importing_a_provider_brings_no_client_and_no_template_engine(name: str) -> None:
    found = modules_after(f"from flow_providers import {name}")
    assert {module.partition(".")[0] for module in found} & HEAVY == set()
    assert len(found) <= 150


def test_making_one_with_its_defaults_brings_no_type_checker() -> None:
    found = modules_after("from flow_providers import LocalProvider; LocalProvider()")
    assert {module.partition(".")[0] for module in found} & HEAVY == set()
