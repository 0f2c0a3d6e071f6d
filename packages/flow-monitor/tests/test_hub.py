"""MonitoringHub: its options, and what it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import ConfigurationError
from flow_core.interfaces.events import EventKind
from flow_core.interfaces.sinks import RunInfo, SamplingSink
from flow_monitor import MonitoringHub
from flow_monitor.hub import logger


def test_a_misspelt_option_names_the_one_that_is_meant() -> None:
    with pytest.raises(TypeError, match=r"has no option 'logging_endpont': did you mean 'logging_endpoint'\?"):
        MonitoringHub(logging_endpont="sqlite:///a.db")  # type: ignore[call-arg]  # the point


def test_the_options_of_old_configurations_are_taken() -> None:
    hub = MonitoringHub(hub_address="login1", hub_port=55055, monitoring_debug=False, resource_monitoring_interval=10)
    assert isinstance(hub, SamplingSink)
    spec = hub.sampler()
    assert spec is not None
    assert spec.interval_s == 10.0


def test_an_address_of_old_configurations_is_said_to_have_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "flow.monitor"):
        started(tmp_path / "a", MonitoringHub(hub_address="login1", hub_port=55055)).close(30)
        assert "hub_address='login1' has no effect: events travel over" in caplog.text
        assert "hub_port=55055 has no effect" in caplog.text
        caplog.clear()
        started(tmp_path / "b", MonitoringHub()).close(30)
        assert "no effect" not in caplog.text


def test_monitoring_debug_logs_in_detail_while_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = logger.level
    hub = started(tmp_path, MonitoringHub(monitoring_debug=True))
    assert "monitoring run r in" in caplog.text
    hub.close(30)
    assert logger.level == before


def started(directory: Path, hub: MonitoringHub) -> MonitoringHub:
    run_dir = directory / "runinfo" / "000"
    run_dir.mkdir(parents=True)
    hub.start(RunInfo("r", 1, run_dir, "x", 1))
    return hub


def test_the_sampler_can_be_imported_by_its_name() -> None:
    from importlib import import_module

    spec = MonitoringHub().sampler()
    assert spec is not None
    module, _, name = spec.factory.partition(":")
    sampler = getattr(import_module(module), name)(**dict(spec.settings))
    sampler.close()


def test_without_resource_monitoring_nothing_samples() -> None:
    hub = MonitoringHub(resource_monitoring_enabled=False)
    assert hub.sampler() is None
    assert EventKind.SAMPLE not in hub.wants


@pytest.mark.parametrize(
    "options",
    [
        {"drain_patience_s": -1},
        {"drain_patience_s": float("nan")},
        {"drain_patience_s": True},
        {"workflow_name": 7},
        {"monitoring_debug": "yes"},
        {"resource_monitoring_enabled": None},
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        MonitoringHub(**options)


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), True, "10"])
def test_a_bad_interval_is_named(interval: object) -> None:
    with pytest.raises(ConfigurationError, match="resource_monitoring_interval"):
        MonitoringHub(resource_monitoring_interval=interval)  # type: ignore[arg-type] # that is the point


@pytest.mark.parametrize("endpoint", ["monitoring.db", "mysql://x/y", 7])
def test_a_bad_endpoint_is_named_without_its_secrets(endpoint: object) -> None:
    with pytest.raises(ConfigurationError, match="logging_endpoint"):
        MonitoringHub(logging_endpoint=endpoint)  # type: ignore[arg-type] # that is the point


def test_a_password_is_not_in_the_repr() -> None:
    shown = repr(MonitoringHub(logging_endpoint="postgresql://me:secret@host/db"))
    assert "secret" not in shown
    assert "host/db" in shown


def test_the_default_database_is_beside_the_run_directories(tmp_path: Path) -> None:
    run = RunInfo("r", 1, tmp_path / "runs" / "004", "x", 1)
    assert MonitoringHub()._endpoint(run) == f"sqlite:///{tmp_path}/runs/monitoring.db"


def test_a_hub_that_was_never_started_closes() -> None:
    hub = MonitoringHub()
    hub.emit([])
    assert hub.close(1) == 0


def test_the_drivers_side_imports_no_database() -> None:
    code = "import sys, flow_monitor.hub; print([m for m in ('sqlalchemy', 'alembic', 'psutil') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
