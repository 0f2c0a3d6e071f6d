"""The high-throughput executor, under the path that scripts use."""

from flow_executors import HighThroughputExecutor as HighThroughputExecutor
