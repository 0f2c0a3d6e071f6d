"""The clients of clouds, which tests of those clouds need."""

from __future__ import annotations

import os
from importlib import import_module

import pytest


def need(cloud: str, *modules: str) -> None:
    """Skip the test, or fail it if services are required, where a module cannot be imported."""
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            why = f"{cloud}: {error}; pip install -r tests-integration/requirements-services.txt"
            if os.environ.get("FLOW_REQUIRE_SERVICES") == "1":
                pytest.fail(why)
            pytest.skip(why)
