"""The errors of channels, under the path that scripts use."""

from flow_providers.errors import (
    AuthException as AuthException,
    BadHostKeyException as BadHostKeyException,
    BadPermsScriptPath as BadPermsScriptPath,
    BadScriptPath as BadScriptPath,
    ChannelError as ChannelError,
    ChannelExecFailed as ChannelExecFailed,
    ChannelTimeout as ChannelTimeout,
    ChannelUnavailable as ChannelUnavailable,
    FileCopyException as FileCopyException,
    FileExists as FileExists,
    SSHException as SSHException,
)
