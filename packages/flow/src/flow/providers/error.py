"""The errors of providers, under the path that scripts use."""

from flow_providers.errors import (
    ChannelRequired as ChannelRequired,
    ExecutionProviderException as ExecutionProviderException,
    OptionalModuleMissing as OptionalModuleMissing,
    ProviderError as ProviderError,
    ScaleOutFailed as ScaleOutFailed,
    SchedulerMissingArgs as SchedulerMissingArgs,
    SchedulerUnavailable as SchedulerUnavailable,
    ScriptPathError as ScriptPathError,
    SubmitException as SubmitException,
)
