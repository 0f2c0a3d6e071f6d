"""KubernetesProvider through the official client, on an API server that runs each pod's container for real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_packages import need

from flow_providers import JobExtras, JobState, KubernetesProvider
from flow_providers.errors import ExecutionProviderException, SchedulerUnavailable, SubmitException
from flow_providers.jobs.accounted import AccountedProvider
from flow_providers.jobs.ledger import JobLedger
from flow_providers.jobs.sweep import sweep
from flow_providers.spec import provider_from, spec_of
from flow_providers.testing.contract import ProviderContract
from flow_testing.clouds.kubernetes import FakeKubernetes

pytestmark = pytest.mark.services


@pytest.fixture
def cluster() -> Iterator[FakeKubernetes]:
    need("kubernetes", "kubernetes.client")
    with FakeKubernetes() as cluster:
        yield cluster


@pytest.fixture
def config(cluster: FakeKubernetes, tmp_path: Path) -> str:
    return cluster.write_config(tmp_path)


@pytest.fixture
def provider(config: str) -> Iterator[KubernetesProvider]:
    provider = KubernetesProvider("debian", config_file=config)
    yield provider
    provider.close()


class TestKubernetesProvider(ProviderContract):
    poll_s = 0.03
    unknown_job = "no-such-job-1"

    @pytest.fixture
    def provider(self, provider: KubernetesProvider) -> KubernetesProvider:  # type: ignore[override]  # narrowed
        return provider

    def test_dollars_of_a_command_are_the_commands(self, provider: KubernetesProvider) -> None:
        job = provider.submit("echo $$ $(HOME=x; echo $HOME) '$(FLOW_CORES)'", 1)
        self.until_ended(provider, job)
        pid, *rest = self.output_with(provider, job, "x").split()
        assert pid.isdecimal()
        assert rest == ["x", "$(FLOW_CORES)"]

    def test_a_pod_whose_image_cannot_be_pulled_waits_with_the_reason(self, config: str) -> None:
        provider = KubernetesProvider("missing/image", config_file=config)
        job = provider.submit("true", 1)
        with self.surely_ended(provider, [job]):
            status = self.until(provider, job, lambda status: bool(status.reason))
            assert (status.state, status.reason) == (JobState.PENDING, "ImagePullBackOff")
            assert "missing/image" in status.message

    def test_a_pod_that_fits_no_node_waits_with_the_reason(self, config: str) -> None:
        provider = KubernetesProvider("debian", config_file=config, init_cpu=100, max_cpu=100)
        job = provider.submit("true", 1)
        with self.surely_ended(provider, [job]):
            status = self.until(provider, job, lambda status: bool(status.reason))
            assert (status.state, status.reason) == (JobState.PENDING, "Unschedulable")
            assert "Insufficient cpu" in status.message

    def test_a_pod_past_its_walltime_has_timed_out(self, config: str) -> None:
        provider = KubernetesProvider("debian", config_file=config, walltime="00:00:01")
        job = provider.submit("sleep 600", 1)
        status = self.until_ended(provider, job)
        assert (status.state, status.reason) == (JobState.TIMEOUT, "DeadlineExceeded")
        assert status.nodes == ("node-0",)

    def test_a_command_killed_by_a_signal_says_which(self, provider: KubernetesProvider) -> None:
        job = provider.submit("kill -9 $BASHPID", 1)
        status = self.until_ended(provider, job)
        assert (status.state, status.exit_code, status.signal) == (JobState.FAILED, 137, 9)

    def test_a_failed_pod_tells_the_end_of_its_output(self, provider: KubernetesProvider) -> None:
        job = provider.submit("echo no licence for this host >&2; exit 4", 1)
        assert "no licence" in self.until_ended(provider, job).message
        assert "no licence" in provider.tail(job)[1]

    def test_cancelling_lets_the_command_end_in_order(self, provider: KubernetesProvider, tmp_path: Path) -> None:
        ready, ended = tmp_path / "ready", tmp_path / "ended"
        job = provider.submit(f"trap 'touch {ended}; exit 0' TERM; touch {ready}; sleep 600 & wait", 1)
        self.patiently(lambda: [1] if ready.exists() else [])
        assert provider.cancel([job]) == [True]
        self.until_ended(provider, job)
        assert ended.exists()

    def test_a_job_of_several_nodes_is_several_pods(self, config: str, cluster: FakeKubernetes) -> None:
        provider = KubernetesProvider("debian", config_file=config, nodes_per_block=3)
        job = provider.submit("echo node", 2)
        status = self.until_ended(provider, job)
        assert (status.state, len(status.nodes)) == (JobState.COMPLETED, 3)
        assert provider.tail(job)[0].count("node") == 6
        assert cluster.names("pods") == [f"{job}-{i}" for i in range(3)]

    def test_names_users_volumes_and_limits_are_those_asked_for(
        self, config: str, cluster: FakeKubernetes, tmp_path: Path
    ) -> None:
        cluster.add_volume("data", tmp_path)
        (tmp_path / "input").write_text("from the volume\n")
        tmp_path.chmod(0o755)
        provider = KubernetesProvider(
            "debian",
            config_file=config,
            pod_name="My-Pod",
            secret="pull-key",
            user_id="65534",
            group_id="65534",
            run_as_non_root=True,
            persistent_volumes=[("data", "/mnt/data")],
            node_selector={"disk": "ssd"},
            service_account_name="worker",
            image_pull_policy="Never",
            worker_init="export SITE=here",
        )
        job = provider.submit("cat /mnt/data/input; id -u; echo $SITE $FLOW_CORES $FLOW_MEMORY_GB", 1)
        self.until_ended(provider, job)
        assert job.startswith("my-pod-")
        spec = cluster.objects["pods", "default", job]["spec"]
        assert spec["imagePullSecrets"] == [{"name": "pull-key"}]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["nodeSelector"] == {"disk": "ssd"}
        limits = {"limits": {"cpu": "2", "memory": "500Mi"}, "requests": {"cpu": "1", "memory": "250Mi"}}
        assert spec["containers"][0]["resources"] == limits
        uid = "65534" if os.getuid() == 0 else "0"
        assert provider.tail(job)[0] == f"from the volume\n{uid}\nhere 2 0.488\n"

    def test_secrets_are_the_commands_own_whatever_user_it_is(self, config: str) -> None:
        provider = KubernetesProvider("debian", config_file=config, user_id=65534)
        job = provider.submit('cat "$FLOW_SECRET_KEY"', 1, extras=JobExtras(secrets=(("key", b"sesame"),)))
        assert self.until_ended(provider, job).state is JobState.COMPLETED
        assert provider.tail(job)[0] == "sesame"

    def test_secrets_are_in_no_pod_and_gone_when_the_job_has_ended(
        self, provider: KubernetesProvider, cluster: FakeKubernetes
    ) -> None:
        job = provider.submit("true", 1, extras=JobExtras(secrets=(("key", b"sesame"),)))
        assert cluster.names("secrets") == [job]
        self.until_ended(provider, job)
        assert cluster.names("secrets") == []
        pods = [request for request in cluster.requests if request.path.endswith("/pods")]
        assert not any(b"sesame" in request.body or b"c2VzYW1l" in request.body for request in pods)

    def test_nothing_without_the_tag_is_listed_or_ended(
        self, provider: KubernetesProvider, cluster: FakeKubernetes
    ) -> None:
        cluster.put("pods", "others", {"app": "database"})
        cluster.put("secrets", "others", {"flow-job": "others"})
        assert provider.find("") == []
        assert provider.status(["others"])[0].state is JobState.MISSING
        assert provider.cancel(["others"]) == [True]
        assert (cluster.names("pods"), cluster.names("secrets")) == (["others"], ["others"])

    def test_the_heir_of_a_driver_cancels_its_pods_and_secrets(
        self, provider: KubernetesProvider, cluster: FakeKubernetes
    ) -> None:
        extras = JobExtras(tag="fHeritage", secrets=(("key", b"x"),))
        job = provider.submit("sleep 600", 1, extras=extras)
        heir = provider_from(spec_of(provider))
        assert heir.find("fHerit") == [job]
        assert heir.cancel([job]) == [True]
        self.until_ended(heir, job)
        self.patiently(lambda: [] if cluster.names("pods") else [1])
        assert cluster.names("secrets") == []

    def test_a_pod_that_failed_goes_with_a_driver_that_was_killed(
        self, provider: KubernetesProvider, cluster: FakeKubernetes, tmp_path: Path
    ) -> None:
        ledger = JobLedger(tmp_path / "jobs.ledger")
        accounted = AccountedProvider(provider, ledger, run_id="run", owner="htex")
        failed = accounted.submit("exit 4", 1)
        self.until_ended(accounted, failed)
        assert cluster.names("pods") == [failed]
        heir = provider_from(spec_of(provider))
        assert sweep(heir, ledger, ledger.open_entries(), submitters_gone=True) == []
        self.patiently(lambda: [] if cluster.names("pods") else [1])
        assert ledger.open_entries() == []

    def test_closing_removes_the_pods_that_ended_and_no_other(
        self, provider: KubernetesProvider, cluster: FakeKubernetes
    ) -> None:
        ended, running = provider.submit("true", 1), provider.submit("sleep 600", 1)
        self.until_ended(provider, ended)
        provider.close()
        assert cluster.names("pods") == [running]
        assert provider.cancel([running]) == [True]

    def test_clearing_a_job_that_ended_removes_its_pod_and_no_other(
        self, provider: KubernetesProvider, cluster: FakeKubernetes
    ) -> None:
        ended, other = provider.submit("true", 1), provider.submit("true", 1)
        self.until_ended(provider, ended)
        self.until_ended(provider, other)
        provider.clear([ended])
        assert cluster.names("pods") == [other]
        assert provider.status([ended])[0].state is JobState.COMPLETED

    def test_where_listing_secrets_is_forbidden_jobs_are_cancelled_all_the_same(
        self, provider: KubernetesProvider, cluster: FakeKubernetes
    ) -> None:
        cluster.forbidden.add(("GET", "secrets"))
        job = provider.submit("sleep 600", 1, extras=JobExtras(secrets=(("key", b"x"),)))
        assert provider.cancel([job]) == [True]
        assert self.until_ended(provider, job).state is JobState.CANCELLED
        assert cluster.names("secrets") == []

    def test_a_lost_answer_makes_no_second_pod(self, provider: KubernetesProvider, cluster: FakeKubernetes) -> None:
        cluster.fail_next = [0]
        job = provider.submit("true", 1)
        assert cluster.names("pods") == [job]
        assert self.until_ended(provider, job).state is JobState.COMPLETED

    def test_a_server_that_is_away_leaves_the_states_unchanged(
        self, provider: KubernetesProvider, cluster: FakeKubernetes
    ) -> None:
        job = provider.submit("sleep 600", 1)
        with self.surely_ended(provider, [job]):
            self.until(provider, job, lambda status: status.state is JobState.RUNNING)
            cluster.fail_next = [503]
            with pytest.raises(SchedulerUnavailable, match="unable to handle"):
                provider.status([job])
            assert provider.status([job])[0].state is JobState.RUNNING

    def test_a_refused_pod_leaves_no_secret(self, provider: KubernetesProvider, cluster: FakeKubernetes) -> None:
        cluster.forbidden.add(("POST", "pods"))
        with pytest.raises(SubmitException, match="forbidden"):
            provider.submit("true", 1, extras=JobExtras(secrets=(("key", b"x"),)))
        assert cluster.names("secrets") == []

    def test_a_thousand_jobs_are_one_list_by_pages(self, provider: KubernetesProvider, cluster: FakeKubernetes) -> None:
        for i in range(1000):
            cluster.put("pods", f"p{i}", {"flow-tag": "fx", "flow-job": f"p{i}"})
        before = len(cluster.requests)
        states = {status.state for status in provider.status([f"p{i}" for i in range(1000)])}
        assert states == {JobState.RUNNING}
        assert len(cluster.requests) - before == 2


def test_a_missing_kube_config_is_named(tmp_path: Path) -> None:
    pytest.importorskip("kubernetes")
    provider = KubernetesProvider("debian", config_file=str(tmp_path / "none"))
    with pytest.raises(ExecutionProviderException, match="kubectl get pods"):
        provider.submit("true", 1)
