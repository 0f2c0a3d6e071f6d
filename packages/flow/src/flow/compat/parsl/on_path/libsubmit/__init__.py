"""Found where ``flow.compat.parsl`` is not installed yet: in processes that multiprocessing spawns. Steps aside."""

import sys
from importlib import import_module

del sys.modules[__name__]
import_module("flow.compat.parsl").install(quiet=True)
import_module(__name__)
