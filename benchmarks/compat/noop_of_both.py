"""Run ``noop.py`` under Parsl and under ``flow run --parsl``, in turn, and print the ratio of their rates.

Needs an environment with Parsl and Flow: ``python noop_of_both.py [rounds]``. The number of tasks is such that either
takes seconds: Parsl's rate is known from a first run of few tasks.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = str(Path(__file__).with_name("noop.py"))
WITH = {
    "Parsl": [sys.executable, SCRIPT],
    "Flow": [sys.executable, "-c", "from flow.cli.main import main; main()", "run", "--parsl", SCRIPT],
}
COUNTS = {"Parsl": 3000, "Flow": 60000}


def rate(system: str, kind: str, count: int) -> float:
    # Parsl starts its programs by name.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [*WITH[system], kind, str(count)]
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    found = re.search(r"(\d+) tasks/s", done.stdout)
    if found is None:
        raise SystemExit(f"{system}: {done.stdout}\n{done.stderr}")
    return float(found[1])


def main(rounds: int) -> None:
    for kind in ("htex", "threads"):
        rates: dict[str, list[float]] = {"Parsl": [], "Flow": []}
        for _ in range(rounds):
            for system in rates:
                rates[system].append(rate(system, kind, COUNTS[system]))
        middle = {system: statistics.median(found) for system, found in rates.items()}
        print(
            f"{kind}: Parsl {middle['Parsl']:.0f} tasks/s, flow run --parsl {middle['Flow']:.0f} tasks/s: "
            f"{middle['Flow'] / middle['Parsl']:.1f} times (each {rounds} runs in turn, medians; "
            f"Parsl {[round(one) for one in rates['Parsl']]}, Flow {[round(one) for one in rates['Flow']]})"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
