"""Providers with Parsl's options and defaults."""

from __future__ import annotations

from typing import Any

import flow_providers
from flow.compat.parsl.adapters.translated import Translated, stated
from flow_providers.interfaces.provider import ExecutionProvider


class _Blocks(Translated):
    """What providers share: Parsl starts ``init_blocks`` even where ``max_blocks`` is less."""

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        initial, most = options.get("init_blocks"), options.get("max_blocks")
        if isinstance(initial, int) and isinstance(most, int) and initial > most:
            options["max_blocks"] = initial

    @property
    def script_dir(self) -> str | None:
        """The directory of submit scripts; Flow's providers have it in their channel."""
        channel = getattr(self, "channel", None)
        found = getattr(channel, "script_dir", None)
        return None if found is None else str(found)

    @script_dir.setter
    def script_dir(self, path: str) -> None:
        channel = getattr(self, "channel", None)
        if channel is None:
            raise AttributeError(f"{type(self).__name__} writes no submit scripts on a channel")
        channel.script_dir = path


class LocalProvider(_Blocks, flow_providers.LocalProvider):
    """Jobs as processes of this machine; one block unless more are asked for."""

    parsl_order = (
        "nodes_per_block", "launcher", "init_blocks", "min_blocks", "max_blocks", "worker_init", "cmd_timeout",
        "parallelism",
    )  # fmt: skip
    parsl_defaults = stated(max_blocks=1)

    @classmethod
    def _in_flow(cls, args: tuple[object, ...], options: Any) -> dict[str, Any]:
        # In Parsl up to 1.x a channel came first.
        if args and not isinstance(args[0], int):
            return {"channel": args[0], **super()._in_flow(args[1:], options)}
        return super()._in_flow(args, options)


class SlurmProvider(_Blocks, flow_providers.SlurmProvider):
    """Jobs of Slurm. ``gres`` becomes a directive."""

    parsl_order = (
        "partition", "account", "qos", "constraint", "clusters", "nodes_per_block", "cores_per_node", "mem_per_node",
        "gpus_per_node", "gres", "init_blocks", "min_blocks", "max_blocks", "parallelism", "walltime",
        "scheduler_options", "regex_job_id", "worker_init", "cmd_timeout", "status_batch_size", "exclusive", "launcher",
    )  # fmt: skip
    parsl_defaults = stated(max_blocks=1)
    without_effect = stated(regex_job_id=r"Submitted batch job (?P<id>\S*)", status_batch_size=50)

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        super()._adapt(options)
        gres = options.pop("gres", None)
        if gres is not None:
            directives = [options.get("scheduler_options", ""), f"#SBATCH --gres={gres}"]
            options["scheduler_options"] = "\n".join(line for line in directives if line)


class PBSProProvider(_Blocks, flow_providers.PBSProProvider):
    """Jobs of PBS Pro."""

    parsl_order = (
        "account", "queue", "scheduler_options", "select_options", "worker_init", "nodes_per_block", "cpus_per_node",
        "init_blocks", "min_blocks", "max_blocks", "parallelism", "launcher", "walltime", "cmd_timeout",
    )  # fmt: skip
    parsl_defaults = stated(max_blocks=1)
    renamed = stated(cpus_per_node="cores_per_node")

    @property
    def cpus_per_node(self) -> int | None:
        """Cores of each node, as ``cores_per_node``."""
        return self.cores_per_node


class TorqueProvider(_Blocks, flow_providers.TorqueProvider):
    """Jobs of Torque."""

    parsl_order = (
        "account", "queue", "scheduler_options", "worker_init", "nodes_per_block", "init_blocks", "min_blocks",
        "max_blocks", "parallelism", "launcher", "walltime", "cmd_timeout",
    )  # fmt: skip
    parsl_defaults = stated(max_blocks=1)

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        super()._adapt(options)
        if "launcher" not in options:
            from flow.compat.parsl.adapters.launchers import AprunLauncher

            options["launcher"] = AprunLauncher()


class CobaltProvider(_Blocks, flow_providers.CobaltProvider):
    """Jobs of Cobalt, which Parsl had until 2024."""

    parsl_order = (
        "channel", "nodes_per_block", "init_blocks", "min_blocks", "max_blocks", "parallelism", "walltime", "account",
        "queue", "scheduler_options", "worker_init", "launcher", "cmd_timeout",
    )  # fmt: skip
    parsl_defaults = stated(max_blocks=1)


