"""The launchers, under the path of their module."""

from flow_providers import Launcher as Launcher
from flow_providers.launchers import *  # noqa: F403 - all launchers, under the path that scripts use
