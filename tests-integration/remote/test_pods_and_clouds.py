"""What pods and machines of clouds run at their start, run on a node that shares nothing with the script."""

from __future__ import annotations

import pytest
from machines import Machines

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

# As little of a cloud as there can be: the script that a machine gets, or the container's command, is run by ssh.
PROVIDER = """
from base64 import b64decode

from flow_providers.cloud.user_data import Boot, script_of
from flow_providers.interfaces.job_extras import NO_EXTRAS
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.locality import Locality
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.kubernetes import manifest
from flow_providers.launchers.base import launch
from flow_providers.launchers.single_node import SingleNodeLauncher


class OnNode(ExecutionProvider):
    max_blocks = 1

    def __init__(self, worker_init=""):
        self.channel = channels("node1")[0]
        self.worker_init = worker_init
        self.launcher = SingleNodeLauncher()
        self.jobs = {}

    @property
    def locality(self):
        return Locality.ELSEWHERE

    def submit(self, command, tasks_per_node, job_name="flow.auto", *, extras=NO_EXTRAS):
        script = self.script("job1", launch(self.launcher, command, tasks_per_node, 1), extras)
        assert len(script) <= 16384, f"{len(script)} bytes are more than EC2 takes"
        path = self.channel.push_bytes(script.encode(), "start.sh", "/home/alice/jobs", mode=0o700)
        self.jobs["job1"] = self.channel.execute_no_wait(f"bash {path} >/home/alice/jobs/out 2>&1")
        return "job1"

    def status(self, job_ids):
        def one(code):
            return JobStatus(JobState.RUNNING if code is None else JobState.COMPLETED, exit_code=code)

        return [one(self.jobs[job].poll()) for job in job_ids]

    def cancel(self, job_ids):
        for job in job_ids:
            self.jobs[job].terminate(2)
        return [True for _ in job_ids]

    def find(self, tag_prefix):
        return []

    def tail(self, job_id, max_bytes=4096):
        return "", self.channel.execute_wait("tail -c 4000 /home/alice/jobs/out").stdout


class Machine(OnNode):
    label = "machine"

    def script(self, job, command, extras):
        return script_of(
            Boot(job, "tag1", command, self.worker_init, extras.environment, extras.secrets, 0, True, 1)
        )


class Pod(OnNode):
    label = "pod"

    def script(self, job, command, extras):
        names = [name for name, _ in extras.secrets]
        text = manifest.script_of(job, command, self.worker_init, names)
        made = manifest.PodJob(job, "tag1", text, extras.environment, tuple(names))
        pod = manifest.pod("pod1", made, manifest.PodOptions("image", {}, {}, 5))
        container = pod["spec"]["containers"][0]
        for key, content in manifest.secret(made, extras.secrets)["data"].items():
            self.channel.push_bytes(b64decode(content), key, "/run/flow/secrets")
        lines = [f"export {one['name']}={one['value']!r}" for one in container["env"]]
        return chr(10).join([*lines, container["command"][-1].replace("$$", "$")])


@python_app
def flow_of_node():
    import os

    import flow_executors

    return os.uname().nodename, flow_executors.__file__


"""


@pytest.mark.parametrize("init", ["", "source /opt/flowenv/bin/activate"])
@pytest.mark.parametrize("kind", ["Machine", "Pod"])
def test_they_come_up_with_an_environment_and_with_python_alone(machines: Machines, kind: str, init: str) -> None:
    machines.start(1)
    machines.on(1, "mkdir -p /run/flow/secrets /run/flow/job && chown -R alice /run/flow")
    said = machines.run(
        f"""{PROVIDER}
made = HighThroughputExecutor(provider={kind}(worker_init={init!r}), max_workers=1)
with flow.load(Config(executors=[made], strategy="none")):
    tell(found=flow_of_node().result(timeout=50))
"""
    )
    node, path = said[0]["found"]  # type: ignore[misc]  # two things
    assert node == "node1"
    assert path.startswith("/opt/flowenv/" if init else "/home/alice/.cache/flow/runtime/")
