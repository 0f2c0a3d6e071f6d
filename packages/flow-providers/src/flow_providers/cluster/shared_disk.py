"""Jobs whose nodes may not see the files of the host that submits: what they bring along, and how it comes back. Pure.

Where the disk is shared a job's secrets are files beside its script. Where it is not they travel in the script's own
text, which the scheduler keeps where only the user (and root) can read it, or in its transfer list (HTCondor).
"""

from __future__ import annotations

import re
import secrets as random
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Literal

from flow_providers.interfaces.job_extras import carried_variable, secret_variable
from flow_providers.jobs.files import JobFiles
from flow_providers.jobs.tag import safe_name
from flow_providers.templates import render

SharedDisk = bool | Literal["auto"]
"""Whether the nodes see the files of the host that submits, at the same paths; ``'auto'``: each job finds out."""

ADVICE = (
    "Give the provider shared_disk=False (or leave it at 'auto'), so that the job brings along what it needs; or "
    "choose as script_dir of the channel a directory that the nodes see, too"
)
REPORT_BYTES = 1500
"""Most bytes of a job's last words that come back by the scheduler: it keeps them in a field meant for a remark."""
_LINES = r"^flow_(carried_[0-9]+|pad)="


@dataclass(frozen=True, slots=True)
class JobPayload:
    """What one job brings along.

    Attributes:
        shared: What is known of the disk; never True.
        secrets: Names and contents of the secrets.
        many_nodes: Whether copies of the command run on nodes that do not run the script.
        redirect: Whether the script opens its own outputs, since the scheduler may not be able to.
        sandbox: Directory, as bash code, into which the scheduler brings the secrets; empty: they are in the text.
        report: Bash code that hands ``$flow_said`` over to the scheduler; empty: nothing comes back that way.
        pad: Random bytes, each used once, by which nobody else can read what comes back.
    """

    shared: SharedDisk
    secrets: tuple[tuple[str, bytes], ...]
    many_nodes: bool = False
    redirect: bool = False
    sandbox: str = ""
    report: str = ""
    pad: bytes = field(default_factory=lambda: random.token_bytes(REPORT_BYTES), repr=False)

    def arrival(self, job: JobFiles) -> str:
        """Return the bash code at the beginning of the job's script."""
        return render(
            "flow_providers.cluster",
            "arrival.sh.j2",
            {
                "job": job,
                "shared": self.shared,
                "secrets": [
                    {
                        "variable": secret_variable(name),
                        "carried": carried_variable(name),
                        "file": safe_name(name),
                        "text": b64encode(content).decode(),
                    }
                    for name, content in self.secrets
                ],
                "many_nodes": self.many_nodes,
                "redirect": self.redirect,
                "sandbox": self.sandbox,
                "report": self.report,
                "report_bytes": REPORT_BYTES,
                "pad": self.pad.hex() if self.report else "",
            },
        )


def scrub_command(script: str) -> str:
    """Return the command that takes the secrets out of a script that the scheduler has a copy of."""
    return f"sed -i -E -e {quote(f'/{_LINES}/d')} {quote(script)}"


def last_words(text: str, tag: str, pad: bytes) -> str:
    """Return the last words of a job out of what the scheduler shows of it; empty where there are none."""
    found: Sequence[str] = re.findall(rf"flow:{re.escape(tag)}:((?:[0-9a-f]{{2}})+)", text)
    said = bytes.fromhex(found[-1]) if found else b""
    return bytes(a ^ b for a, b in zip(said, pad, strict=False)).decode(errors="replace")
