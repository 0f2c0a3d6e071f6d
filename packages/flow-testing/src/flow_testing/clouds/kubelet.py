"""The node of a fake cluster: runs containers as processes, each in a mount namespace of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from flow_providers.starting import starting

Spec = Mapping[str, "object"]


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of this machine that a container sees elsewhere."""

    source: Path
    target: str


def start(container: Spec, security: Spec, mounts: Sequence[Mount], log: Path) -> subprocess.Popen[bytes]:
    """Start a container as the leader of a session; output of both kinds goes to one log. OSError: it cannot be."""
    env = environment(container)
    words = [expanded(word, env) for key in ("command", "args") for word in strings(container.get(key))]
    command = ["bash", "-c", _entry(security, mounts), "entry", *words]
    # Without root, a user namespace gives the right to mount, in it alone.
    namespace = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    with log.open("wb") as output, starting():
        return subprocess.Popen(
            [*namespace, *command],
            env={"PATH": os.environ["PATH"], "HOME": "/", **env},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a container: TERM to its first process, KILL to all after the grace."""
    with suppress(ProcessLookupError):
        # Its first process only, as Kubernetes does: a command that does not pass the signal on is killed after the
        # grace.
        os.kill(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    sweep(process.pid)


def sweep(session: int) -> None:
    """Kill all processes of a container's session, as the end of a pid namespace does."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError, IndexError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            # Field 6 of proc(5), counted from after the name, which may hold spaces and parentheses.
            if int(fields[3]) == session:
                os.kill(int(entry.name), signal.SIGKILL)


def write_secret(folder: Path, data: Mapping[str, str], mode: int) -> None:
    """Write the volume of a secret as a kubelet does: links to files in a hidden directory."""
    # As in a cluster, where this directory is exchanged at once when the secret changes: commands see links.
    (folder / "..data").mkdir(parents=True)
    for key, content in data.items():
        file = folder / "..data" / key
        file.write_bytes(b64decode(content))
        file.chmod(mode)
        (folder / key).symlink_to(Path("..data") / key)


def environment(container: Spec) -> dict[str, str]:
    """Return a container's variables, each expanded by those before it."""
    made: dict[str, str] = {}
    listed = container.get("env")
    for entry in listed if isinstance(listed, list) else []:
        made[str(entry["name"])] = expanded(str(entry.get("value", "")), made)
    return made


def expanded(text: str, env: Mapping[str, str]) -> str:
    """Expand ``$(NAME)`` and ``$$`` as Kubernetes does; names that are not set stay as they are."""
    return re.sub(r"\$\$|\$\(([^)]*)\)", lambda m: "$" if m[0] == "$$" else env.get(m[1], m[0]), text)


def strings(value: object) -> list[str]:
    """Return the strings of a list."""
    return [str(item) for item in value] if isinstance(value, list) else []


def _entry(security: Spec, mounts: Sequence[Mount]) -> str:
    # Over the places where the manifests mount: nothing is written to directories of this machine.
    lines = ["set -e", "mount -t tmpfs -o mode=0755 none /run", "mount -t tmpfs -o mode=0755 none /mnt"]
    for mount in mounts:
        lines += [f"mkdir -p {quote(mount.target)}", f"mount --bind {quote(str(mount.source))} {quote(mount.target)}"]
    user, group = security.get("runAsUser"), security.get("runAsGroup")
    # The container must not outlive the test's process.
    become = ["setpriv", "--pdeathsig", "KILL"]
    if user is not None and os.getuid() == 0:
        become += [f"--reuid={user}", f"--regid={group if group is not None else user}", "--clear-groups"]
    lines.append(f'exec {" ".join(become)} -- "$@"')
    return "\n".join(lines)
