"""An ssh that breaks: the first connection ends after some bytes. Arguments: MARK BYTES ssh ..."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

mark, most, command = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
if mark.exists():
    sys.exit(subprocess.run(command, check=False).returncode)
mark.touch()
for inherited in (0, 1):
    os.set_blocking(inherited, True)  # rsync hands over ends that do not block
process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert process.stdin is not None
assert process.stdout is not None
passed = 0


def pump(source: int, target: int) -> None:
    global passed
    try:
        while chunk := os.read(source, 65536):
            passed += len(chunk)
            if passed > most:
                process.kill()
                return
            while chunk:
                chunk = chunk[os.write(target, chunk) :]
        os.close(target)
    except OSError:
        pass


threading.Thread(target=pump, args=(0, process.stdin.fileno()), daemon=True).start()
pump(process.stdout.fileno(), 1)
os._exit(process.wait() & 0xFF)
