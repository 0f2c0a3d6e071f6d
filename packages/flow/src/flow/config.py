"""The Config class, under the path that scripts use."""

from flow_core.config import Config as Config