class CondorProvider(_Blocks, flow_providers.CondorProvider):
    """Jobs of HTCondor."""

    parsl_order = (
        "nodes_per_block", "cores_per_slot", "mem_per_slot", "init_blocks", "min_blocks", "max_blocks", "parallelism",
        "environment", "project", "scheduler_options", "transfer_input_files", "walltime", "worker_init", "launcher",
        "requirements", "cmd_timeout", "cmd_chunk_size",
    )  # fmt: skip
    parsl_defaults = stated(max_blocks=1)
    without_effect = stated(cmd_chunk_size=100)


class GridEngineProvider(_Blocks, flow_providers.GridEngineProvider):
    """Jobs of Grid Engine."""

    parsl_order = (
        "nodes_per_block", "init_blocks", "min_blocks", "max_blocks", "parallelism", "walltime", "scheduler_options",
        "worker_init", "launcher", "cmd_timeout", "queue",
    )  # fmt: skip
    parsl_defaults = stated(max_blocks=1)


class LSFProvider(_Blocks, flow_providers.LSFProvider):
    """Jobs of LSF."""

    parsl_order = (
        "nodes_per_block", "cores_per_block", "cores_per_node", "init_blocks", "min_blocks", "max_blocks",
        "parallelism", "walltime", "scheduler_options", "worker_init", "project", "queue", "cmd_timeout",
        "bsub_redirection", "request_by_nodes", "launcher",
    )  # fmt: skip
    parsl_defaults = stated(max_blocks=1)
    without_effect = stated(bsub_redirection=False)

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        super()._adapt(options)
        cores = options.pop("cores_per_block", None)
        if cores is None:
            return
        if options.get("request_by_nodes", True):
            # bsub -n of a whole block, which Parsl writes only where nodes are not asked for.
            from flow_core.without_effect import warn_of

            warn_of(cls.__name__, ["cores_per_block has no effect beside request_by_nodes=True"])
        elif options.get("cores_per_node") is None:
            options["cores_per_node"] = max(1, cores // options.get("nodes_per_block", 1))


class KubernetesProvider(_Blocks, flow_providers.KubernetesProvider):
    """Pods of Kubernetes; four at the start, as Parsl has it."""

    parsl_order = (
        "image", "namespace", "nodes_per_block", "init_blocks", "min_blocks", "max_blocks", "max_cpu", "max_mem",
        "init_cpu", "init_mem", "extra_requests", "extra_limits", "parallelism", "worker_init", "pod_name", "user_id",
        "group_id", "run_as_non_root", "secret", "persistent_volumes", "service_account_name", "annotations",
    )  # fmt: skip
    parsl_defaults = stated(init_blocks=4)

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        super()._adapt(options)
        for name in ("extra_requests", "extra_limits", "annotations"):
            if options.pop(name, None):
                # They decide where a pod may run and what it may use: to leave them out could not be felt until later.
                raise TypeError(f"KubernetesProvider: {name} is not offered by Flow's provider")


class AWSProvider(_Blocks, flow_providers.AWSProvider):
    """Machines of EC2."""

    parsl_order = (
        "image_id", "key_name", "init_blocks", "min_blocks", "max_blocks", "nodes_per_block", "parallelism",
        "worker_init", "instance_type", "region", "spot_max_bid", "key_file", "profile", "iam_instance_profile_arn",
        "state_file", "walltime", "linger", "launcher",
    )  # fmt: skip


class GoogleCloudProvider(_Blocks, flow_providers.GoogleCloudProvider):
    """Machines of Google Cloud."""

    parsl_order = (
        "project_id", "key_file", "region", "os_project", "os_family", "google_version", "instance_type", "init_blocks",
        "min_blocks", "max_blocks", "launcher", "parallelism",
    )  # fmt: skip


class AzureProvider(_Blocks, flow_providers.AzureProvider):
    """Machines of Azure, with Flow's options: Parsl's (``vm_reference``, ``vnet_name``) are refused by name."""

    parsl_order = ()

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        super()._adapt(options)
        if "vm_reference" in options:
            raise TypeError(
                "AzureProvider: vm_reference (a dict of publisher, offer, sku, version and sizes) is written as image= "
                "and instance_type= in Flow, with subscription_id=, resource_group=, location= and ssh_public_key="
            )


class AdHocProvider(_Blocks, flow_providers.AdHocProvider):
    """Hosts reached by ssh, which Parsl had until 2024."""

    parsl_order = ("channels", "worker_init", "cmd_timeout", "parallelism", "move_files")


class JetstreamProvider(_Blocks, flow_providers.JetstreamProvider):
    """Machines of OpenStack, which Parsl had until 1.0."""

    parsl_order = ("image", "flavor")


ClusterProvider = ExecutionProvider
"""The base of providers over batch schedulers; Flow's share one base with all others."""
