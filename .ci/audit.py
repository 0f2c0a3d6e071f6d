"""Fails on what bandit finds and nobody has accepted, on what was accepted and is gone, and on faulty dependencies.

``.ci/accepted.toml`` names what is accepted: whole rules with the reason, or a rule in a file with how often and why.
Known faults of the installed dependencies are asked of the index's own service; where that does not answer, it is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
_BANDIT_S = 600
_AUDIT_S = 300


def main() -> int:
    """Return the exit code; 0 where nothing is left to look at."""
    problems = [*_code(), *_dependencies()]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _code() -> list[str]:
    folders = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("packages/*/src"))
    command = [sys.executable, "-m", "bandit", "-q", "-r", *folders, "-f", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_BANDIT_S, check=False)
    report = json.loads(done.stdout)
    problems = [f"bandit cannot read {error['filename']}: {error['reason']}" for error in report["errors"]]
    accepted = tomllib.loads((ROOT / ".ci" / "accepted.toml").read_text())
    rules = accepted["rules"]
    lines: dict[tuple[str, str], list[str]] = {}
    for found in report["results"]:
        where = f"{found['filename']}:{found['line_number']}: {found['test_id']} {found['issue_text']}"
        lines.setdefault((found["filename"], found["test_id"]), []).append(where)
    accepted_times = {(one["file"], one["rule"]): one["times"] for one in accepted["findings"]}
    for (file, rule), where in sorted(lines.items()):
        times = accepted_times.pop((file, rule), 0)
        if rule in rules:
            continue
        if len(where) > times:
            problems += [f"{line} (accepted in this file: {times} of {len(where)})" for line in where]
        elif len(where) < times:
            problems.append(f"{file}: {rule} is accepted {times} times and found {len(where)}: correct that")
    problems += [f"{file}: {rule} is accepted and found nowhere: take it out" for file, rule in accepted_times]
    unused = set(rules) - {rule for _, rule in lines}
    return problems + [f"{rule} is accepted everywhere and found nowhere: take it out" for rule in sorted(unused)]


def _dependencies() -> list[str]:
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--local",
        "--skip-editable",
        "-f",
        "json",
        "--progress-spinner",
        "off",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_AUDIT_S, check=False)
        found = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print("known faults of dependencies: the service does not answer, so nobody was asked")
        return []
    asked = [one for one in found if "skip_reason" not in one]
    print(f"known faults of dependencies: {len(asked)} of {len(found)} are known where it was asked")
    return [
        f"{one['name']} {one['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'no release'}"
        for one in asked
        for fault in one["vulns"]
    ]


if __name__ == "__main__":
    sys.exit(main())
