"""Staging by fsspec's file systems, under the path that scripts use."""

from flow_staging.fsspec_files import FsspecStaging as FsspecStaging
