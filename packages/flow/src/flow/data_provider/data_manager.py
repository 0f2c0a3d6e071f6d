"""The default staging methods, and what moves files by them, under the path that scripts use."""

from flow_core.staging.defaults import default_staging as default_staging
from flow_core.staging.manager import StagingManager as DataManager

__all__ = ["DataManager", "default_staging"]
