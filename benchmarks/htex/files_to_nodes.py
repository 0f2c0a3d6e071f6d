"""Times files that go over the connection of a manager against ``rsync -e ssh`` between the same two machines, in turn.

``python benchmarks/htex/files_to_nodes.py [--rounds N] [--only large.bin|many]``, as root: it starts a node of its own
by ``tests-integration/services/second_machine.sh``, and takes three gigabytes of memory while it runs: all files lie in
that, so no disk is measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests-integration" / name) for name in ("remote", "providers")]

from machines import Machines  # noqa: E402 - needs the line above

SCRIPT = """
import shutil
import subprocess
from pathlib import Path
from flow_core import Directory


@python_app
def touch(file):
    import os

    return os.path.isdir(file) or os.path.getsize(file)


def rsync(what, there):
    ssh = "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    begun = time.monotonic()
    subprocess.run(["rsync", "-a", "-e", ssh, what, f"alice@node1:{there}"], check=True)
    return time.monotonic() - begun


block = os.urandom(1 << 20)
with open("large.bin", "wb") as stream:
    for number in range(1000):
        stream.write(number.to_bytes(4, "little") + block[4:])
Path("many").mkdir()
for number in range(10_000):
    Path(f"many/{number:05}").write_bytes(number.to_bytes(4, "little") + block[4:10_000])
with flow.load(config("node1", working_dir="/tmp/flow")) as kernel:
    where().result()
    for turn in range(ROUNDS):
        for name, made in ONLY:
            # Other content each time: what the node has is not sent again.
            change = [Path(name)] if made is File else list(Path(name).iterdir())
            for one in change:
                with open(one, "r+b") as stream:
                    stream.write(os.urandom(4))
            tell(what=name, by="rsync", seconds=rsync(name, f"/tmp/r{turn}-{name}"))
            subprocess.run(["ssh", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                            "-o", "LogLevel=ERROR", "alice@node1", f"rm -rf /tmp/r{turn}-*"], check=True)
            begun = time.monotonic()
            touch(made(name)).result()
            tell(what=name, by="connection", seconds=time.monotonic() - begun)
"""


_MADE = {"large.bin": "File", "many": "Directory"}


def main() -> None:
    """Measure and print the medians, and how many times as fast as rsync."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(_MADE), action="append")
    options = parser.parse_args()
    names = options.only or list(_MADE)
    pairs = "".join(f"({name!r}, {_MADE[name]})," for name in names)
    with tempfile.TemporaryDirectory() as directory:
        machines = Machines(Path(directory) / "machines")
        try:
            machines.start(1)
            told = machines.run(
                SCRIPT.replace("ROUNDS", str(options.rounds)).replace("ONLY", f"({pairs})"), timeout_s=400
            )
        finally:
            machines.stop()
    for what in names:
        each = {
            by: [float(str(one["seconds"])) for one in told if (one["what"], one["by"]) == (what, by)]
            for by in ("rsync", "connection")
        }
        medians = {by: statistics.median(seconds) for by, seconds in each.items()}
        print(
            f"{what}: rsync {medians['rsync']:.2f} s, connection {medians['connection']:.2f} s, "
            f"{medians['rsync'] / medians['connection']:.2f} x of rsync  {each}"
        )


if __name__ == "__main__":
    main()
