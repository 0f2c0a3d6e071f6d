"""The staging interface, under the path that scripts use."""

from flow_core.interfaces.staging import Staging as Staging
