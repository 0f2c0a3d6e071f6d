"""A node that lacks what another one has takes no tasks from it."""

from __future__ import annotations

import pytest
from machines import Machines

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

LIBRARY = "mkdir -p /home/alice/lib && echo 'def inc(x): return x + 1' >/home/alice/lib/only_there.py"


def test_a_package_that_one_of_two_machines_lacks_costs_no_task(machines: Machines) -> None:
    machines.start(1, 2)
    machines.on(1, LIBRARY)
    (told,) = machines.run(
        """
@python_app
def needs(number):
    import os
    import time

    import only_there

    time.sleep(0.1)
    return os.uname().nodename, only_there.inc(number)


init = "export PYTHONPATH=/home/alice/lib:${PYTHONPATH:-}"
with flow.load(config("node1", "node2", options={"retries": 0}, provider={"worker_init": init})):
    everywhere(2)
    found = [future.result(timeout=100) for future in [needs(number) for number in range(200)]]
    log = open("runinfo/000/flow.log").read()
    tell(right=found == [("node1", number + 1) for number in range(200)],
         warned=[line for line in log.splitlines() if "gets no more tasks" in line],
         remembered="node2" in open("runinfo/held-nodes.json").read())
""",
        timeout_s=200,
    )
    assert told["right"] is True
    assert told["remembered"] is True
    (warning,) = told["warned"]  # type: ignore[misc]  # a list of texts
    assert "node node2" in warning
    assert "only_there" in warning
