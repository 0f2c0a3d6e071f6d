"""Staging from and to S3, under the path that scripts use."""

from flow_staging.s3 import S3Staging as S3Staging
