"""The script of a machine's first boot, and the reader of what the script writes to the console. Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from flow_providers.interfaces.job_extras import secret_variable
from flow_providers.jobs.notices import notices_code
from flow_providers.jobs.tag import safe_name
from flow_providers.templates import render


@dataclass(frozen=True, slots=True)
class Boot:
    """The job of a machine, as the script of its first boot needs it.

    Attributes:
        job: Name of the job's directory on the machine, unique.
        tag: The job's tag.
        command: Bash code, launcher included.
        worker_init: Bash code before it.
        environment: Variables.
        secrets: Names and contents of secret files.
        walltime_s: Seconds the command may run; 0: no limit.
        linger: Whether the machine stays on afterwards.
        settle_s: Seconds between the command's end and the machine's.
        spot_notice: Bash command that succeeds once the cloud has said that it takes the machine away; empty where it
            does not do so.
    """

    job: str
    tag: str
    command: str
    worker_init: str
    environment: Sequence[tuple[str, str]]
    secrets: Sequence[tuple[str, bytes]]
    walltime_s: int
    linger: bool
    settle_s: float
    spot_notice: str = ""


@dataclass(frozen=True, slots=True)
class ConsoleReport:
    """The outputs and the end of a job, as read from the console of its machine.

    Attributes:
        stdout: Standard output of the job.
        stderr: Its standard error.
        exit: ``0`` to ``255``, ``timeout``, ``rebooted``; empty while it runs.
    """

    stdout: str = ""
    stderr: str = ""
    exit: str = ""

    def tail(self, max_bytes: int) -> ConsoleReport:
        """Return the report with only the ends of the outputs."""
        return ConsoleReport(_end(self.stdout, max_bytes), _end(self.stderr, max_bytes), self.exit)


def script_of(boot: Boot) -> str:
    """Return the bash script for the machine. It holds the secrets: only for the cloud's user data."""
    return render(
        "flow_providers.cloud",
        "user_data.sh.j2",
        {
            "job": boot.job,
            "tag": boot.tag,
            "command": boot.command,
            "worker_init": boot.worker_init,
            "environment": boot.environment,
            "secrets": [
                (safe_name(name), secret_variable(name), b64encode(content).decode()) for name, content in boot.secrets
            ],
            "walltime_s": boot.walltime_s,
            "linger": boot.linger,
            "settle_s": boot.settle_s,
            "spot_notice": boot.spot_notice,
            "notices": notices_code() if boot.spot_notice else "",
            # The end mark of the here document that holds the command: derived from the command, so no line of it can
            # be the mark.
            "mark": f"FLOW_{sha256(boot.command.encode()).hexdigest()[:16]}",
        },
    )


def read_console(text: str, tag: str) -> ConsoleReport:
    """Return the report of the job's lines on a console; text of the system may stand between and before them."""
    lines: dict[str, list[str]] = {"out": [], "err": [], "exit": []}
    # Every line carries the tag, since kernel and services write to the same console, also into the middle of a line.
    for kind, line in re.findall(rf"flow:{re.escape(tag)}:(out|err|exit):([^\r\n]*)", text):
        lines[kind].append(line)
    out, err = ("".join(f"{line}\n" for line in lines[kind]) for kind in ("out", "err"))
    return ConsoleReport(out, err, lines["exit"][-1].strip() if lines["exit"] else "")


def _end(text: str, max_bytes: int) -> str:
    return text.encode()[-max_bytes:].decode("utf-8", "replace") if max_bytes > 0 else ""
