"""Staging of members of zip archives, under the path that scripts use."""

from flow_staging.zip import ZipFileStaging as ZipFileStaging
