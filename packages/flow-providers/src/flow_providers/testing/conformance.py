"""The contract, run on the provider that an environment variable names: no test file needed.

    FLOW_CONFORMANCE=my_site:make_provider pytest --pyargs flow_providers.testing.conformance

``make_provider`` is a provider's class or any function without arguments that returns a provider. Needs pytest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module

import pytest

from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.testing.contract import ProviderContract

VARIABLE = "FLOW_CONFORMANCE"


class TestConformance(ProviderContract):
    """The contract of providers, run on the provider that the variable names."""

    @pytest.fixture
    def provider(self) -> Iterator[ExecutionProvider]:
        """Make the provider that ``FLOW_CONFORMANCE=module:function`` names."""
        name = os.environ.get(VARIABLE, "")
        module, _, function = name.partition(":")
        if not function:
            pytest.skip(f"set {VARIABLE}=module:function to say which provider")
        made = getattr(import_module(module), function)()
        assert isinstance(made, ExecutionProvider), f"{name} gave {made!r}, which is no ExecutionProvider"
        yield made
        made.close()
