"""The packaged configurations of sites work as they stand, on machines that share nothing with the script."""

from __future__ import annotations

import pytest
from machines import Machines

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

# The cluster's one node is node1: what a container would run is run there, by ssh, with its volumes' files.
CLUSTER = """
import subprocess
from pathlib import Path

from flow_testing.clouds import kubelet
from flow_testing.clouds.kubernetes import FakeKubernetes

SSH = ["ssh", "-F", "none", "-o", "BatchMode=yes", "alice@node1"]


def start(container, security, mounts, log):
    from shlex import join, quote

    for mount in mounts:
        packed = subprocess.run(["tar", "-C", mount.source, "-ch", "."], capture_output=True, check=True).stdout
        place = quote(mount.target)
        subprocess.run([*SSH, f"mkdir -p {place} && tar -C {place} -x --exclude=..data"], input=packed, check=True)
    env = kubelet.environment(container)
    words = [kubelet.expanded(word, env) for word in kubelet.strings(container["command"])]
    variables = [f"{name}={value}" for name, value in env.items()]
    remote = "cd / && exec " + join(["env", *variables, *words])
    with log.open("wb") as output:
        return subprocess.Popen(
            [*SSH, remote], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


kubelet.start = start
"""


def test_the_configuration_of_kubernetes_needs_names_only(machines: Machines) -> None:
    pytest.importorskip("kubernetes")
    machines.start(1)
    machines.on(1, "mkdir -p /run/flow && chown alice /run/flow")
    said = machines.run(
        f"""{CLUSTER}
with FakeKubernetes() as cluster:
    home = Path.home() / ".kube"
    home.mkdir()
    os.rename(cluster.write_config(home), home / "config")
    from flow.configs.kubernetes_cluster import config

    config.strategy = "none"  # one pod is enough here
    with flow.load(config):
        tell(nodes=sorted({{one.result(timeout=200) for one in [where() for _ in range(8)]}}))
    cluster.wait_until_empty(30)
    tell(asked=sorted({{request.path.split("/")[5] for request in cluster.requests if request.method == "POST"}}))
""",
        timeout_s=150,
    )
    assert said == [{"nodes": ["node1"]}, {"asked": ["pods", "secrets"]}]


# Each machine of the cloud is node1: the script of its first boot is run there, as a user who may not switch it off.
CLOUD = """
import subprocess
from pathlib import Path

from flow_testing.clouds.ec2 import FakeEc2
from flow_testing.clouds.machine import FakeMachine

SSH = ["ssh", "-F", "none", "-o", "BatchMode=yes", "alice@node1"]


def boot(machine):
    with (machine._path / "user-data").open("rb") as script, (machine._path / "console").open("ab") as console:
        return subprocess.Popen(
            [*SSH, "cd /tmp && cat >user-data && exec bash user-data </dev/null"],
            stdin=script, stdout=console, stderr=subprocess.STDOUT, start_new_session=True,
        )


FakeMachine._boot = boot
(Path.home() / ".aws").mkdir()
(Path.home() / ".aws/credentials").write_text("[default]" + chr(10) + "aws_access_key_id=a" + chr(10) +
                                              "aws_secret_access_key=b" + chr(10))
"""


def test_the_configuration_of_ec2_needs_names_only(machines: Machines) -> None:
    pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    machines.start(1)
    said = machines.run(
        f"""{CLOUD}
with FakeEc2() as cloud:
    os.environ["AWS_ENDPOINT_URL"] = cloud.url
    from flow.configs.ec2 import config

    provider = config.executors[0].provider
    provider.image_id, provider.key_name = "ami-1e749f67", "my-key"
    with flow.load(config):
        tell(nodes=sorted({{one.result(timeout=200) for one in [where() for _ in range(8)]}}))
""",
        timeout_s=250,
    )
    assert said == [{"nodes": ["node1"]}]
