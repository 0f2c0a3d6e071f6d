"""The errors a script may want to catch."""

from flow_core.errors import *  # noqa: F403 - the whole hierarchy, under the path that scripts use
