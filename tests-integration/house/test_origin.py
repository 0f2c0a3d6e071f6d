"""Every installed distribution of ours comes from a folder of this house, never from an index."""

from __future__ import annotations

import json
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote, urlsplit

PACKAGES = Path(__file__).resolve().parents[2] / "packages"
OURS = {folder.name for folder in PACKAGES.iterdir()}


def test_every_installed_flow_distribution_comes_from_a_local_folder() -> None:
    found = {}
    for distribution in distributions():
        name = distribution.metadata["Name"].lower().replace("_", "-")
        if name == "flow" or name.startswith("flow-"):
            origin = distribution.read_text("direct_url.json")
            assert origin, f"{name} was installed from an index"
            found[name] = Path(unquote(urlsplit(json.loads(origin)["url"]).path))
    assert found, "no distribution of Flow is installed"
    assert set(found) <= OURS
    for name, folder in found.items():
        assert folder == PACKAGES / name, f"{name} was installed from {folder}"
