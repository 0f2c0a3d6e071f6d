"""The programs of a simulated scheduler: pass a call to the test's process, print its answer. They start in 20 ms.

Run as ``python -I -S client.py SOCKET PROGRAM STDIN ARGUMENT...``; imports nothing but the standard library.
"""

import json
import os
import socket
import sys

_TIMEOUT_S = 60  # seconds; an answer takes far less, so only the magnitude matters


def main() -> int:
    """Run one command; return its exit code."""
    path, program, reads, *arguments = sys.argv[1:]
    call = {"program": program, "arguments": arguments, "cwd": os.getcwd()}
    # Read here, since the test's process has no way to this input.
    call["stdin"] = sys.stdin.read() if reads == "1" else ""
    with socket.socket(socket.AF_UNIX) as way:
        way.settimeout(_TIMEOUT_S)
        way.connect(path)
        with way.makefile("rwb") as stream:
            stream.write(json.dumps(call).encode() + b"\n")
            stream.flush()
            answer = json.loads(stream.readline())
    sys.stdout.write("".join(f"{line}\n" for line in answer["out"]))
    sys.stderr.write("".join(f"{line}\n" for line in answer["err"]))
    return int(answer["code"])


if __name__ == "__main__":
    sys.exit(main())
