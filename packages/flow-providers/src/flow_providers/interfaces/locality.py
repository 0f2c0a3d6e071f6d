"""Where the jobs of a provider run, seen from the machine of the script."""

from __future__ import annotations

from enum import Enum


class Locality(Enum):
    """What the jobs of a provider share with this machine.

    Attributes:
        THIS_MACHINE: They are processes of this machine.
        SAME_FILES: They run on other machines that are expected to see this machine's files, as the nodes of a cluster
            whose scheduler's commands are here. Whoever needs to be sure looks there.
        ELSEWHERE: They share nothing with this machine: paths of this machine mean nothing there.
    """

    THIS_MACHINE = "this machine"
    SAME_FILES = "same files"
    ELSEWHERE = "elsewhere"
