"""Modules that workers import before their first task, because the script asks for it. Standard library only."""

from __future__ import annotations

import os
import sys

VARIABLE = "FLOW_WORKER_IMPORTS"
"""Environment variable with their names, blanks between them; executors hand it on to the jobs of their blocks."""


_imported = ""  # what this process, which may run many tasks, has imported so


def with_import(names: str, name: str) -> str:
    """Return a value of the variable with one more module."""
    known = names.split()
    return " ".join(known if name in known else [*known, name])


def import_for_worker() -> None:
    """Import what the variable names. One that cannot be imported is told on standard error: tasks may do without."""
    global _imported
    names = os.environ.get(VARIABLE, "")
    if names == _imported:
        return
    _imported = names
    from importlib import import_module

    for name in names.split():
        try:
            import_module(name)
        except Exception as error:
            sys.stderr.write(f"flow: {VARIABLE}: {name} cannot be imported here: {type(error).__name__}: {error}\n")
