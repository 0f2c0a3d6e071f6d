"""The errors of apps, under the path that scripts use."""

from flow_core.errors import *  # noqa: F403 - the whole hierarchy, under the path that scripts use
