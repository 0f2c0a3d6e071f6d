"""``python -m flow_executors.extreme_scale``: one rank of the MPI job of a block.

The fork server is forked before anything else is imported, above all before MPI is initialised: processes of MPI must
not fork, and workers are to be no part of the job.
"""

from __future__ import annotations

import os

from flow_executors.manager.fork_client import ForkServerClient

_OF_MPI = ("OMPI_", "PMIX_", "PMI_", "PMI2_", "HYDRA_", "HYDI_", "MPIR_", "I_MPI_", "PALS_", "ORTE_")

if __name__ == "__main__":
    # Programs of MPI that tasks start would take themselves for ranks of this job.
    of_mpi = {name: value for name, value in os.environ.items() if name.startswith(_OF_MPI)}
    # Whether root may run it, and such, is the user's word, and no part of a rank.
    for name in [name for name in of_mpi if not name.startswith(("OMPI_ALLOW_", "OMPI_MCA_rmaps_base_oversubscribe"))]:
        del os.environ[name]
    fork_client = ForkServerClient.fork()
    os.environ.update(of_mpi)

    from flow_executors.extreme_scale.start import main

    main(fork_client)
