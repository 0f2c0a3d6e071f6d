"""Amazon's EC2 as moto simulates it, over HTTP, with instances that really run their user data.

    with FakeEc2() as cloud:
        monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)

Needs ``moto[server]``. One at a time in a process: moto's state is global.
"""

from __future__ import annotations

from base64 import b64decode
from contextlib import ExitStack
from threading import RLock
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch
from urllib.request import Request, urlopen

from flow_testing.clouds.machine import FakeMachine


class FakeEc2:
    """The region's instances run as processes; ``machines`` has them by id.

    Attributes:
        full_subnets: Subnets whose zones have no room for instances.
        url: Where it listens.
    """

    def __init__(self) -> None:
        self.machines: dict[str, FakeMachine] = {}
        self.full_subnets: set[str] = set()
        self.url = ""
        self._lock = RLock()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        from moto.ec2.models.instances import Instance, InstanceBackend
        from moto.ec2.responses.general import General
        from moto.moto_server.threaded_moto_server import ThreadedMotoServer

        run, terminate, cloud = InstanceBackend.run_instances, Instance.terminate, self

        def run_and_boot(backend: Any, *arguments: Any, **options: Any) -> Any:  # moto's own signatures
            cloud._check(options)
            reservation = run(backend, *arguments, **options)
            for instance in reservation.instances:
                cloud._boot(instance)
            return reservation

        def end_and_terminate(instance: Any) -> Any:
            before = terminate(instance)
            cloud._end(instance.id)
            return before

        # moto only keeps records: these patches boot and end a process for each of them.
        self._stack.enter_context(patch.object(InstanceBackend, "run_instances", run_and_boot))
        self._stack.enter_context(patch.object(Instance, "terminate", end_and_terminate))
        self._stack.enter_context(patch.object(General, "get_console_output", _console_of(self)))
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        self._stack.callback(server.stop)
        host, port = server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        # The state of an earlier test in this process is thrown away.
        urlopen(Request(f"{self.url}/moto-api/reset", method="POST"), timeout=30).close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for machine in list(self.machines.values()):
            machine.end()

    def console(self, instance_id: str) -> str:
        """Return the text on the console of an instance; empty where there is no such instance."""
        with self._lock:
            machine = self.machines.get(instance_id)
        return machine.console if machine is not None else ""

    def _check(self, options: dict[str, Any]) -> None:
        from moto.ec2.exceptions import EC2ClientError

        if options.get("subnet_id") in self.full_subnets:
            # The code by which the provider tries the next zone.
            raise EC2ClientError("InsufficientInstanceCapacity", "There is not enough capacity in this zone.")

    def _boot(self, instance: Any) -> None:
        from moto.core.utils import utcnow

        def halt() -> None:
            # An instance that was terminated meanwhile keeps that reason.
            if instance.state == "running":
                terminate = instance.instance_initiated_shutdown_behavior == "terminate"
                instance._state.name, instance._state.code = ("terminated", 48) if terminate else ("stopped", 80)
                instance.state_reason.code = "Client.InstanceInitiatedShutdown"
                instance.state_reason.message = f"Instance initiated shutdown {utcnow()}"

        script = instance.user_data
        text = b64decode(str(script)).decode() if script else ""
        with self._lock:
            self.machines[instance.id] = FakeMachine(text, halt)

    def _end(self, instance_id: str) -> None:
        with self._lock:
            machine = self.machines.get(instance_id)
        if machine is not None:
            machine.end()


def _console_of(cloud: FakeEc2) -> Any:
    def get_console_output(response: Any) -> Any:
        from moto.core.responses import ActionResult
        from moto.core.utils import utcnow
        from moto.ec2.utils import Base64EncodedString

        instance = response.ec2_backend.get_instance(response._get_param("InstanceId"))
        output = Base64EncodedString.from_raw_string(cloud.console(instance.id))
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})

    return get_console_output
