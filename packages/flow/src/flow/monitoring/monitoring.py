"""The monitoring hub, under the deeper of the two paths that scripts use."""

from flow_monitor import MonitoringHub as MonitoringHub
