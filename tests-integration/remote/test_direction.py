"""Which way managers find to a script that they cannot call: the channel's own connection, forwarded."""

from __future__ import annotations

import time

import pytest
from machines import Machines, wait_until

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

TWO = 'with flow.load(config("node1", "node2")):\n    tell(nodes=everywhere(2))\n'


def test_a_laptop_behind_a_router_gets_its_results(machines: Machines) -> None:
    machines.start(1, 2)
    machines.do("nat", "on")
    assert machines.run(TWO) == [{"nodes": ["node1", "node2"]}]
    assert [machines.processes(node) for node in (1, 2)] == [[], []]
    assert not any(".sock" in path for node in (1, 2) for path in machines.written(node))


@pytest.mark.slow
def test_a_server_that_forwards_no_unix_sockets_forwards_a_port(machines: Machines) -> None:
    machines.start(1, SM_SSHD="AllowStreamLocalForwarding no")
    machines.do("nat", "on")
    assert machines.run('with flow.load(config("node1")):\n    tell(where=where().result(timeout=50))\n') == [
        {"where": "node1"}
    ]


NAPS = """
options = {"retries": 0, "infrastructure_retries": 0}
with flow.load(config("node1", "node2", options=options, heartbeat_period=2, heartbeat_threshold=40)):
    tell(nodes=everywhere(2))
    naps = [nap(0.5) for _ in range(60)]
    naps[0].result(timeout=50)
    tell(begun=True)
    tell(done=len([one.result(timeout=150) for one in naps]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["behind a router", pytest.param("in the open", marks=pytest.mark.soak)])
def test_a_laptop_that_gets_another_address_goes_on(machines: Machines, way: str) -> None:
    machines.start(1, 2)
    if way == "behind a router":
        machines.do("nat", "on")
    script = machines.begin(NAPS)
    script.told()
    script.told()
    machines.do("move", 77)
    assert script.ended(170)[-1] == {"done": 60}


@pytest.mark.soak
def test_a_cut_link_of_a_laptop_behind_a_router_costs_no_task(machines: Machines) -> None:
    machines.start(1, 2)
    machines.do("nat", "on")
    script = machines.begin(NAPS)
    script.told()
    script.told()
    machines.do("cut", "laptop")
    try:
        time.sleep(20)
    finally:
        machines.do("heal", "laptop")
    assert script.ended(170)[-1] == {"done": 60}


@pytest.mark.soak
def test_a_laptop_that_sleeps_for_longer_than_managers_wait_goes_on(machines: Machines) -> None:
    machines.start(1, 2)
    machines.do("nat", "on")
    script = machines.begin(
        """
with flow.load(config("node1", "node2", options={"retries": 0}, heartbeat_period=2, heartbeat_threshold=8)):
    everywhere(2)
    naps = [nap(0.5) for _ in range(40)]
    naps[0].result(timeout=50)
    tell(begun=True)
    tell(done=len([one.result(timeout=150) for one in naps]))
"""
    )
    script.told()
    machines.sleep(20)
    assert script.ended(170)[-1] == {"done": 40}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("behind a router", "htex"),
        pytest.param("in the open", "htex", marks=pytest.mark.soak),
        pytest.param("behind a router", "llex", marks=pytest.mark.soak),
    ],
)
def test_what_runs_while_a_laptop_sleeps_for_no_longer_than_it_may_is_not_run_again(
    machines: Machines, way: str, kind: str
) -> None:
    machines.start(1, 2)
    if way == "behind a router":
        machines.do("nat", "on")
    script = machines.begin(
        f"""
options = {{"retries": 0, "infrastructure_retries": 0}}
waits = {{"heartbeat_period": 2, "heartbeat_threshold": 8, "sleep_threshold": 90}}
with flow.load(config("node1", "node2", kind={kind!r}, options=options, **waits)):
    everywhere(2)
    naps = [nap(15) for _ in range(4)]
    while sum(one.task_status() == "running" for one in naps) < 4:
        time.sleep(0.1)
    tell(begun=True)
    tell(done=len([one.result(timeout=150) for one in naps]))
tell(log=open("runinfo/000/flow.log").read())
"""
    )
    script.told()
    machines.sleep(14)
    told = script.ended(170)
    assert told[-2] == {"done": 4}
    # Neither is the interchange blamed, which slept with the script.
    assert "it is replaced" not in str(told[-1]["log"])
    assert " left: " not in str(told[-1]["log"]).partition("the run ends")[0]
    assert [machines.processes(node) for node in (1, 2)] == [[], []]


def test_a_node_without_any_way_says_so_soon_and_what_to_do(machines: Machines) -> None:
    machines.start(1, SM_SSHD="AllowTcpForwarding no;AllowStreamLocalForwarding no")
    machines.do("nat", "on")
    said = machines.run(
        """
with flow.load(config("node1", options={"retries": 0}, provider={"init_blocks": 1, "max_blocks": 1})):
    began = time.monotonic()
    waiting = where()
    while time.monotonic() - began < 40 and "no manager" not in str(waiting.why()):
        time.sleep(0.5)
    tell(why=str(waiting.why()), log=open("runinfo/000/flow.log").read())
    error = str(waiting.exception(timeout=80))
    tell(error=error)
""",
        timeout_s=100,
    )
    assert "no manager of it has reached this script" in str(said[0]["why"])
    assert "no manager of it has reached this script" in str(said[0]["log"])
    error = str(said[1]["error"])
    assert "no interchange answered within 30 s" in error
    assert "AllowTcpForwarding" in error


HOPS = """
from flow_providers.interfaces.launcher import Launcher

class ByTheLoginNode(Launcher):
    # As a scheduler does: the job's variables and files are brought from the login node to a node behind it.
    def __call__(self, command, tasks_per_node, nodes_per_block):
        key = "$FLOW_SECRET_FLOW_BLOCK_KEY"
        return (
            f'scp -q {key} node2:block.key\\n'
            "{ export -p | grep FLOW_; echo 'export FLOW_SECRET_FLOW_BLOCK_KEY=$HOME/block.key'; "
            "echo 'source /opt/flowenv/bin/activate'; cat <<'END_OF_COMMAND'\\n"
            f"{command}\\nEND_OF_COMMAND\\n"
            "} | ssh node2 bash"
        )

login = SSHChannel("node1", username="alice")
provider = LocalProvider(
    channel=login, launcher=ByTheLoginNode(), nodes_per_block=2, init_blocks=1, max_blocks=1, **FLOWENV
)
made = HighThroughputExecutor(label="htex", provider=provider, max_workers=1)
with flow.load(Config(executors=[made], strategy="none")):
    tell(where=where().result(timeout=60))
"""


@pytest.mark.slow
def test_nodes_behind_a_login_node_come_by_it(machines: Machines) -> None:
    machines.start(1, 2)
    keys = machines.project.parent / ".ssh"
    for name in ("id_ed25519", "known_hosts"):
        machines.put(1, f"/home/alice/.ssh/{name}", (keys / name).read_bytes())
    machines.do("hide", 2)
    assert machines.run(HOPS, timeout_s=90) == [{"where": "node2"}]
    wait_until(lambda: not machines.processes(1), "the relay does not end")
