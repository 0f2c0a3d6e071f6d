"""Code that begins in a container: it finds a shell or a Python there, and runs one task or many. Text alone.

Loops read numbers of tasks from their standard input and answer each by a line on their standard output: a word that is
theirs alone, since an image's own start may print too, the number, and an exit code.
"""

from __future__ import annotations

PYTHON_START = """
import sys
word, version, directory, *places = sys.argv[1:]
own = "%d.%d" % sys.version_info[:2]
print(word, "python", own, flush=True)
if own == version:
    sys.path += [place for place in places if place not in sys.path]
    from flow_core.remote.container_loop import serve
    serve(word, directory)
"""
"""Code that any Python understands, which tells its version and goes on in ``serve`` if that is the one wanted."""

FIND_PYTHON = """
code=$1 word=$2 version=$3 own=$4
shift 4
for name in ${own:-python$version python3 python}; do
    if command -v "$name" >/dev/null 2>&1; then exec "$name" -c "$code" "$word" "$version" "$@"; fi
done
echo "$word none ${own:-python$version, python3, python}"
"""
"""Shell code that looks for Python in an image. Arguments: code, word, version, Python of the user's, those of code."""

SHELL_LOOP = """
word=$1 directory=$2
if command -v bash >/dev/null 2>&1; then shell=bash; else shell=sh; fi
echo "$word shell $shell"
while read -r number && [ "$number" != end ]; do
    "$shell" "$directory/$number.sh" </dev/null >"$directory/$number.out" 2>"$directory/$number.err"
    echo "$word $number $?"
done
"""
"""The loop of bash apps in a kept container; arguments: word, directory."""

RUN_SHELL = """
if command -v bash >/dev/null 2>&1; then exec bash -c -- "$1"; else exec sh -c -- "$1"; fi
"""
"""Shell code that runs one command by the image's bash, or by its sh where it has none; argument: the command."""

RUN_SCRIPT = """
if command -v bash >/dev/null 2>&1; then exec bash "$1"; else exec sh "$1"; fi
"""
"""The same of a command that is too long for an argument; argument: its file."""
