"""MonitoringHub with Parsl's options, and the ways of messages that are chosen there."""

from __future__ import annotations

from abc import ABCMeta
from enum import Enum
from typing import Any

import flow_monitor
from flow.compat.parsl.adapters.translated import Translated, stated

_FIRST_AND_LAST_S = 1e9  # no sample between the first and the last comes within this time


class MonitoringHub(Translated, flow_monitor.MonitoringHub):
    """Records what a run does in a database."""

    parsl_order = (
        "hub_address", "hub_port_range", "hub_port", "workflow_name", "workflow_version", "logging_endpoint",
        "monitoring_debug", "resource_monitoring_enabled", "resource_monitoring_interval",
    )  # fmt: skip
    without_effect = stated(hub_port_range=None, workflow_version=None)

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        if options.get("logging_endpoint", "") is None:
            del options["logging_endpoint"]
        if options.get("resource_monitoring_interval") == 0:
            options["resource_monitoring_interval"] = _FIRST_AND_LAST_S


class RadioConfig(metaclass=ABCMeta):
    """A way of messages about tasks: Flow's travel over the connections of tasks, whichever is named."""

    def __init__(self, **options: object) -> None:
        self.options = options

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class UDPRadio(RadioConfig):
    """By UDP, in Parsl."""


class HTEXRadio(RadioConfig):
    """Over the connections of tasks, as Flow's do."""


class FilesystemRadio(RadioConfig):
    """By files, in Parsl."""


class MultiprocessingQueueRadio(RadioConfig):
    """By a queue between processes, in Parsl."""


class MessageType(Enum):
    """Kinds of messages about a run."""

    TASK_INFO = 0
    RESOURCE_INFO = 1
    WORKFLOW_INFO = 2
    NODE_INFO = 3
    BLOCK_INFO = 4
    WORKER_TASK_INFO = 5
