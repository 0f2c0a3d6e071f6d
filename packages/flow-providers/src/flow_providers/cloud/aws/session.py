"""Credentials and errors of Amazon's official client, boto3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flow_providers.cloud.refused import Refused
from flow_providers.errors import BadOption, SchedulerUnavailable
from flow_providers.optional import optional_module

_TRANSIENT = frozenset(
    {"RequestLimitExceeded", "Throttling", "InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable"}
)


def make_session(region: str, key_file: str | None, profile: str | None) -> Any:  # boto3 has no types
    """Return a boto3 session: by the key file, else the profile, else the environment and boto3's own sources.

    Raises:
        BadOption: the key file cannot be read or lacks a key, or there is no such profile.
        OptionalModuleMissing: boto3 is not installed.
    """
    boto3 = optional_module("boto3", extra="aws", purpose="AWSProvider")
    exceptions = optional_module("botocore.exceptions", extra="aws", purpose="AWSProvider")
    if key_file is not None:
        access, secret = _keys(key_file)
        return boto3.Session(aws_access_key_id=access, aws_secret_access_key=secret, region_name=region)
    try:
        return boto3.Session(profile_name=profile, region_name=region)
    except exceptions.ProfileNotFound as error:
        raise BadOption(f"AWSProvider: option profile={profile!r}: {error}") from error


def make_ec2(session: Any, timeout_s: float) -> Any:
    """Return the session's EC2 resource, with ``timeout_s`` seconds for a connection and for each answer."""
    config = optional_module("botocore.config", extra="aws", purpose="AWSProvider")
    # Four attempts in all: EC2 throttles calls, and boto3 waits between its attempts.
    settings = config.Config(
        connect_timeout=timeout_s, read_timeout=timeout_s, retries={"mode": "standard", "max_attempts": 4}
    )
    return session.resource("ec2", config=settings)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn boto3's errors into ours.

    Raises:
        Refused: Amazon refused the call.
        SchedulerUnavailable: no answer, or an error of Amazon's own.
    """
    exceptions = optional_module("botocore.exceptions", extra="aws", purpose="AWSProvider")
    try:
        yield
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        # Throttling has HTTP codes of 400 to 503, so the code's name decides first.
        if code in _TRANSIENT or int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500:
            raise SchedulerUnavailable(f"Amazon cannot {doing} now: {error}") from error
        raise Refused(code, f"Amazon refused to {doing}: {error}") from error
    except exceptions.NoCredentialsError as error:
        raise Refused(
            "NoCredentials",
            "there are no credentials for Amazon: give key_file or profile, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY",
        ) from error
    except exceptions.BotoCoreError as error:
        raise SchedulerUnavailable(f"Amazon does not answer when asked to {doing}: {error}") from error


def _keys(key_file: str) -> tuple[str, str]:
    try:
        keys = json.loads(Path(key_file).expanduser().read_text())
        return str(keys["AWSAccessKeyId"]), str(keys["AWSSecretKey"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadOption(
            f"AWSProvider: option key_file={key_file!r} must be a JSON file with AWSAccessKeyId and AWSSecretKey: "
            f"{type(error).__name__}: {error}"
        ) from error
