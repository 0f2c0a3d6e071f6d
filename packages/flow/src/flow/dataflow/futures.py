"""The futures of tasks, under the path that scripts use."""

from flow_core.futures.app_future import AppFuture as AppFuture
