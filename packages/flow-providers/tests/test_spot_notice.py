"""A cloud that takes a machine away is heard of, and programs of the job that handle it are told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from flow_providers.cloud.aws import provider as aws
from flow_providers.cloud.azure import provider as azure
from flow_providers.cloud.google import provider as google
from flow_providers.cloud.user_data import Boot, script_of

NOTICES = {"aws": aws._SPOT_NOTICE, "azure": azure._SPOT_NOTICE, "google": google._SPOT_NOTICE}

# What each cloud answers once it takes the machine away; before that AWS says 404, the others something else.
CURL = """#!/bin/bash
case "$*" in
  *latest/api/token) echo token ;;
  *"X-aws-ec2-metadata-token: token"*spot/instance-action) [ -e {taken} ] || exit 22 ;;
  *"Metadata-Flavor: Google"*instance/preempted) if [ -e {taken} ]; then echo TRUE; else echo FALSE; fi ;;
  *"Metadata:true"*scheduledevents*)
    if [ -e {taken} ]; then echo '{{"Events":[{{"EventType":"Preempt"}}]}}'; else echo '{{"Events":[]}}'; fi ;;
  *) exit 7 ;;
esac
"""
# It has the machine taken away once it listens.
PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: sys.exit("told"))
open("{taken}", "w").close()
while True:
    signal.pause()
"""


def run(place: Path, notice: str) -> str:
    """Run the script of a machine's first boot, and return what it writes to the console."""
    programs = place / "bin"
    programs.mkdir()
    taken = place / "taken"
    stubs = {"curl": CURL.format(taken=taken), "sleep": "#!/bin/sh\nexec /bin/sleep 0.1\n"}
    for name, text in stubs.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (place / "program.py").write_text(PROGRAM.format(taken=taken))
    command = f"python3 {place}/program.py"
    script = script_of(Boot("fx-1", "fx", command, "", [], [], 40, True, 0, notice))
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(place)}
    done = subprocess.run(
        ["bash"], input=script, text=True, env=environment, capture_output=True, timeout=55, check=False
    )
    return done.stdout


@pytest.mark.timeout(60)
@pytest.mark.parametrize("cloud", list(NOTICES))
def test_the_job_of_a_machine_that_is_taken_away_is_told(cloud: str, tmp_path: Path) -> None:
    console = run(tmp_path, NOTICES[cloud])
    assert "flow:fx:note:the cloud takes this machine away" in console
    assert "flow:fx:err:told" in console
    assert "flow:fx:exit:1" in console


def test_a_machine_on_demand_does_not_ask() -> None:
    assert "curl" not in script_of(Boot("fx-1", "fx", "true", "", [], [], 0, True, 0))
