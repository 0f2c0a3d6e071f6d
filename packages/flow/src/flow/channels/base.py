"""The interface of channels, under the path that scripts use."""

from flow_providers.channels import Channel as Channel
