"""What a job was granted is read from its scheduler's variables and files, control groups and limits."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from flow_executors.manager.granted import granted_by_scheduler, limits_of_process
from flow_executors.manager.node import look_at_node

MB = 1 << 20
MACHINE_AD = 'Activity = "Busy"\nCpus = 4\nMemory = 2048\nTotalCpus = 8.0\nTotalMemory = 8000\n'


def reader(files):
    return lambda path: files.get(path, "").strip()


@pytest.mark.parametrize(
    ("environment", "files", "cores", "memory_mb"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "3"}, {}, 3, None),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "3", "SLURM_MEM_PER_CPU": "100"}, {}, 3, 300),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "3", "SLURM_MEM_PER_NODE": "4000"}, {}, 3, 4000),
        # 0 is Slurm's word for all of it
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "3", "SLURM_MEM_PER_NODE": "0"}, {}, 3, None),
        ({"JOB_ID": "7", "NSLOTS": "1"}, {}, 1, None),
        ({"JOB_ID": "7", "NSLOTS": "6", "NHOSTS": "1"}, {}, 6, None),
        (
            {"JOB_ID": "7", "NSLOTS": "6", "NHOSTS": "2", "PE_HOSTFILE": "/pe"},
            {"/pe": "n1.site 4 all.q@n1 UNDEFINED\nn2.site 2 all.q@n2 UNDEFINED"},
            4,
            None,
        ),
        # a node of several whose part of the slots is told nowhere
        ({"JOB_ID": "7", "NSLOTS": "6", "NHOSTS": "2", "PE_HOSTFILE": "/pe"}, {}, None, None),
        ({"PBS_JOBID": "7.s", "PBS_NODEFILE": "/nodes"}, {"/nodes": "n1\nn1\nn2\nn1"}, 3, None),
        ({"PBS_JOBID": "7.s", "PBS_NODEFILE": "/nodes", "NCPUS": "8"}, {"/nodes": "n1\nn2"}, 8, None),
        ({"LSB_JOBID": "7", "LSB_MCPU_HOSTS": "n1 4 n2 2"}, {}, 4, None),
        ({"LSB_JOBID": "7", "LSB_HOSTS": "n2 n1 n1"}, {}, 2, None),
        ({"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "5"}, {}, 5, None),
        ({"LSB_JOBID": "7", "LSB_MCPU_HOSTS": "n8 4 n9 2", "LSB_DJOB_NUMPROC": "6"}, {}, None, None),
        ({"_CONDOR_MACHINE_AD": "/ad"}, {"/ad": MACHINE_AD}, 4, 2048),
        ({"_CONDOR_MACHINE_AD": "/none"}, {}, None, None),
        # the same variables outside of a job of that scheduler are somebody's own
        ({"NCPUS": "8", "NSLOTS": "4", "SLURM_CPUS_ON_NODE": "9"}, {}, None, None),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "many"}, {}, None, None),
    ],
)
def test_what_a_scheduler_granted_on_this_host_is_found(environment, files, cores, memory_mb):
    grant = granted_by_scheduler(environment, "n1", reader(files))
    assert (grant.cores, grant.memory) == (cores, None if memory_mb is None else memory_mb * MB)


def test_hosts_are_the_same_with_and_without_their_domain():
    environment = {"LSB_JOBID": "7", "LSB_MCPU_HOSTS": "n1.cluster.site 4"}
    assert granted_by_scheduler(environment, "n1.other", reader({})).cores == 4


def test_who_granted_the_cores_is_named():
    assert "SLURM_CPUS_ON_NODE" in granted_by_scheduler({"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "2"}, "n1").source


@given(
    st.dictionaries(
        st.sampled_from(["NSLOTS", "JOB_ID", "NHOSTS", "LSB_JOBID", "LSB_MCPU_HOSTS", "PBS_JOBID"]), st.text()
    )
)
def test_no_variable_whatever_it_holds_raises_or_gives_no_core(environment):
    grant = granted_by_scheduler(environment, "n1", reader({}))
    assert grant.cores is None or grant.cores > 0


V2 = "0::/jobs/a"


@pytest.mark.parametrize(
    ("files", "cores", "memory_mb"),
    [
        ({}, None, None),
        ({"/proc/self/cgroup": V2, "/sys/fs/cgroup/jobs/a/cpu.max": "150000 100000"}, 1.5, None),
        ({"/proc/self/cgroup": V2, "/sys/fs/cgroup/jobs/a/cpu.max": "max 100000"}, None, None),
        # less than a core still runs one task
        ({"/proc/self/cgroup": V2, "/sys/fs/cgroup/jobs/a/cpu.max": "20000 100000"}, 1, None),
        # the least of all groups that the process is in
        (
            {
                "/proc/self/cgroup": V2,
                "/sys/fs/cgroup/jobs/a/cpu.max": "800000 100000",
                "/sys/fs/cgroup/jobs/cpu.max": "200000 100000",
            },
            2,
            None,
        ),
        # a container whose own group is the root of what it sees
        ({"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": "400000 100000"}, 4, None),
        (
            {
                "/proc/self/cgroup": V2,
                "/sys/fs/cgroup/jobs/a/memory.max": str(1000 * MB),
                "/sys/fs/cgroup/jobs/a/memory.current": str(700 * MB),
                "/sys/fs/cgroup/jobs/a/memory.stat": f"anon 5\ninactive_file {200 * MB}\n",
            },
            None,
            500,
        ),
        (
            {
                "/proc/self/cgroup": "4:memory:/slot\n3:cpu,cpuacct:/slot\n1:name=systemd:/user",
                "/sys/fs/cgroup/cpu,cpuacct/slot/cpu.cfs_quota_us": "300000",
                "/sys/fs/cgroup/cpu,cpuacct/slot/cpu.cfs_period_us": "100000",
                "/sys/fs/cgroup/memory/slot/memory.limit_in_bytes": str(900 * MB),
                "/sys/fs/cgroup/memory/slot/memory.usage_in_bytes": str(100 * MB),
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            3,
            800,
        ),
        ({"/proc/self/cgroup": "3:cpu:/s", "/sys/fs/cgroup/cpu/s/cpu.cfs_quota_us": "-1"}, None, None),
    ],
)
def test_control_groups_of_both_versions_and_those_above_are_read(files, cores, memory_mb):
    found = limits_of_process(reader(files), address_space=-1)
    assert (found.cores, found.memory) == (cores, None if memory_mb is None else memory_mb * MB)


def test_a_limit_of_the_address_space_is_a_limit_of_memory():
    assert limits_of_process(reader({}), address_space=512 * MB).memory == 512 * MB


@given(st.text(), st.text())
def test_no_text_of_the_kernel_raises(groups, value):
    limits_of_process(lambda path: groups if path == "/proc/self/cgroup" else value, address_space=-1)


def test_a_node_counts_what_was_granted_and_not_what_it_has():
    found = look_at_node({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "1", "SLURM_MEM_PER_NODE": "100"})
    assert (found.cores, found.memory) == (1, 100 * MB)
    assert found.granted_by.startswith("Slurm")


def test_what_the_user_asked_for_comes_before_what_the_scheduler_says():
    assert look_at_node({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "1", "FLOW_CORES": "3"}).cores == 3
