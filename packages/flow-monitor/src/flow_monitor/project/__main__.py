"""``python -m flow_monitor.project --role projector --run-id ID``: started by the hub."""

import sys

from flow_monitor.project.process import main

if __name__ == "__main__":
    sys.exit(main())
