"""The kill tests import their tools from beside themselves."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
