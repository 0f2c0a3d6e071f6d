"""Staging by HTTP, under the path that scripts use."""

from flow_staging.http import HTTPInTaskStaging as HTTPInTaskStaging, HTTPSeparateTaskStaging as HTTPSeparateTaskStaging
