"""The names of Parsl, and what each is in Flow: one table, from old module and name to object.

A row is a module of Parsl, the module of Flow that its names come from, and the names; ``old=new`` where they differ.
Names of today's Parsl and of Parsl 0.4 to 0.9 stand side by side, modules under both of their spellings.
"""

from __future__ import annotations

from collections.abc import Mapping

_A = "flow.compat.parsl.adapters"
_PROVIDERS = f"{_A}.providers"
_LAUNCHERS = f"{_A}.launchers"
_EXECUTORS = f"{_A}.executors"
_ERRORS = "flow_core.errors"
_BLOCKS = f"{_A}.blocks"

_OF_APPS = (
    "ParslError=FlowError AppException AppBadFormatting AppTimeout AppFailure BadStdStreamFile BashAppNoReturn "
    "BashExitFailure DependencyError InvalidAppTypeError MissingOutputs NotFutureError"
)
_OF_DATAFLOW = (
    "DataFlowException ConfigurationError BadCheckpoint DependencyError DuplicateTaskError JoinError MissingFutError "
    "PropagatedException=DependencyError"
)
_OF_PROVIDERS = (
    "ChannelRequired ExecutionProviderException OptionalModuleMissing ScaleOutFailed SchedulerMissingArgs "
    "ScriptPathError SubmitException"
)
_OF_CHANNELS = (
    "AuthException BadHostKeyException BadPermsScriptPath BadScriptPath ChannelError FileCopyException FileExists "
    "SSHException"
)
_ALL_LAUNCHERS = (
    "AprunLauncher GnuParallelLauncher JsrunLauncher Launcher MpiExecLauncher MpiRunLauncher SimpleLauncher "
    "SingleNodeLauncher SrunLauncher SrunMPILauncher WrappedLauncher"
)
_CHANNELS = "Channel LocalChannel OAuthSSHChannel SSHChannel SSHInteractiveLoginChannel"

