"""Staging by Globus, under the path that scripts use."""

from flow_staging.globus import GlobusStaging as GlobusStaging
