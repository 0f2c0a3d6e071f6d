"""Errors of executors, under the oldest path that scripts use."""

from flow_core.errors import ExecutorError as ExecutorException
from flow_executors.errors import TaskExecException as TaskExecException

__all__ = ["ExecutorException", "TaskExecException"]
