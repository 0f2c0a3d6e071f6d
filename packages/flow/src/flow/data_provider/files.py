"""The File class, under the path that scripts use."""

from flow_core.files import File as File
