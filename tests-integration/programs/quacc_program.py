"""A program of quacc and Parsl: relax a crystal and compute it, then do so with all its slabs."""

import sys

import parsl
from ase.build import bulk
from parsl.config import Config
from parsl.dataflow.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.providers import LocalProvider
from quacc.recipes.emt.core import relax_job, static_job
from quacc.recipes.emt.slabs import bulk_to_slabs_flow


def executor(kind):
    if kind == "threads":
        return ThreadPoolExecutor(max_threads=2)
    provider = LocalProvider(init_blocks=1, max_blocks=1)
    return HighThroughputExecutor(label="quacc_parsl", max_workers_per_node=2, provider=provider)


if __name__ == "__main__":
    config = Config(strategy="none", dependency_resolver=DEEP_DEPENDENCY_RESOLVER, executors=[executor(sys.argv[1])])
    with parsl.load(config):
        print("parsl is", parsl.__spec__.origin)
        atoms = bulk("Cu")
        relaxed = relax_job(atoms)
        result = static_job(relaxed["atoms"]).result()
        print("energy", round(result["results"]["energy"], 5))
        print("slabs", len(bulk_to_slabs_flow(atoms).result()))
