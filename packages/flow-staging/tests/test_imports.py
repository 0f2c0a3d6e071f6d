"""What loading the methods costs a worker or a script that moves no files."""

from __future__ import annotations

import subprocess
import sys

import pytest

import flow_staging


@pytest.mark.parametrize("name", flow_staging.__all__)
def test_every_public_name_is_there(name):
    assert getattr(flow_staging, name) is not None


def test_making_methods_and_steps_loads_no_third_party_module():
    code = """
import sys
from flow_staging import *
from flow_staging import (FsspecStaging, FTPInTaskStaging, FTPSeparateTaskStaging, GlobusStaging, HTTPInTaskStaging,
                          HTTPSeparateTaskStaging, RSyncStaging, S3Staging, ZipFileStaging)
made = [kind() for kind in (FTPInTaskStaging, FTPSeparateTaskStaging, HTTPInTaskStaging, HTTPSeparateTaskStaging,
                            S3Staging, ZipFileStaging, FsspecStaging)]
made += [RSyncStaging("me@host"), GlobusStaging("7d2dc622-2edb-11e8-b8be-0ac6873fc732")]
print([name for name in ("requests", "urllib3", "boto3", "globus_sdk", "fsspec", "paramiko") if name in sys.modules])
print(made)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40)
    assert done.stdout.startswith("[]\n"), done.stdout + done.stderr


def test_the_default_methods_are_registered():
    from importlib.metadata import entry_points

    points = {point.name: point.load() for point in entry_points(group="flow_core.staging")}
    assert points["http"] is flow_staging.HTTPSeparateTaskStaging
    assert points["ftp"] is flow_staging.FTPSeparateTaskStaging
