"""The shell code that finds a Python with Flow on a node, or brings Flow there, before a manager is started. Pure."""

from __future__ import annotations

import ast
import base64
import json
import re
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from shlex import quote

from flow_executors.common.versions import own_code
from flow_executors.launching.node_bundle import Archive
from flow_executors.wire.auth import SECRET_NAME
from flow_providers.interfaces.job_extras import file_variable, secret_variable

_CACHE = "flow_core.remote.node_cache"  # a module that nodes need before Flow is there
_ON_PATH = ("$FLOW_PYTHON", "python3", "python")


@dataclass(frozen=True, slots=True)
class PythonSearch:
    """How a manager's Python is found.

    Attributes:
        python: Major and minor version of the script's.
        candidates: What is tried in turn: commands, paths, variables (``$NAME``).
        runtime: What is brought where a Python is there and Flow is not; None: nothing is.
        always: Whether that is brought even where the script's Flow is there; else where there is none, or another.
        named: Whether the one candidate is what the user named by the option ``python=``.
        refused: Whether the user wants nothing to be brought.
        environment: Packed environment whose Python is taken; None: none.
        packages: Archive of further packages for that Python; None: none.
        addresses: Where nodes find the server of archives.
        port: Its port; 0: there is none.
        in_image: Whether all this is done in the image of a container.
        drivers: The candidate that is a path of the script's machine, which nodes may have too; empty: none is.
        owners: Numbers of users who have made it and the directories that lead to it there: nobody else's is taken.
    """

    python: str
    candidates: tuple[str, ...]
    runtime: Archive | None = None
    always: bool = False
    named: bool = False
    refused: bool = False
    environment: Archive | None = None
    packages: Archive | None = None
    addresses: tuple[str, ...] = ()
    port: int = 0
    in_image: bool = False
    drivers: str = ""
    owners: tuple[int, ...] = ()


def candidates(python: str | None, drivers: str) -> tuple[str, ...]:
    """Return what is tried in turn; ``drivers``: path of the script's Python, where nodes may have it too."""
    if python is not None:
        return (python,)
    # The last is there where the system's own Python is older.
    others = (*_ON_PATH, f"python{sys.version_info[0]}.{sys.version_info[1]}")
    return (drivers, *others) if drivers else others


def search_code(search: PythonSearch) -> str:
    """Return bash code after which ``PYTHON`` runs a manager; it ends the shell with 127 where there is none."""
    wanted = search.python
    ship = "" if search.runtime is None else "always" if search.always else "auto"
    lines = [
        f"flow_wanted={quote(wanted)} flow_ship={quote(ship)} flow_code={quote(own_code())}",
        f"flow_owners={quote(' '.join(map(str, search.owners)))}",
        f"flow_digest={quote(_program('flow_executors.common', 'code_digest.py'))}",
        _resource("flow_executors.launching", "find_python.sh").rstrip(),
    ]
    loaded = [one for one in (search.environment, search.runtime, search.packages) if one is not None]
    if loaded:
        lines.append(f"flow_loader={quote(_program('flow_executors.launching', 'node_loader.py', _CACHE))}")
    if search.environment is not None:
        told = _description(search, "environment", search.environment)
        lines += [
            f"flow_bring_environment {quote(told)} {_variable(search.environment)} {search.environment.sha256}",
            'flow_try "$flow_environment/bin/python"',
        ]
    else:
        for one in search.candidates:
            attempt = "flow_guess" if one == search.drivers else "flow_try"
            lines.append(f'[ -n "$flow_python" ] || {attempt} {_word(one)}')
    cures = quote(_cures(search))
    if search.runtime is None:
        lines.append(f'[ -n "$flow_python" ] || flow_fail "tried${{flow_tried#;}}. "{cures}')
    else:
        lines.append(
            f'[ -n "$flow_python" ] || flow_bring {quote(_description(search, "runtime", search.runtime))} {cures}'
        )
    if search.packages is not None:
        lines.append(f"flow_add {quote(_description(search, 'packages', search.packages))} {cures}")
    return "\n".join(lines)


def file_name(archive: Archive) -> str:
    """Return the name under which an archive is delivered, which stands for its content."""
    return f"flow-{archive.sha256[:32]}.tar.gz"


def _variable(archive: Archive) -> str:
    return file_variable(file_name(archive))


def _description(search: PythonSearch, kind: str, archive: Archive) -> str:
    return json.dumps(
        {
            "kind": kind,
            "sha256": archive.sha256,
            "needs": archive.needs.as_list() if archive.needs is not None else None,
            "file": _variable(archive),
            "want": f"{kind}-{archive.sha256}",
            "addresses": search.addresses,
            "port": search.port,
            "secret": secret_variable(SECRET_NAME),
        },
        separators=(",", ":"),
    )


def _word(candidate: str) -> str:
    return f'"${{{candidate[1:]}:-}}"' if re.fullmatch(r"\$\w+", candidate) else quote(candidate)


def _cures(search: PythonSearch) -> str:
    named = ["correct python=, or leave it out: PATH is searched then"] if search.named else []
    sent = ["have Flow sent to the node with bootstrap='auto'"] if search.refused else []
    if search.in_image:
        others = ["name its Python by python= of the Container", f"make an image with Python {search.python}"]
        return f"Cures: {'; '.join([*named, *sent, *others])}; or send a packed environment with environment="
    others = [
        "activate an environment with Flow in worker_init",
        "name its Python by the executor's option python=, or by FLOW_PYTHON on the node",
        f"install a Python {search.python} there",
    ]
    if search.named:
        del others[:2]
    return f"Cures: {'; '.join([*named, *sent, *others])}; or send a packed environment with environment="


@lru_cache(maxsize=2)
def _program(package: str, name: str, needs: str = "") -> str:
    """Return a module as one word of Python, with one that it imports: user data of some clouds has room for 16 KB."""
    text = _shortened(package, name)
    if needs:
        within, _, last = needs.rpartition(".")
        text = (
            f"import sys,types\nm=sys.modules[{needs!r}]=types.ModuleType({needs!r})\n"
            f"exec({_shortened(within, f'{last}.py')!r},m.__dict__)\nexec({text!r})"
        )
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return f"import zlib,base64;exec(zlib.decompress(base64.b64decode('{packed}')))"


def _shortened(package: str, name: str) -> str:
    tree = ast.parse(_resource(package, name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _resource(package: str, name: str) -> str:
    return (files(package) / name).read_text()


def delivered(search: PythonSearch) -> Sequence[tuple[str, str]]:
    """Return name and path of the files that are to go with the job, where the provider delivers files."""
    archives = (search.environment, search.runtime, search.packages)
    return [(file_name(one), str(one.path)) for one in archives if one is not None]
