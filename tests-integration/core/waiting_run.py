"""A script whose second task waits for its first one, until standard input ends."""

import sys
import threading

import flow

begun = threading.Event()


@flow.python_app
def wait() -> str:
    begun.set()
    return sys.stdin.read()


@flow.python_app
def after(value: str) -> str:
    return value


if __name__ == "__main__":
    with flow.load(flow.Config(run_dir=sys.argv[1])):
        last = after(wait())
        begun.wait()
        print("ready", flush=True)
        last.result()
