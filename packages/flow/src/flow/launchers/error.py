"""The error of launchers, under the path that scripts use."""

from flow_providers.errors import BadLauncher as BadLauncher
