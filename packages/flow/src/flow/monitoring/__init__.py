"""The monitoring hub, under the path that scripts use."""

from flow_monitor import MonitoringHub as MonitoringHub
