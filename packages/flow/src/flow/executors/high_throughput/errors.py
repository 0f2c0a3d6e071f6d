"""Losses of tasks, under the path that scripts use."""

from flow_core.errors import ManagerLost as ManagerLost, WorkerLost as WorkerLost
from flow_executors.errors import VersionMismatch as VersionMismatch