_ROWS: tuple[tuple[str, str, str], ...] = (
    # -- what scripts import from the top
    ("parsl", f"{_A}.apps", "python_app bash_app join_app App"),
    ("parsl", f"{_A}.configuration", "Config"),
    ("parsl", f"{_A}.kernel", "DataFlowKernel DataFlowKernelLoader load clear dfk wait_for_current_tasks"),
    ("parsl", _EXECUTORS, "ThreadPoolExecutor HighThroughputExecutor WorkQueueExecutor IPyParallelExecutor"),
    ("parsl", f"{_A}.monitoring", "MonitoringHub"),
    ("parsl", f"{_A}.logs", "set_stream_logger set_file_logger AUTO_LOGNAME"),
    ("parsl", f"{_A}.helpers", "VERSION __version__=VERSION"),
    ("parsl", "flow_core.files", "File"),
    ("parsl.version", f"{_A}.helpers", "VERSION"),
    # -- apps and futures
    ("parsl.app.app", f"{_A}.apps", "App AppBase python_app bash_app join_app"),
    ("parsl.app.python", f"{_A}.apps", "PythonApp timeout"),
    ("parsl.app.bash", f"{_A}.apps", "BashApp"),
    ("parsl.app.futures", f"{_A}.futures", "DataFuture"),
    ("parsl.app.errors", _ERRORS, _OF_APPS),
    ("parsl.app.errors", f"{_A}.errors", "RemoteExceptionWrapper wrap_error"),
    ("parsl.dataflow.futures", f"{_A}.futures", "AppFuture deferred_getattr deferred_getitem"),
    ("parsl.dataflow.futures", "concurrent.futures._base", "CANCELLED CANCELLED_AND_NOTIFIED FINISHED PENDING RUNNING"),
    ("parsl.concurrent", f"{_A}.pool", "ParslPoolExecutor"),
    # -- configuration and kernel
    ("parsl.config", f"{_A}.configuration", "Config USAGE_TRACKING_DISABLED=DISABLED USAGE_TRACKING_LEVEL_3=LEVEL_3"),
    ("parsl.dataflow.dflow", f"{_A}.kernel", "DataFlowKernel DataFlowKernelLoader"),
    ("parsl.dataflow.states", f"{_A}.tasks", "States FINAL_STATES FINAL_FAILURE_STATES"),
    ("parsl.dataflow.taskrecord", f"{_A}.tasks", "TaskRecord"),
    ("parsl.dataflow.memoization", f"{_A}.memoizers", "BasicMemoizer Memoizer CheckpointCommand make_hash"),
    ("parsl.dataflow.memoization", f"{_A}.memoizers", "id_for_memo id_for_memo_dict id_for_memo_function"),
    ("parsl.dataflow.memoization", f"{_A}.memoizers", "id_for_memo_list id_for_memo_pickle id_for_memo_tuple"),
    ("parsl.dataflow.rundirs", f"{_A}.helpers", "make_rundir"),
    (
        "parsl.dataflow.dependency_resolvers",
        f"{_A}.configuration",
        (
            "DependencyResolver DEEP_DEPENDENCY_RESOLVER SHALLOW_DEPENDENCY_RESOLVER deep_traverse_to_gather "
            "deep_traverse_to_unwrap shallow_traverse_to_gather shallow_traverse_to_unwrap"
        ),
    ),
    ("parsl.dataflow.errors", _ERRORS, _OF_DATAFLOW),
    ("parsl.dataflow.error", _ERRORS, _OF_DATAFLOW),
    ("parsl.errors", _ERRORS, "ParslError=FlowError ConfigurationError NoDataFlowKernelError"),
    ("parsl.errors", f"{_A}.errors", "InternalConsistencyError"),
    ("parsl.errors", f"{_A}.helpers", "OptionalModuleMissing"),
    ("parsl.usage_tracking.levels", f"{_A}.configuration", "DISABLED LEVEL_1 LEVEL_2 LEVEL_3"),
    ("parsl.usage_tracking.api", f"{_A}.helpers", "UsageInformation get_parsl_usage"),
    ("parsl.usage_tracking.api", f"{_A}.helpers", "get_parsl_usage_representation_mixin get_parsl_usage_sequence"),
    ("parsl.log_utils", f"{_A}.logs", "DEFAULT_FORMAT set_stream_logger set_file_logger"),
    ("parsl.logconfigs.base", f"{_A}.configuration", "LogConfig"),
    ("parsl.logconfigs.file", f"{_A}.configuration", "FileLogging"),
    ("parsl.logconfigs.file", f"{_A}.logs", "DEFAULT_FORMAT"),
    ("parsl.logconfigs.json", f"{_A}.configuration", "JSONLogging"),
    ("parsl.logconfigs.noop", f"{_A}.configuration", "NoopLogging"),
    # -- files
    ("parsl.data_provider.files", "flow_core.files", "File"),
    ("parsl.data_provider.staging", f"{_A}.staging", "Staging default_staging"),
    ("parsl.data_provider.data_manager", f"{_A}.staging", "DataManager Staging default_staging"),
    ("parsl.data_provider.file_noop", f"{_A}.staging", "NoOpFileStaging"),
    ("parsl.data_provider.ftp", "flow_staging", "FTPInTaskStaging FTPSeparateTaskStaging"),
    ("parsl.data_provider.http", "flow_staging", "HTTPInTaskStaging HTTPSeparateTaskStaging"),
    ("parsl.data_provider.rsync", f"{_A}.staging", "RSyncStaging"),
    ("parsl.data_provider.globus", f"{_A}.staging", "GlobusStaging"),
    ("parsl.data_provider.zip", "flow_staging", "ZipFileStaging"),
    ("parsl.data_provider.zip", f"{_A}.errors", "ZipAuthorityError"),
    ("parsl.data_provider.zip", f"{_A}.staging", "zip_path_split"),
    # -- executors
    (
        "parsl.executors",
        _EXECUTORS,
        (
            "ExtremeScaleExecutor FluxExecutor GlobusComputeExecutor HighThroughputExecutor IPyParallelExecutor "
            "LowLatencyExecutor MPIExecutor TaskVineExecutor ThreadPoolExecutor WorkQueueExecutor"
        ),
    ),
    ("parsl.executors.threads", _EXECUTORS, "ThreadPoolExecutor"),
    ("parsl.executors.base", _EXECUTORS, "ParslExecutor"),
    ("parsl.executors.status_handling", _EXECUTORS, "BlockProviderExecutor"),
    ("parsl.executors.status_handling", _BLOCKS, "TERMINAL_STATES"),
    ("parsl.executors.high_throughput.executor", _EXECUTORS, "DEFAULT_LAUNCH_CMD HighThroughputExecutor"),
    ("parsl.executors.high_throughput.executor", _BLOCKS, "TERMINAL_STATES"),
    ("parsl.executors.high_throughput.mpi_executor", _EXECUTORS, "MPIExecutor VALID_LAUNCHERS"),
    ("parsl.executors.high_throughput.mpi_prefix_composer", _EXECUTORS, "VALID_LAUNCHERS"),
    (
        "parsl.executors.high_throughput.manager_selector",
        _EXECUTORS,
        "ManagerSelector RandomManagerSelector BlockIdManagerSelector",
    ),
    ("parsl.executors.high_throughput.errors", _ERRORS, "ManagerLost WorkerLost"),
    ("parsl.executors.high_throughput.errors", f"{_A}.errors", "VersionMismatch"),
    ("parsl.executors.low_latency.executor", _EXECUTORS, "LowLatencyExecutor"),
    ("parsl.executors.extreme_scale", _EXECUTORS, "ExtremeScaleExecutor"),
    ("parsl.executors.extreme_scale.executor", _EXECUTORS, "ExtremeScaleExecutor"),
    ("parsl.executors.workqueue.executor", _EXECUTORS, "WorkQueueExecutor"),
    ("parsl.executors.taskvine", _EXECUTORS, "TaskVineExecutor"),
    ("parsl.executors.taskvine.executor", _EXECUTORS, "TaskVineExecutor"),
    ("parsl.executors.flux", _EXECUTORS, "FluxExecutor"),
    ("parsl.executors.flux.executor", _EXECUTORS, "FluxExecutor"),
    ("parsl.executors.radical", _EXECUTORS, "RadicalPilotExecutor"),
    ("parsl.executors.radical.executor", _EXECUTORS, "RadicalPilotExecutor"),
    ("parsl.executors.globus_compute", _EXECUTORS, "GlobusComputeExecutor"),
    ("parsl.executors.ipp", _EXECUTORS, "IPyParallelExecutor"),
    ("parsl.executors.ipp_controller", _EXECUTORS, "Controller"),
    ("parsl.executors.swift_t", _EXECUTORS, "TurbineExecutor"),
    ("parsl.executors.errors", _ERRORS, "ExecutorError ScalingFailed SerializationError DeserializationError"),
    ("parsl.executors.errors", f"{_A}.errors", "BadMessage InvalidResourceSpecification UnsupportedFeatureError"),
    ("parsl.executors.errors", f"{_A}.errors", "ControllerError InsufficientMPIRanks"),
    ("parsl.executors.errors", _BLOCKS, "BadStateException"),
    ("parsl.executors.exceptions", _ERRORS, "ExecutorException=ExecutorError TaskExecException=TaskLost"),
    # -- blocks
    ("parsl.jobs.states", _BLOCKS, "JobState JobStatus TERMINAL_STATES"),
    ("parsl.jobs.error_handlers", _BLOCKS, "noop_error_handler simple_error_handler windowed_error_handler"),
    ("parsl.jobs.errors", f"{_A}.errors", "TooManyJobFailuresError"),
    ("parsl.providers.provider_base", _BLOCKS, "JobState JobStatus"),
    # -- providers, channels, launchers
    (
        "parsl.providers",
        _PROVIDERS,
        (
            "AWSProvider AdHocProvider AzureProvider CobaltProvider CondorProvider GoogleCloudProvider "
            "GridEngineProvider JetstreamProvider KubernetesProvider LSFProvider LocalProvider PBSProProvider "
            "SlurmProvider TorqueProvider"
        ),
    ),
    ("parsl.providers.local.local", _PROVIDERS, "LocalProvider"),
    ("parsl.providers.slurm.slurm", _PROVIDERS, "SlurmProvider"),
    ("parsl.providers.pbspro.pbspro", _PROVIDERS, "PBSProProvider"),
    ("parsl.providers.torque.torque", _PROVIDERS, "TorqueProvider"),
    ("parsl.providers.cobalt.cobalt", _PROVIDERS, "CobaltProvider"),
    ("parsl.providers.condor.condor", _PROVIDERS, "CondorProvider"),
    ("parsl.providers.grid_engine.grid_engine", _PROVIDERS, "GridEngineProvider"),
    ("parsl.providers.lsf.lsf", _PROVIDERS, "LSFProvider"),
    ("parsl.providers.kubernetes.kube", _PROVIDERS, "KubernetesProvider"),
    ("parsl.providers.aws.aws", _PROVIDERS, "AWSProvider"),
    ("parsl.providers.azure.azure", _PROVIDERS, "AzureProvider"),
    ("parsl.providers.googlecloud.googlecloud", _PROVIDERS, "GoogleCloudProvider"),
    ("parsl.providers.ad_hoc.ad_hoc", _PROVIDERS, "AdHocProvider"),
    ("parsl.providers.jetstream.jetstream", _PROVIDERS, "JetstreamProvider"),
    ("parsl.providers.base", "flow_providers", "ExecutionProvider"),
    ("parsl.providers.provider_base", "flow_providers", "ExecutionProvider"),
    ("parsl.providers.cluster_provider", _PROVIDERS, "ClusterProvider"),
    ("parsl.providers.errors", "flow_providers.errors", _OF_PROVIDERS),
    ("parsl.providers.error", "flow_providers.errors", _OF_PROVIDERS),
    ("parsl.channels", "flow.channels", _CHANNELS),
    ("parsl.channels.base", "flow.channels", "Channel"),
    ("parsl.channels.local.local", "flow.channels", "LocalChannel"),
    ("parsl.channels.ssh.ssh", "flow.channels", "SSHChannel"),
    ("parsl.channels.ssh_il.ssh_il", "flow.channels", "SSHInteractiveLoginChannel"),
    ("parsl.channels.oauth_ssh.oauth_ssh", "flow.channels", "OAuthSSHChannel"),
    ("parsl.channels.errors", "flow_providers.errors", _OF_CHANNELS),
    ("parsl.launchers", _LAUNCHERS, _ALL_LAUNCHERS),
    ("parsl.launchers.launchers", _LAUNCHERS, _ALL_LAUNCHERS),
    ("parsl.launchers.base", _LAUNCHERS, "Launcher"),
    ("parsl.launchers.errors", "flow_providers.errors", "BadLauncher"),
    ("parsl.launchers.error", "flow_providers.errors", "BadLauncher"),
    ("parsl.addresses", "flow_executors.addresses", "address_by_hostname address_by_interface address_by_query"),
    ("parsl.addresses", "flow_executors.addresses", "address_by_route"),
    ("parsl.addresses", f"{_A}.helpers", "get_all_addresses get_any_address tcp_url"),
    # -- monitoring
    ("parsl.monitoring", f"{_A}.monitoring", "MonitoringHub"),
    ("parsl.monitoring.monitoring", f"{_A}.monitoring", "MonitoringHub"),
    ("parsl.monitoring.radios.base", f"{_A}.monitoring", "RadioConfig"),
    ("parsl.monitoring.radios.udp", f"{_A}.monitoring", "UDPRadio"),
    ("parsl.monitoring.radios.htex", f"{_A}.monitoring", "HTEXRadio"),
    ("parsl.monitoring.radios.filesystem", f"{_A}.monitoring", "FilesystemRadio"),
    ("parsl.monitoring.radios.multiprocessing", f"{_A}.monitoring", "MultiprocessingQueueRadio"),
    ("parsl.monitoring.errors", f"{_A}.errors", "MonitoringRouterStartError RadioRequiredError"),
    ("parsl.monitoring.message_type", f"{_A}.monitoring", "MessageType"),
    # -- serialization
    (
        "parsl.serialize",
        f"{_A}.serialization",
        "deserialize pack_apply_message serialize unpack_apply_message",
    ),
    (
        "parsl.serialize.facade",
        f"{_A}.serialization",
        (
            "deserialize pack_apply_message pack_buffers serialize unpack_and_deserialize unpack_apply_message "
            "unpack_buffers register_method_for_code register_method_for_data"
        ),
    ),
    ("parsl.serialize.base", f"{_A}.serialization", "SerializerBase"),
    (
        "parsl.serialize.concretes",
        f"{_A}.serialization",
        "DillCallableSerializer DillSerializer PickleSerializer",
    ),
    ("parsl.serialize.errors", _ERRORS, "SerializationError DeserializationError"),
    ("parsl.serialize.errors", f"{_A}.errors", "DeserializerPluginError"),
    # -- helpers
    ("parsl.utils", "flow_core.checkpoint.find", "get_all_checkpoints get_last_checkpoint"),
    (
        "parsl.utils",
        f"{_A}.helpers",
        (
            "AtomicIDCounter AutoCancelTimer RepresentationMixin Timer VERSION execute_wait get_std_fname_mode "
            "get_version sanitize_dns_label_rfc1123 sanitize_dns_subdomain_rfc1123 setproctitle time_limited_open "
            "wait_for_file wtime_to_minutes"
        ),
    ),
    ("parsl.process_loggers", f"{_A}.helpers", "wrap_with_logs"),
    ("parsl.multiprocessing", f"{_A}.helpers", "join_terminate_close_proc"),
    # -- configurations that come with it
    ("parsl.configs.local_threads", f"{_A}.configs", "config=threads"),
    ("parsl.configs.local", f"{_A}.configs", "localThreads=threads"),
    ("parsl.configs.htex_local", f"{_A}.configs", "config=htex fresh_config=fresh_htex"),
    ("parsl.tests.configs.local_threads", f"{_A}.configs", "config=threads fresh_config=fresh_threads"),
    ("parsl.tests.configs.htex_local", f"{_A}.configs", "config=htex fresh_config=fresh_htex"),
    # -- libsubmit, which was a library of its own up to Parsl 0.6
    ("libsubmit.channels", "flow.channels", _CHANNELS),
    (
        "libsubmit.providers",
        _PROVIDERS,
        (
            "AWSProvider AdHocProvider Cobalt=CobaltProvider CobaltProvider Condor=CondorProvider CondorProvider "
            "EC2Provider=AWSProvider GoogleCloud=GoogleCloudProvider GoogleCloudProvider GridEngine=GridEngineProvider "
            "GridEngineProvider Jetstream=JetstreamProvider KubernetesProvider Local=LocalProvider LocalProvider "
            "Slurm=SlurmProvider SlurmProvider Torque=TorqueProvider TorqueProvider"
        ),
    ),
    ("libsubmit.providers.local.local", _PROVIDERS, "Local=LocalProvider LocalProvider"),
    ("libsubmit.launchers", _LAUNCHERS, _ALL_LAUNCHERS),
)


def _read() -> dict[str, dict[str, tuple[str, str]]]:
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for module, home, names in _ROWS:
        above = module
        while above:  # a package without names of its own, too, can be imported
            found.setdefault(above, {})
            above = above.rpartition(".")[0]
        for one in names.split():
            old, _, new = one.partition("=")
            found[module][old] = (home, new or old)
    return found


NAMES: Mapping[str, Mapping[str, tuple[str, str]]] = _read()
"""By the module of Parsl: its names, and for each the module of Flow and the name there."""

ROOTS = ("parsl", "libsubmit")
"""The packages whose modules stand in the table."""
