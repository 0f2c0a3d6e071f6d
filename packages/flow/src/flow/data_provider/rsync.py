"""Staging by rsync, under the path that scripts use."""

from flow_staging.rsync import RSyncStaging as RSyncStaging
