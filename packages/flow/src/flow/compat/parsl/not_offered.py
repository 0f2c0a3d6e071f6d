"""What of Parsl's names Flow does not offer, and why: modules that are its inner works, and names in others."""

from __future__ import annotations

_TEMPLATE = "the text of Parsl's submit scripts, and its table of a scheduler's words: Flow's providers have their own"
_PROGRAM = "a program that Parsl runs beside the script or on nodes, not a module that scripts import"
_STEP = "a function that Parsl runs around a task on its node: Flow's steps are others"
_SERIALIZERS = "tables of Parsl's serializers: Flow takes none, classes say by __reduce__ how they are packed"
_WIRE = "messages between Parsl's own processes: Flow's are others"

INNER_MODULES = {
    "parsl.benchmark": "Parsl's measurement of itself: benchmarks/compat measures both",
    "parsl.configs": "the configuration of a site, to be copied: Flow's are in flow.configs",
    "parsl.curvezmq": _WIRE,
    "parsl.executors.execute_task": _PROGRAM,
    "parsl.executors.flux": "what FluxExecutor is made of: Flow has no such executor, the class refuses by name",
    "parsl.executors.high_throughput.interchange": _PROGRAM,
    "parsl.executors.high_throughput.manager_record": _WIRE,
    "parsl.executors.high_throughput.monitoring_info": _WIRE,
    "parsl.executors.high_throughput.mpi_prefix_composer": "Flow's launchers of MPI write command lines of their own",
    "parsl.executors.high_throughput.mpi_resource_management": _PROGRAM,
    "parsl.executors.high_throughput.probe": _WIRE,
    "parsl.executors.high_throughput.process_worker_pool": _PROGRAM,
    "parsl.executors.high_throughput.zmq_pipes": _WIRE,
    "parsl.executors.radical": "what RadicalPilotExecutor is made of: Flow has none, the class refuses by name",
    "parsl.executors.taskvine": "what TaskVineExecutor is made of",
    "parsl.executors.workqueue": "what WorkQueueExecutor is made of",
    "parsl.jobs.job_status_poller": "the thread in which Parsl asks providers: Flow's executors ask on their own",
    "parsl.jobs.strategy": "the class behind the option strategy=, which takes names and functions in Flow",
    "parsl.monitoring.radios": "senders and receivers of messages: Flow's events travel with the tasks' own",
    "parsl.monitoring.queries": "queries of Parsl's tables: flow_monitor.queries has its own",
    "parsl.monitoring.remote": _PROGRAM,
    "parsl.monitoring.types": _WIRE,
    "parsl.monitoring.visualization": "pages of parsl-visualize: flow-visualize has its own",
    "parsl.providers.aws.template": _TEMPLATE,
    "parsl.providers.azure.template": _TEMPLATE,
    "parsl.providers.condor.template": _TEMPLATE,
    "parsl.providers.grid_engine.template": _TEMPLATE,
    "parsl.providers.kubernetes.template": _TEMPLATE,
    "parsl.providers.lsf.template": _TEMPLATE,
    "parsl.providers.pbspro.template": _TEMPLATE,
    "parsl.providers.slurm.template": _TEMPLATE,
    "parsl.providers.torque.template": _TEMPLATE,
    "parsl.usage_tracking.usage": "Parsl's sender of usage: Flow's is another, and off by default",
}
"""Inner works: names in these modules and below are no interface, and are not counted, as far as Flow lacks them."""

INNER_NAMES = {
    "template_string": _TEMPLATE,
    "translate_table": _TEMPLATE,
    "squeue_translate_table": _TEMPLATE,
    "sacct_translate_table": _TEMPLATE,
    "batched": "itertools.batched, for releases of Python without it",
    "GENERAL_HTEX_PARAM_DOCS": "a piece of a docstring",
    "remote_side_bash_executor": _STEP,
    "in_task_transfer_wrapper": _STEP,
    "in_task_stage_in_wrapper": _STEP,
    "in_task_stage_out_wrapper": _STEP,
    "CommandClientBadError": _WIRE,
    "CommandClientTimeoutError": _WIRE,
    "methods_for_code": _SERIALIZERS,
    "methods_for_data": _SERIALIZERS,
    "additional_methods_for_deserialization": _SERIALIZERS,
}
"""Names that are inner works in whatever module they are."""

NAMES = {
    "parsl.data_provider.globus.CLIENT_ID": "Parsl's own registration at Globus: Flow asks for yours",
    "parsl.data_provider.globus.Globus": "flow-staging signs in by itself",
    "parsl.data_provider.globus.REDIRECT_URI": "Parsl's own registration at Globus",
    "parsl.data_provider.globus.SCOPES": "Parsl's own registration at Globus",
    "parsl.data_provider.globus.cli_run": "the command flow-globus-auth",
    "parsl.data_provider.globus.get_globus": "flow-staging signs in by itself",
    "parsl.executors.high_throughput.executor.DEFAULT_INTERCHANGE_LAUNCH_CMD": "the script starts Flow's interchange",
    "parsl.executors.high_throughput.executor.HTEXFuture": "the kernel has one future for a task, of whatever executor",
    "parsl.logconfigs.base.oneshot_initialize_logging": "a kernel opens and closes its log itself",
    "parsl.logconfigs.base.oneshot_uninitialize_logging": "a kernel opens and closes its log itself",
    "parsl.logconfigs.json.JSONHandler": "the logger of a run makes lines of JSON: JSONLogging asks for them",
}
"""Names that are missing in a module that is offered."""


def reason(name: str) -> str:
    """Return why a module or a name in one (``module.name``) is not offered; empty if nothing is known of it."""
    if name in NAMES or name.rpartition(".")[2] in INNER_NAMES:
        return NAMES.get(name) or INNER_NAMES[name.rpartition(".")[2]]
    while name:
        if name in INNER_MODULES:
            return INNER_MODULES[name]
        name = name.rpartition(".")[0]
    return ""
