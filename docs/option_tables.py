"""Write the tables of options into the pages: they are made of the options' own documentation.

python docs/option_tables.py            # writes them
python docs/option_tables.py --check    # ends with status 1 where a page differs
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from flow_executors.common.option_records import table
from flow_executors.htex import HighThroughputExecutor

PAGES = {"executors.md": HighThroughputExecutor}


def page_with_table(text: str, kind: type[object]) -> str:
    """Return the text of a page with the table of a class between its marks."""
    name = kind.__name__
    marks = re.compile(rf"(<!-- options of {name} -->\n).*?(<!-- end of options -->)", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"the page has no marks for the options of {name}")
    return marks.sub(lambda found: f"{found[1]}\n{table(kind)}\n{found[2]}", text)


def main() -> None:
    """Write the tables, or say which pages differ."""
    differ = []
    for page, kind in PAGES.items():
        path = Path(__file__).with_name(page)
        text = path.read_text()
        if (made := page_with_table(text, kind)) != text:
            differ.append(page)
            if "--check" not in sys.argv:
                path.write_text(made)
    if differ and "--check" in sys.argv:
        sys.exit(f"the tables of options differ in {', '.join(differ)}: python docs/option_tables.py writes them")


if __name__ == "__main__":
    main()
