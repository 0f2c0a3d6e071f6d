"""``python -m flow``: the ``flow`` command."""

from flow.cli.main import main

main()
