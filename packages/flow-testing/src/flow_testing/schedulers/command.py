"""One command of a simulated scheduler: its call and its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Called:
    """A command as it was called.

    Attributes:
        program: Its name.
        arguments: Its arguments.
        cwd: Where it was called.
        stdin: What it was given, for the programs that read it.
    """

    program: str
    arguments: list[str]
    cwd: str
    stdin: str = ""

    def text_of(self, path: str) -> str:
        """Return a file that was named in the call."""
        return (Path(self.cwd) / path).read_text()


@dataclass(slots=True)
class CommandAnswer:
    """The answer of a command: lines on both streams, and the exit code."""

    code: int = 0
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a line to the command's standard output."""
        self.out.append(text)

    def complain(self, text: str, code: int | None = None) -> CommandAnswer:
        """Add a line to standard error, set the exit code where one is given, and return this answer."""
        self.err.append(text)
        self.code = self.code if code is None else code
        return self


def directive(script: str, mark: str, option: str) -> str:
    """Return the value of a directive such as ``#PBS -q short``; empty: there is none."""
    found = re.findall(rf"^#{mark} {option}(?: (.*))?$", script, re.MULTILINE)
    # The last one counts: users' own directives come after those of the template.
    return found[-1].strip() if found else ""
