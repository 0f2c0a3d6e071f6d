"""The Config class, under the path that scripts use."""

from flow_core.config import Config as Config
from flow_core.graph.resolver import DEEP as DEEP
