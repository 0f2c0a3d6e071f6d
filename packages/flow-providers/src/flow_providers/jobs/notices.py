"""Bash code by which a job's script hands on what it is told: that the job, or its machine, will end. Pure."""

from __future__ import annotations

from flow_providers.templates import render


def notices_code() -> str:
    """Return bash functions: ``flow_tell SIGNAL GROUP`` signals the processes of a group that handle the signal."""
    return render("flow_providers.jobs", "notices.sh.j2", {}).rstrip("\n")
