"""The interface of executors, under the path that scripts use."""

from flow_core.interfaces.executor import Executor as Executor
