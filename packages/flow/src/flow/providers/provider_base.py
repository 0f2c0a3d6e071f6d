"""The interface of providers, under the path that scripts use."""

from flow_providers import (
    ExecutionProvider as ExecutionProvider,
    JobState as JobState,
    JobStatus as JobStatus,
)
