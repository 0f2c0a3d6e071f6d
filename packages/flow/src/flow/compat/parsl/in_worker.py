"""Imported by workers of a script in which ``import parsl`` is Flow's: then it is in them, too."""

from flow.compat import parsl

parsl.install(quiet=True)
