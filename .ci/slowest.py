"""Print the ten slowest tests of a run, and how many tests there were, from the JUnit files in a directory."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def main() -> int:
    """Read the files, print the table; 1 if any test failed or none ran."""
    cases = []
    passed = failed = skipped = 0
    for path in sorted(Path(sys.argv[1]).glob("*.xml")):
        for case in ElementTree.parse(path).iter("testcase"):
            cases.append((float(case.get("time", 0)), path.stem, f"{case.get('classname')}::{case.get('name')}"))
            bad = case.find("failure") is not None or case.find("error") is not None
            left_out = case.find("skipped") is not None
            failed += bad
            skipped += left_out
            passed += not bad and not left_out
    print("\nThe ten slowest tests:")
    for seconds, environment, name in sorted(cases, reverse=True)[:10]:
        print(f"{seconds:8.1f} s  {environment:12s} {name}")
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
