"""The thread executor, under the path that scripts use."""

from flow_core.executors.threads import ThreadPoolExecutor as ThreadPoolExecutor
