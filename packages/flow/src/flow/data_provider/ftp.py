"""Staging by FTP, under the path that scripts use."""

from flow_staging.ftp import FTPInTaskStaging as FTPInTaskStaging, FTPSeparateTaskStaging as FTPSeparateTaskStaging
