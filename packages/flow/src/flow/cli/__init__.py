"""The ``flow`` command."""

from flow.cli.main import main as main
