"""What a task leaves behind in its process is put back; each case in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

_BEGIN = """
import os, sys, signal, resource
from flow_core.remote import state as module
from flow_core.remote.state import ProcessState
LONG = 10 ** 9
state = ProcessState()
"""


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_task_that_changes_nothing_is_not_asked_for_more() -> None:
    run(
        "state._put_back = None  # calling it would fail\n"
        "import json, decimal, socket, logging, tempfile  # of the standard library\n"
        "decimal.getcontext(), tempfile.tempdir, os.environ.get('HOME'), os.getcwd()\n"
        "assert state.restore(0) == ''\nassert state.restore(0) == ''\nassert state.restore(LONG) == ''\n"
    )


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("libc.setrlimit(7, (ctypes.c_ulong * 2)(64, resource.getrlimit(7)[1]))", "resource.getrlimit(7)"),
        ("libc.chdir(b'/')", "os.getcwd()"),
        ("libc.umask(0o111)", "open('/proc/self/status').read().partition('Umask:')[2][:6]"),
        ("libc.setpriority(0, 0, 7)", "os.getpriority(0, 0)"),
        ("libc.setlocale(6, b'C')", "locale.setlocale(6)"),
        ("ctypes.pythonapi.Py_SetRecursionLimit(77)", "sys.getrecursionlimit()"),
        ("os.environ._data[b'ODD'] = b'1'", "dict(os.environ)"),
        ("decimal.getcontext().traps[decimal.Inexact] = True", "decimal.getcontext().traps[decimal.Inexact]"),
        ("decimal.getcontext().Emax = 9", "decimal.getcontext().Emax"),
    ],
)
def test_what_c_code_changes_in_a_long_task_is_put_back(change: str, check: str) -> None:
    run(
        "import ctypes, decimal, locale\nlocale.setlocale(6, 'C.UTF-8')\nlibc = ctypes.CDLL(None)\nstate.take()\n"
        f"def look(): return {check}\nbefore = look()\n{change}\nassert look() != before\n"
        "assert state.restore(LONG) == ''\nassert look() == before, (look(), before)\n"
    )


@pytest.mark.parametrize("took", ["0", "LONG"])
def test_functions_imported_by_name_are_seen_too(took: str) -> None:
    run(
        "from os import chdir, umask\nfrom signal import alarm\nfrom posix import chdir as by_value\n"
        "home = os.getcwd()\nchdir('/'); umask(0o111); alarm(50)\n"
        f"assert state.restore({took}) == ''\n"
        "assert (os.getcwd(), signal.alarm(0)) == (home, 0) and umask(0o22) != 0o111\n"
        f"state.restore({took}); by_value('/'); state.restore({took}); assert os.getcwd() == home\n"
    )


def test_what_cannot_be_put_back_is_named() -> None:
    run(
        "def refuse(limits): raise ValueError('not allowed to raise maximum limit')\n"
        "name = 'resource limits'\n"
        "module.OF_THE_SYSTEM = [part._replace(write=refuse) for part in module.OF_THE_SYSTEM if part.name == name]\n"
        "from flow_core.remote.state import LIMITS\n"
        "state._known[name][LIMITS.index(resource.RLIMIT_CORE)] = (1, 1)\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "assert state.restore(0) == 'resource limits'\n"
    )


def test_what_was_changed_on_purpose_between_tasks_is_taken() -> None:
    run(
        "os.chdir('/'); os.environ['MINE'] = '1'; state.take_changes(); os.chdir('/tmp'); del os.environ['MINE']\n"
        "state.restore(0); assert (os.getcwd(), os.environ['MINE']) == ('/', '1')\n"
    )


def test_odd_objects_of_a_task_do_not_hinder() -> None:
    run(
        "class Odd(str):\n"
        "    def __eq__(self, other): raise RuntimeError('no')\n"
        "    __hash__ = str.__hash__\n"
        "class Stream:\n"
        "    @property\n"
        "    def closed(self): raise RuntimeError('no')\n"
        "before = list(sys.path), list(sys.argv), sys.stdout\n"
        "sys.path.insert(0, Odd('x')); sys.argv[:] = [Odd('y')]; sys.stdout = Stream()\n"
        "assert state.restore(0) == ''\n"
        "assert (list(sys.path), list(sys.argv), sys.stdout) == before\n"
    )


def test_handlers_and_variables_set_by_a_module_stay_as_it_set_them() -> None:
    run(
        "import importlib.util, pathlib, tempfile\n"
        "folder = tempfile.mkdtemp(); sys.path.append(folder); state.take()\n"
        "pathlib.Path(folder, 'own_settings.py').write_text('import os, signal\\nos.environ[\"KEPT\"] = \"1\"\\n'\n"
        "    'os.environ.pop(\"HOME\", None)\\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\\n'\n"
        "    'import sys\\nsys.setrecursionlimit(4321)\\n')\n"
        "os.environ['HOME'] = '/root'; state.take()\n"
        "import own_settings\nos.environ['LOST'] = '1'; signal.signal(signal.SIGUSR2, signal.SIG_IGN)\n"
        "assert state.restore(0) == ''\n"
        "assert os.environ.get('KEPT') == '1' and 'HOME' not in os.environ and 'LOST' not in os.environ\n"
        "assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN and sys.getrecursionlimit() == 4321\n"
        "assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL\n"
    )


def test_wrapped_functions_travel_and_compare_as_before() -> None:
    run(
        "import pickle\n"
        "assert b'posix' in pickle.dumps(os.chdir) and pickle.loads(pickle.dumps(os.chdir)) is os.chdir\n"
        "assert os.chdir in os.supports_fd and isinstance(os.environ.copy(), dict)\n"
        "try: os.chdir('/not/there')\nexcept FileNotFoundError: pass\nelse: raise AssertionError\n"
    )
