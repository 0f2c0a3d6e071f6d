"""The default staging methods, under the path that scripts use."""

from flow_core.staging.defaults import default_staging as default_staging
