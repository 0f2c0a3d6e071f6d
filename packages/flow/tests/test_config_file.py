from __future__ import annotations

from pathlib import Path

import pytest

from flow.config_file import load_config
from flow.errors import ConfigurationError


def test_a_file_that_binds_config_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "site.py"
    path.write_text("from flow import Config\nconfig = Config(retries=2)\n")
    assert load_config(path).retries == 2


def test_another_name_may_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "site.py"
    path.write_text("from flow import Config\nnight = Config(retries=5)\n")
    assert load_config(path, name="night").retries == 5


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        load_config(tmp_path / "nowhere.py")


def test_a_missing_module_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"flow\.configs\.nowhere"):
        load_config("flow.configs.nowhere")


def test_a_name_bound_to_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.py"
    path.write_text("config = {'retries': 2}\n")
    with pytest.raises(ConfigurationError, match="dict, not a Config"):
        load_config(path)
